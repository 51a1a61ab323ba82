//! The floors of a feed: up to which offset each address has lost events.

use crate::store::{FeedChunk, Losses};
use crate::types::Floor;

/// Floors above the tail, which is the next offset that readers see. A floor that is above the end
/// of a chunk is applied only up to this end, because no floor may be above the tail. The rest is
/// applied with the next chunks.
#[derive(Debug, Default)]
pub(crate) struct FloorsAhead(Losses);

impl FloorsAhead {
    /// The losses to apply with a chunk. All floors up to `known_until` are known already, so only
    /// a floor above it is new.
    pub(crate) fn losses(&mut self, chunk: &FeedChunk, known_until: u64) -> Losses {
        let mut losses = std::mem::take(&mut self.0);
        // If a chunk has any floors, it has every floor that is above its beginning. So it repeats
        // the floors that are ahead.
        if !chunk.floors.is_empty() {
            losses.floors.clear();
        }
        let is_new = |floor: &Floor| floor.offset.get() > known_until && *floor != Floor::NONE;
        let new = chunk.floors.iter().filter(|(_, floor)| is_new(floor));
        losses.floors.extend(new.cloned());
        if is_new(&chunk.others) {
            let known = chunk.floors.iter().map(|(address, _)| address.clone()).collect();
            losses.known = match losses.others {
                None => known,
                // A chunk has one floor for all other addresses, which are those that it does not
                // list. The floors for other addresses of this chunk and of earlier chunks become
                // one floor. An address is exempt from this floor only if it is exempt from both of
                // them.
                Some(_) => losses.known.intersection(&known).cloned().collect(),
            };
            losses.others = Some(losses.others.unwrap_or(Floor::NONE).max(chunk.others));
        }
        let next = chunk.next;
        let is_ahead = |floor: &Floor| floor.offset > next;
        self.0.floors =
            losses.floors.iter().filter(|(_, floor)| is_ahead(floor)).cloned().collect();
        self.0.others = losses.others.filter(is_ahead);
        if self.0.others.is_some() {
            self.0.known.clone_from(&losses.known);
        }
        let others = losses.others.as_mut();
        let floors = losses.floors.iter_mut().map(|(_, floor)| floor).chain(others);
        floors.for_each(|floor| floor.offset = floor.offset.min(next));
        losses
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;
    use crate::types::{Address, ClockState, Offset, Timestamp, address::Topic};

    fn chunk(floors: &[(&str, u64)], next: u64) -> FeedChunk {
        let address = |name: &str| Address::Topic(Topic::new(name).expect("a valid name"));
        let floor = |offset| Floor { offset: Offset::new(offset), at: Timestamp::default() };
        FeedChunk {
            floors: floors.iter().map(|(name, at)| (address(name), floor(*at))).collect(),
            others: Floor::NONE,
            events: Vec::new(),
            next: Offset::new(next),
            clock: ClockState::default(),
            marks: crate::store::Marks::default(),
            node: None,
        }
    }

    fn offsets(losses: &Losses) -> Vec<u64> {
        losses.floors.iter().map(|(_, floor)| floor.offset.get()).collect()
    }

    /// A feed that is far behind sends the floors of all topics with each chunk.
    #[test]
    fn floors_that_a_chunk_repeats_are_kept_once() {
        let mut ahead = FloorsAhead::default();
        for next in 1..100 {
            let losses = ahead.losses(&chunk(&[("a", 200), ("b", 300)], next), next - 1);
            assert_eq!((offsets(&losses), offsets(&ahead.0)), (vec![next; 2], vec![200, 300]));
        }
        // A chunk from the backlog, which has the newest events, has no floors. The floors that
        // were kept from earlier chunks are applied with it.
        let losses = ahead.losses(&chunk(&[], 250), 99);
        assert_eq!((offsets(&losses), offsets(&ahead.0)), (vec![200, 250], vec![300]));
        let losses = ahead.losses(&chunk(&[], 300), 250);
        assert_eq!((offsets(&losses), offsets(&ahead.0)), (vec![300], vec![]));
    }
}
