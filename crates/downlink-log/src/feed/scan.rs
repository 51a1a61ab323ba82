//! Lists the losses of the topics of a log in memory, and which of these topics are finished. A
//! loss is a floor: the offset after the last event that a topic has evicted. A finish mark says
//! that a topic gets no more events.

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

/// Finds the addresses that have lost events at or above `from`, and the finish marks from `from`
/// on and below `until`. The result covers all events that were evicted before the call.
pub(crate) fn scan<P: Payload>(history: &History<P>, from: u64, until: u64) -> Scan {
    // The log has a table of the losses of topics that were removed from memory. All addresses that
    // have no topic and no entry in this table share one floor. The log that reads the feed applies
    // the shared floor to every address that is not listed. So if the shared floor is above `from`,
    // the scan must list every address that has its own floor, even a lower one.
    let is_shared = |floor: Floor| floor.offset.get() > from;
    let lists_all = is_shared(history.topics.lost_of_others().floor);
    let mut found = scan_once(history, from, until, lists_all);
    // An address may have lost its entry before the scan came to it. The shared floor has then
    // risen to cover the losses of this address. So the shared floor is read after the scan.
    let mut others = history.topics.lost_of_others().floor;
    if is_shared(others) && !lists_all {
        found = scan_once(history, from, until, true);
        others = history.topics.lost_of_others().floor;
    }
    found.others = if is_shared(others) { others } else { Floor::NONE };
    found
}

fn scan_once<P: Payload>(history: &History<P>, from: u64, until: u64, lists_all: bool) -> Scan {
    let mut found = Scan { floors: Vec::new(), others: Floor::NONE, finished: Vec::new() };
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
