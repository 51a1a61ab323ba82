//! Installing: events that have their offsets go into their rings, and the tail moves.
//!
//! What is installed is visible. Events come here in the order of their offsets, each once.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::{
    address::Address,
    draft::{Answers, Appended},
    evict::Evicted,
    given::{Fingerprint, GivenId, IdempotencyKey},
    index::Topics,
    log::{Payload, Sequence, Shared},
    offset::{Offset, Timestamp},
    queue::Awaited,
    ring::{Finish, Kept},
    sync::Ordering,
    topic::TopicLog,
};

/// A batch whose new events have their offsets. Their rings are reserved until it is installed.
///
/// Outlives every lock, so whatever is left of it is dropped with none held.
pub(crate) struct Assigned<P> {
    /// When it came, and what its events are stamped with: not before those that came earlier.
    pub(crate) now: Timestamp,
    pub(crate) at: Timestamp,
    /// The offset of its first new event; if there is none, of the next one.
    pub(crate) first: u64,
    pub(crate) drafts: SmallVec<[Decided<P>; 1]>,
}

/// What a draft has become.
pub(crate) enum Decided<P> {
    /// The answer of an earlier append.
    Repeat(Appended),
    /// The same as an earlier draft of this batch.
    RepeatOf(usize),
    /// The same as a draft of another batch, which is not committed yet.
    Awaited(Awaited),
    Fresh(Fresh<P>),
}

/// A new event, or a finish mark.
pub(crate) struct Fresh<P> {
    pub(crate) offset: u64,
    pub(crate) payload: Option<P>,
    pub(crate) topics: Topics<P>,
    pub(crate) id: Option<Box<str>>,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) finish: bool,
    /// What a store keeps of it.
    pub(crate) body: Option<Vec<u8>>,
}

impl<P> Assigned<P> {
    pub(crate) fn fresh(&self) -> impl Iterator<Item = &Fresh<P>> {
        self.drafts.iter().filter_map(|draft| match draft {
            Decided::Fresh(fresh) => Some(fresh),
            _ => None,
        })
    }

    /// Takes the topics out, once for each event.
    pub(crate) fn take_topics(&mut self) -> Topics<P> {
        let mut taken = Topics::new();
        for draft in &mut self.drafts {
            if let Decided::Fresh(fresh) = draft {
                taken.append(&mut fresh.topics);
            }
        }
        taken
    }

    /// The topics of the new events, once for each event.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<TopicLog<P>>> {
        self.fresh().flat_map(|fresh| &fresh.topics)
    }
}

impl<P> Fresh<P> {
    /// Whether there is an event and somebody whom it is for.
    pub(crate) fn is_kept(&self) -> bool {
        self.payload.is_some() && !self.topics.is_empty()
    }
}

impl<P: Payload> Shared<P> {
    /// Makes a batch visible, and keeps the log within its bounds.
    pub(crate) fn install(
        &self,
        sequence: &mut Sequence<P>,
        batch: &mut Assigned<P>,
        evicted: &mut Evicted<P>,
    ) -> Answers {
        let mut answers = Answers::new();
        let mut tail = self.tail();
        for draft in &mut batch.drafts {
            let answer = match draft {
                Decided::Repeat(answer) => Appended { repeated: true, ..*answer },
                Decided::RepeatOf(of) => Appended { repeated: true, ..answers[*of] },
                Decided::Awaited(_) => unreachable!("a batch is visible after those it repeats"),
                Decided::Fresh(fresh) => {
                    tail = fresh.offset + 1;
                    self.install_one(sequence, (batch.now, batch.at), fresh, evicted)
                }
            };
            answers.push(answer);
        }
        self.tail.store(tail, Ordering::Release);
        self.trim_all(batch.topics(), batch.first, evicted);
        self.tidy_index();
        answers
    }

    fn install_one(
        &self,
        sequence: &mut Sequence<P>,
        (now, at): (Timestamp, Timestamp),
        fresh: &mut Fresh<P>,
        evicted: &mut Evicted<P>,
    ) -> Appended {
        let Fresh { offset, fingerprint, .. } = *fresh;
        let matched = count(&fresh.topics, offset);
        let answer = Appended { offset: Offset::new(offset), matched, repeated: false };
        if let Some(key) = fresh.key.take() {
            sequence.keys.insert(now, key, fingerprint, answer);
        }
        let kept = fresh.is_kept();
        if let Some(id) = fresh.id.take().filter(|_| kept) {
            // Before the event is where it can be evicted, which frees the id again.
            let rings = fresh.topics.len();
            self.given.lock().insert(id, GivenId { fingerprint, answer, rings });
        }
        // One that nobody gets is dropped with the batch.
        let payload = if kept { fresh.payload.take() } else { None };
        self.push(fresh, at, payload, evicted);
        answer
    }

    /// Puts an event into its rings, which were reserved for it.
    pub(crate) fn push(
        &self,
        fresh: &Fresh<P>,
        at: Timestamp,
        mut payload: Option<P>,
        evicted: &mut Evicted<P>,
    ) {
        let Fresh { offset, finish, ref topics, .. } = *fresh;
        if payload.is_some() {
            self.index.lock().push(offset, topics.clone());
        }
        for (left, topic) in (0..topics.len()).rev().zip(topics) {
            let payload = if left == 0 { payload.take() } else { payload.clone() };
            let mut ring = topic.ring.write();
            ring.unreserve();
            if let Some(payload) = payload {
                let cost = ring.push(Kept { offset, at, payload });
                self.bytes.fetch_add(cost, Ordering::Relaxed);
                self.events.fetch_add(1, Ordering::Relaxed);
                topic.set_newest(offset);
                if topic.is_inbox() {
                    self.newest_of_inboxes.fetch_max(offset, Ordering::AcqRel);
                }
                self.trim(topic, &mut ring, evicted);
            }
            if finish {
                ring.set_finish(Some(Finish { offset, at }));
                topic.set_finished(true);
                self.finished.fetch_add(1, Ordering::Relaxed);
            }
            self.queue_expiry(topic, &ring);
        }
    }
}

/// Distinct readers of the topics.
fn count<P>(topics: &[Arc<TopicLog<P>>], offset: u64) -> usize {
    let everyone = topics.iter().find(|topic| topic.address == Address::Everyone);
    match (topics, everyone) {
        ([topic], _) | (_, Some(topic)) => topic.watchers.lock().len(),
        _ => topics
            .iter()
            .map(|topic| {
                let watchers = topic.watchers.lock();
                watchers.iter().filter(|watcher| watcher.count_once(offset)).count()
            })
            .sum(),
    }
}
