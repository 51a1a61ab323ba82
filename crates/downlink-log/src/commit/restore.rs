//! When a log with a store is opened, this module reads the newest stored events into memory. In
//! memory, each topic has a ring of events.
//!
//! The floor of a ring is an offset: the ring has all events of its topic from this offset on. A
//! reader that needs events below the floor reads them from the store. The store also has a floor
//! for each topic, below which the store has evicted events.

use std::collections::HashSet;

use smallvec::SmallVec;

use crate::core::Core;
use crate::history::{EventTopics, Evicted, Pushed};
use crate::patterns::Matching;
use crate::sequence::{PayloadDecoder, PublisherId};
use crate::store::{StoreError, StoreReader, StoredEvent};
use crate::topics::Lost;
use crate::types::{Address, Batch, EvictionNumber, Floor, Offset, Payload, Timestamp};

/// The maximum number of events and bytes that are read into the rings. This is enough for clients
/// that reconnect after a deploy, and the log reads this many events in well under a second.
const RESTORED: Batch = Batch { events_max: 100_000, bytes_max: 64 << 20 };

/// Fills the rings with the newest events, and restores the marks of finished topics. Older events
/// stay only in the store.
///
/// If an event cannot be decoded, the rings begin after this event. A reader that needs this event
/// reads from the store, and gets a gap for the event.
pub(crate) fn restore<P: Payload>(
    core: &Core<P>,
    reader: &dyn StoreReader,
    decoder: &PayloadDecoder<P>,
    next_offset: Offset,
) -> Result<(), StoreError> {
    let mut addresses = HashSet::from([Address::Everyone]);
    let mut decoded = Vec::new();
    for mut event in reader.newest(RESTORED)?.into_iter().rev() {
        addresses.extend(event.to.iter().cloned());
        if addresses.len() > core.history.options.limits.topics_max {
            break;
        }
        let (id, payload) = (event.id.clone(), event.payload.take());
        let Some(payload) = decoder.decode(&core.ids, event.offset, event.at, id, payload) else {
            break;
        };
        decoded.push((event, payload));
    }
    let oldest = decoded.last().map_or(next_offset, |(event, _)| event.offset);
    core.history.raise_floor(&core.history.topics.everyone, lost_below(oldest));
    core.history.raise_unknown(lost_below(oldest));
    // `floors_above` gives only the floors of topics that have an entry in the store. The topic of
    // the events for everyone may have no entry, so its floor is requested here.
    let everyone = reader.floor_of(&Address::Everyone)?;
    core.history.raise_floor(&core.history.topics.everyone, lost_below(everyone.offset));
    // Some topics have lost events that are newer than the oldest event in memory. The floors of
    // these topics are above that event, and only the store knows them.
    reader.floors_above(oldest, &mut |address, floor| {
        if addresses.contains(&address) {
            core.history.raise_floor(&core.history.topic(&address), lost_below(floor.offset));
        }
    })?;
    let mut evicted = Evicted::new();
    for (event, payload) in decoded.into_iter().rev() {
        push(core, event, payload, &mut evicted);
    }
    let held = core.history.patterns.hold();
    core.history.trim_all(&held, std::iter::empty(), next_offset.get(), &mut evicted);
    drop(held);
    core.settle(Some(evicted));
    // A topic that has no ring now may have lost events that are newer than the oldest event in
    // memory. So the floor of all topics without a ring is raised to the store's highest floor.
    // Their readers then read from the store, which reports lost events. With a lower floor, the
    // readers would skip the lost events without a gap.
    core.history.raise_unknown(lost_below(reader.highest_floor()?.max(oldest)));
    // After the restart, finished topics must still refuse events.
    for (address, mark) in reader.finished_topics(core.history.options.limits.topics_max)? {
        core.history.restore_finish(&core.history.topic(&address), mark);
    }
    Ok(())
}

/// The loss of all events below an offset. These events are not in memory, but the store may still
/// have them. A log numbers its evictions in the order in which they happen. The loss has the
/// lowest number, as if the events had been evicted before any reader was opened.
fn lost_below(offset: Offset) -> Lost {
    let floor = Floor { offset, at: Timestamp::default() };
    if offset <= Offset::FIRST { Lost::NOTHING } else { Lost::below(floor, EvictionNumber::NONE) }
}

fn push<P: Payload>(core: &Core<P>, event: StoredEvent, payload: P, evicted: &mut Evicted<P>) {
    let StoredEvent { offset, at, to, id, fingerprint, .. } = event;
    let topics: EventTopics<P> = to.iter().map(|address| core.history.topic(address)).collect();
    if topics.is_empty() {
        return;
    }
    // A reservation keeps a topic in memory until its event is pushed. It fails only if the topic
    // was already removed from memory. No topic is removed before the log is open, so every
    // reservation succeeds.
    let reserved = topics.iter().all(|topic| core.history.reserve(topic));
    debug_assert!(reserved, "a topic was removed from memory before the log was open");
    if let Some(id) = id {
        let answer = core.ids.appended(offset, 0, false);
        let known = PublisherId { fingerprint, answer, rings: topics.len() };
        core.sequencer.publisher_ids.insert(id, known);
    }
    let patterns: SmallVec<[Matching<P>; 1]> = topics.iter().map(|_| Matching::new()).collect();
    let pushed = Pushed {
        offset: offset.get(),
        at,
        payload: Some(payload),
        topics: &topics,
        patterns: &patterns,
        // `restore` later sets the marks of all finished topics. It gets them from a list in the
        // store. The list also has the marks of topics whose last event is not in memory.
        finish: false,
    };
    core.history.push(pushed, evicted);
}
