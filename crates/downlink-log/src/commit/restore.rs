//! How a log begins with a store: it fills its rings with the newest stored events.
//!
//! The rings hold only the newest events of the store. A ring has every event of its topic from the
//! ring's floor on. The store knows the exact floors of older events.

use std::collections::HashSet;

use smallvec::SmallVec;

use crate::core::Core;
use crate::history::{EventTopics, Evicted, Pushed};
use crate::patterns::Matching;
use crate::sequence::{PayloadDecoder, PublisherId};
use crate::store::{StoreError, StoreReader, StoredEvent};
use crate::topics::Lost;
use crate::types::{Address, Batch, EvictionNumber, Floor, Offset, Payload, Timestamp};

/// The maximum number of events that are read into the rings. They are enough for clients that
/// reconnect after a deploy, and the log reads them in well under a second.
const RESTORED: Batch = Batch { events_max: 100_000, bytes_max: 64 << 20 };

/// Fills the rings with the newest events, and restores the marks of finished topics. Events below
/// the oldest event in memory stay only in the store.
///
/// If an event cannot be decoded, the rings begin after it. A reader that needs this event reads
/// from the store.
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
    // Only everyone's topic may have no row in the store. Its floor is then the floor of the
    // forgotten rows.
    let everyone = reader.floor_of(&Address::Everyone)?;
    core.history.raise_floor(&core.history.topics.everyone, lost_below(everyone.offset));
    // Retention may have evicted an event of one topic that is newer than events that other topics
    // keep.
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
    // A name without a ring may have lost events that are newer than the oldest event in memory.
    // This floor sends its readers to the store, which knows the losses. Without it, the readers
    // would skip the lost events without a gap.
    core.history.raise_unknown(lost_below(reader.highest_floor()?.max(oldest)));
    // Publishing to a finished topic is refused as it was before.
    for (address, mark) in reader.finished_topics(core.history.options.limits.topics_max)? {
        core.history.restore_finish(&core.history.topic(&address), mark);
    }
    Ok(())
}

/// The loss of everything below an offset. Memory has none of these events; the store may still
/// have them. They count as lost before any reader came.
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
    // No topic is collected before the log has begun, so every reservation succeeds.
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
