//! Lists what the topics of a log in memory have lost, and which of them are finished.

use crate::history::History;
use crate::store::Finished;
use crate::topics::TopicState;
use crate::types::{Address, Floor, Payload};

/// The maximum number of addresses to list while the lock of the names is held. Listing them takes
/// some 20 microseconds.
const LISTED: usize = 256;

/// The losses and finish marks that a feed must pass on.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) floors: Vec<(Address, Floor)>,
    pub(crate) others: Floor,
    pub(crate) finished: Vec<(Address, Finished)>,
}

/// Finds the addresses that have lost events at or above `from`, and the finish marks from `from` on
/// and below `until`. Events that were evicted before the call are covered.
pub(crate) fn scan<P: Payload>(history: &History<P>, from: u64, until: u64) -> Scan {
    loop {
        // All addresses that have no topic and no entry of their own share one floor. If it is
        // above `from`, the scan must list every address that has its own floor, even a lower one.
        let others = history.topics.lost_of_others().floor;
        let found = scan_once(history, from, until, others);
        // The scan may have missed an address that lost its entry during the scan. The shared floor
        // has then risen to cover it.
        let after = history.topics.lost_of_others().floor;
        if after == others || after.offset.get() <= from {
            return found;
        }
    }
}

fn scan_once<P: Payload>(history: &History<P>, from: u64, until: u64, others: Floor) -> Scan {
    let lists_all = others.offset.get() > from;
    let others = if lists_all { others } else { Floor::NONE };
    let mut found = Scan { floors: Vec::new(), others, finished: Vec::new() };
    let mut states = vec![TopicState::of(&history.topics.everyone)];
    while !states.is_empty() {
        let mut last = Address::Everyone;
        for TopicState { address, lost, finish } in states {
            let finish = finish.filter(|mark| (from..until).contains(&mark.offset.get()));
            found.finished.extend(finish.map(|mark| (address.clone(), mark)));
            if lists_all || lost.floor.offset.get() > from {
                found.floors.push((address.clone(), lost.floor));
            }
            last = address;
        }
        states = history.topics.list_states(&last, LISTED);
    }
    found
}
