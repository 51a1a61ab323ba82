//! Puts a part of a feed into the memory of a replica, which is a log that copies another log.
//!
//! A floor is the offset below which a topic may have lost events. The tail is the next offset that
//! readers see, and a floor may be above the old tail. So the sequence lock is held from the first
//! floor until the tail has moved. A reader with a new pattern waits for this lock before it
//! begins, so it begins at the new tail. It then finds the floor in the history, like the floor of
//! any eviction. Other readers find the floor in their patterns, or in the rings, which hold the
//! events of the topics.

use std::{collections::HashSet, sync::Arc};

use smallvec::SmallVec;

use crate::core::Core;
use crate::history::{EventTopics, Evicted, Published, Pushed};
use crate::patterns::{Held, Matching};
use crate::sequence::{PayloadDecoder, PublisherId, Wakes};
use crate::store::{Finished, Losses, StoredEvent};
use crate::topics::Topic;
use crate::types::{Address, Floor, Offset, Payload};

/// The content of an event.
pub(crate) enum Content<P> {
    Payload(P),
    /// There is no payload: the event only finishes its topics.
    Mark,
    /// The payload is damaged or cannot be decoded.
    Unreadable,
}

/// An event and its topics. The topics are reserved, so they stay in memory until the event is
/// pushed.
struct Prepared<'a, P: Payload> {
    event: &'a mut StoredEvent,
    payload: Option<P>,
    topics: EventTopics<P>,
}

/// The state of one call of [`apply`].
struct Applying<'a, P: Payload> {
    core: &'a Core<P>,
    evicted: Evicted<P>,
    wakes: Wakes<P>,
    /// Whether a floor was raised. Then an event may be below the floor of its topic.
    has_losses: bool,
}

/// Applies the losses and events of a chunk that ends at `next`, makes the events visible, and
/// wakes the readers. The caller must hold no lock.
pub(crate) fn apply<P: Payload>(
    core: &Core<P>,
    decoder: &PayloadDecoder<P>,
    losses: &Losses,
    events: &mut [StoredEvent],
    next: u64,
) {
    let contents = events.iter_mut().map(|event| decode(core, decoder, event)).collect();
    apply_decoded(core, losses, events, contents, next);
}

/// Like [`apply`], with the decoded contents of the events.
pub(crate) fn apply_decoded<P: Payload>(
    core: &Core<P>,
    losses: &Losses,
    events: &mut [StoredEvent],
    // The payloads that are not pushed are dropped while no lock is held.
    mut contents: Vec<Content<P>>,
    next: u64,
) {
    let newest = next.saturating_sub(1);
    let wakes = Wakes { topics: EventTopics::new(), patterns: Matching::new(), newest };
    let mut applying = Applying { core, evicted: Evicted::new(), wakes, has_losses: false };
    {
        let mut sequence = core.sequencer.lock();
        let tail = core.history.tail();
        let mut named = Vec::new();
        if let Some(others) = losses.others {
            // The table of names may have no room for all known names. A topic that exists needs no
            // room in the table.
            named = applying.reserve_known(&losses.known, events, tail);
            applying.lose_others(&losses.known, others);
            if losses.known.is_empty() {
                core.ids.note_unknown_below(others.offset.get());
            }
        }
        losses.floors.iter().for_each(|(address, floor)| applying.lose(address, *floor));
        let mut prepared = Vec::with_capacity(events.len());
        for (event, content) in events.iter_mut().zip(&mut contents) {
            // An event that the replica has already is not pushed again.
            if event.offset.get() >= tail {
                if let Some(key) = event.key.take() {
                    let answer = core.ids.appended(event.offset, 0, false);
                    sequence.note_key(event.at, key, event.fingerprint, answer);
                }
                let content = std::mem::replace(content, Content::Mark);
                prepared.extend(applying.prepare(event, content));
            }
        }
        applying.push_all(prepared, tail);
        applying.release(named);
        if applying.has_losses {
            // Feeds of this replica must pass the losses on.
            let unneeded = core.history.backlog.begin_again(next.max(tail));
            applying.evicted.unneeded.extend(unneeded);
        }
        core.history.set_tail(next.max(tail));
        core.history.tidy_index();
    }
    let Applying { evicted, wakes, .. } = applying;
    core.sequencer.settle(&core.history, &evicted);
    wakes.wake();
    core.history.backlog.wake();
}

fn decode<P: Payload>(
    core: &Core<P>,
    decoder: &PayloadDecoder<P>,
    event: &mut StoredEvent,
) -> Content<P> {
    let Some(payload) = event.payload.take() else { return Content::Mark };
    let id = event.id.clone();
    let decoded = decoder.decode(&core.ids, event.offset, event.at, id, Some(payload));
    decoded.map_or(Content::Unreadable, Content::Payload)
}

impl<P: Payload> Applying<'_, P> {
    /// Notes that events of an address below a floor may be missing.
    fn lose(&mut self, address: &Address, floor: Floor) {
        self.has_losses = true;
        let history = &self.core.history;
        self.wakes.topics.extend(history.lose(address, floor, &mut self.evicted));
        history.patterns.hold().add_matching(address, &mut self.wakes.patterns);
    }

    /// Reserves the topics of new events whose names are known, as far as the limit allows.
    fn reserve_known(
        &self,
        known: &HashSet<Address>,
        events: &[StoredEvent],
        tail: u64,
    ) -> Vec<Arc<Topic<P>>> {
        let new = events.iter().filter(|event| event.offset.get() >= tail);
        let names: HashSet<&Address> =
            new.flat_map(|event| &event.to).filter(|address| known.contains(address)).collect();
        let reserve = |address: &Address| self.core.history.reserve_within_limit(address);
        names.into_iter().filter_map(reserve).collect()
    }

    fn release(&mut self, topics: Vec<Arc<Topic<P>>>) {
        for topic in topics {
            self.core.history.unreserve(&topic);
            self.evicted.emptied.push(topic);
        }
    }

    fn lose_others(&mut self, known: &HashSet<Address>, floor: Floor) {
        self.has_losses = true;
        let history = &self.core.history;
        history.lose_others(known, floor, &mut self.evicted);
        // Every reader is on the list of everyone's topic.
        self.wakes.topics.push(Arc::clone(&history.topics.everyone));
    }

    /// Reserves the topics of an event. An event that cannot be decoded is lost for its topics. If
    /// the log has as many topics with events as its limit allows, the event is lost for each
    /// further topic. A lost event stays in the cache, if there is one, and readers get it from
    /// there.
    fn prepare<'b>(
        &mut self,
        event: &'b mut StoredEvent,
        content: Content<P>,
    ) -> Option<Prepared<'b, P>> {
        let history = &self.core.history;
        let missing = Floor { offset: Offset::new(event.offset.get() + 1), at: event.at };
        let is_unreadable = matches!(content, Content::Unreadable);
        if is_unreadable {
            history.unreadable.note(event.offset.get());
            event.to.iter().for_each(|address| self.lose(address, missing));
        }
        let payload = match content {
            Content::Payload(payload) => Some(payload),
            Content::Mark | Content::Unreadable if event.finish => None,
            Content::Mark | Content::Unreadable => return None,
        };
        let mut topics = EventTopics::new();
        for address in &event.to {
            match history.reserve_within_limit(address) {
                Some(topic) => topics.push(topic),
                None if payload.is_some() => self.lose(address, missing),
                None => {}
            }
        }
        // An event without topics is not kept. Its payload is dropped after the locks are released.
        if topics.is_empty() {
            self.evicted.unkept.extend(payload);
            return None;
        }
        Some(Prepared { event, payload, topics })
    }

    /// Pushes the events into their topics, and then evicts events that exceed the limit of bytes.
    /// `first` is at most the offset of the first event.
    fn push_all(&mut self, prepared: Vec<Prepared<'_, P>>, first: u64) {
        let history = &self.core.history;
        let held = history.patterns.hold();
        let mut pushed_to = EventTopics::new();
        for event in prepared {
            self.push(&held, event, &mut pushed_to);
        }
        history.trim_all(&held, pushed_to.iter(), first, &mut self.evicted);
        drop(held);
        self.wakes.topics.extend(pushed_to);
    }

    fn push(
        &mut self,
        held: &Held<'_, P>,
        Prepared { event, mut payload, mut topics }: Prepared<'_, P>,
        pushed_to: &mut EventTopics<P>,
    ) {
        let (core, offset, at) = (self.core, event.offset.get(), event.at);
        let history = &core.history;
        if self.has_losses {
            topics.retain(|topic| {
                let is_kept = topic.ring.read().floor() <= offset;
                if !is_kept {
                    if event.finish {
                        let mark = Finished { offset: event.offset, at };
                        history.restore_finish(topic, mark);
                        self.wakes.topics.push(Arc::clone(topic));
                    }
                    history.unreserve(topic);
                    self.evicted.emptied.push(Arc::clone(topic));
                }
                is_kept
            });
            if topics.is_empty() {
                self.evicted.unkept.extend(payload);
                return;
            }
        }
        // The upstream knows which topics are finished. So an event reopens a topic that the
        // replica still keeps as finished.
        if !event.finish {
            let finished = topics.iter().filter(|topic| topic.finished().is_some());
            finished.for_each(|topic| history.reopen(topic));
        }
        let is_event = payload.is_some();
        history.note_published(is_event);
        if let Some(id) = event.id.take().filter(|_| is_event) {
            let answer = core.ids.appended(event.offset, 0, false);
            let (fingerprint, rings) = (event.fingerprint, topics.len());
            let known = PublisherId { fingerprint, answer, rings };
            core.sequencer.publisher_ids.insert_if_free(id, known);
        }
        let patterns: SmallVec<[Matching<P>; 1]> =
            topics.iter().map(|topic| held.matching(topic)).collect();
        if history.backlog.is_open() && !self.has_losses {
            self.evicted.unneeded.extend(history.backlog.push(Published {
                offset,
                at,
                topics: topics.clone(),
                payload: payload.clone(),
                finish: event.finish,
            }));
        }
        let pushed = Pushed {
            offset,
            at,
            payload: payload.take(),
            topics: &topics,
            patterns: &patterns,
            finish: event.finish,
        };
        history.push(pushed, &mut self.evicted);
        patterns.into_iter().for_each(|matching| self.wakes.patterns.extend(matching));
        pushed_to.extend(topics);
    }
}
