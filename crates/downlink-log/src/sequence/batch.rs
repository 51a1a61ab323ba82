//! A batch of drafts while it is being appended. A draft is an event without an offset. First the
//! topics of each draft are found, and later the new events get their offsets. The sequence lock is
//! held while they get their offsets.
//!
//! A ring holds the events of one topic. A finish mark says that a topic gets no more events.

use std::{collections::HashSet, sync::Arc};

use smallvec::SmallVec;

use crate::history::{EventTopics, History};
use crate::sequence::{AppendError, Appended, Draft};
use crate::topics::Topic;
use crate::types::{Address, Fingerprint, IdempotencyKey, Payload, Timestamp};

/// The earlier event or draft that a draft repeats: both have the same id or the same idempotency
/// key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Repeat {
    /// The draft repeats an event that was appended earlier. The publisher of that event got this
    /// answer.
    Answered(Appended),
    /// The draft repeats an earlier draft, which has this number. All drafts that are committed
    /// together are numbered from 0. In a log in memory, they are the drafts of one batch. In a log
    /// with a store, they may be the drafts of several batches.
    Of(usize),
}

/// For each draft of a batch, the earlier event or draft that it repeats. `None` if the draft is
/// new.
pub(crate) type Plans = SmallVec<[Option<Repeat>; 1]>;

/// The topics of each draft of a batch. A draft has each of its topics only once.
///
/// When the batch gets its offsets, the topics of its new events are moved out of this value. The
/// topics of repetitions stay in this value. If the batch is refused or some code panics, all
/// topics stay in this value. When this value is dropped, it removes from memory each of its topics
/// that nothing uses.
pub(crate) struct DraftTopics<'a, P: Payload> {
    history: &'a History<P>,
    pub(crate) topics: SmallVec<[EventTopics<P>; 1]>,
}

impl<'a, P: Payload> DraftTopics<'a, P> {
    /// Finds the topics of the drafts, and creates those that do not exist.
    pub(crate) fn find(history: &'a History<P>, drafts: &[Draft<P>]) -> Self {
        let mut found = Self { history, topics: SmallVec::with_capacity(drafts.len()) };
        for Draft { to, .. } in drafts {
            let mut topics: EventTopics<P> =
                to.iter().map(|address| history.topic(address)).collect();
            if topics.len() > 1 {
                let mut seen = HashSet::with_capacity(topics.len());
                topics.retain(|topic| seen.insert(topic.identity()));
            }
            found.topics.push(topics);
        }
        found
    }

    /// Refuses the batch if more topics than allowed would have events after the append. The caller
    /// must hold the sequence lock.
    pub(crate) fn check_room(&self, plans: &Plans) -> Result<(), AppendError> {
        let topics_max = self.history.options.limits.topics_max;
        let filled = self.history.filled();
        let places = self.topics.iter().map(SmallVec::len).sum::<usize>();
        if filled + places <= topics_max {
            return Ok(());
        }
        let mut new = HashSet::new();
        for (draft, (topics, plan)) in self.topics.iter().zip(plans).enumerate() {
            let empty = |topic: &&Arc<Topic<P>>| {
                topic.address != Address::Everyone && !topic.ring.read().is_filled()
            };
            if plan.is_none() {
                new.extend(topics.iter().filter(empty).map(|topic| topic.identity()));
            }
            if !new.is_empty() && filled + new.len() > topics_max {
                return Err(AppendError::TooManyTopics { draft, topics_max });
            }
        }
        Ok(())
    }

    /// Reserves the topics' rings for all new drafts, so that no topic is collected (removed from
    /// memory) before its event is pushed. `None` if one of the topics was already collected.
    pub(crate) fn reserve<'b>(&'b self, plans: &'b Plans) -> Option<Reserved<'b, P>> {
        let mut reserved = Reserved { history: self.history, topics: SmallVec::new() };
        let fresh = self.topics.iter().zip(plans).filter(|(_, plan)| plan.is_none());
        for topic in fresh.flat_map(|(topics, _)| topics) {
            if !self.history.reserve(topic) {
                return None;
            }
            reserved.topics.push(topic);
        }
        Some(reserved)
    }
}

impl<P: Payload> Drop for DraftTopics<'_, P> {
    fn drop(&mut self) {
        self.topics.iter().for_each(|topics| self.history.collect(topics));
    }
}

/// Rings that are reserved for an append. Dropping this before [`keep`](Self::keep) ends the
/// reservations.
pub(crate) struct Reserved<'a, P: Payload> {
    history: &'a History<P>,
    topics: SmallVec<[&'a Topic<P>; 1]>,
}

impl<P: Payload> Reserved<'_, P> {
    /// Leaves the rings reserved. The push into each ring ends its reservation.
    pub(crate) fn keep(mut self) {
        self.topics.clear();
    }
}

impl<P: Payload> Drop for Reserved<'_, P> {
    fn drop(&mut self) {
        self.topics.iter().for_each(|topic| self.history.unreserve(topic));
    }
}

/// A batch whose new events have their offsets. The rings of their topics are reserved until the
/// events are pushed into them.
///
/// The batch is dropped while no lock is held, because dropping a payload may run the app's code.
pub(crate) struct Assigned<P> {
    /// The time that the publisher passed to the append.
    pub(crate) now: Timestamp,
    /// The time stamp of the batch's events. It is not earlier than the time stamp of any earlier
    /// event.
    pub(crate) at: Timestamp,
    /// The offset of the batch's first new event. If the batch has no new event, this is the next
    /// offset to be assigned.
    pub(crate) first: u64,
    pub(crate) drafts: SmallVec<[Result<Fresh<P>, Repeat>; 1]>,
}

/// A new event, or a finish mark without an event.
pub(crate) struct Fresh<P> {
    pub(crate) offset: u64,
    pub(crate) payload: Option<P>,
    pub(crate) topics: EventTopics<P>,
    pub(crate) id: Option<Box<str>>,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) finish: bool,
    /// The bytes for the store.
    pub(crate) body: Option<Vec<u8>>,
}

impl<P> Assigned<P> {
    /// The topics of all new events. A topic of several events is returned once for each of them.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<Topic<P>>> {
        self.drafts.iter().flatten().flat_map(|fresh| &fresh.topics)
    }
}

impl<P> Fresh<P> {
    /// False for a finish mark without an event. Also false for an event without topics, because no
    /// topic keeps it.
    pub(crate) fn is_kept(&self) -> bool {
        self.payload.is_some() && !self.topics.is_empty()
    }
}
