//! How a log begins from a store: its rings are filled with the newest events.
//!
//! The rings hold the newest part of the store's events. From its floor on, a ring has everything.
//! The store knows the exact floors of older events.

use std::collections::HashSet;

use smallvec::SmallVec;

use crate::core::Core;
use crate::history::{EventTopics, Evicted, Pushed};
use crate::patterns::Matching;
use crate::sequence::{PayloadDecoder, PublisherId};
use crate::store::{StoreError, StoreReader, StoredEvent};
use crate::topics::Lost;
use crate::types::{Address, Batch, EvictionNumber, Floor, Offset, Payload, Timestamp};

/// The most events that the rings are filled with. They are enough for clients that reconnect after
/// a deploy, and the log reads them in well under a second.
const RESTORED: Batch = Batch { events_max: 100_000, bytes_max: 64 << 20 };

/// Fills the rings with the newest events, and takes the marks of finished topics. Everything below
/// the oldest event in memory is left to the store.
///
/// An event that cannot be decoded ends the rings before it: a reader meets it in the store.
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
    // Only this address may have no row. Its floor is then that of the forgotten rows.
    let everyone = reader.floor_of(&Address::Everyone)?;
    core.history.raise_floor(&core.history.topics.everyone, lost_below(everyone.offset));
    // Retention may have taken an event of one topic that is younger than what another one keeps.
    reader.floors_above(oldest, &mut |address, floor| {
        if addresses.contains(&address) {
            core.history.raise_floor(&core.history.topic(&address), lost_below(floor));
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
    // A name that has no ring may have lost events above the oldest in memory. This sends its
    // readers to the store, which knows the losses. Without it they would pass over them.
    core.history.raise_unknown(lost_below(reader.highest_floor()?.max(oldest)));
    // So that publishing to a finished topic is refused as before.
    for (address, mark) in reader.finished_topics(core.history.options.limits.topics_max)? {
        core.history.restore_finish(&core.history.topic(&address), mark);
    }
    Ok(())
}

/// The loss of everything below an offset in memory. The store may have the events. They were lost
/// before any reader came.
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
    // No topic is collected before the log has begun, so the reservations succeed.
    let reserved = topics.iter().all(|topic| core.history.reserve(topic));
    debug_assert!(reserved, "a topic was collected before the log began");
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
        // Finish marks come from the store's list, which also has the marks of older events.
        finish: false,
    };
    core.history.push(pushed, evicted);
}
