//! The ledger records the published events and their recipients. At the end of a test, it checks
//! the events and gaps that a reader has received.
//!
//! A place is the number of a recipient: a topic, a client's inbox, or everyone. The ledger
//! compares the places of each event with the places of the reader. Each reader knows the places
//! that its patterns match. So the ledger need not match patterns, and uses no code of the hub.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};
use std::sync::Mutex;

/// The number of a recipient of events.
pub(crate) type Place = usize;

/// The place for everyone. Every reader gets the events for this place.
pub(crate) const EVERYONE: Place = usize::MAX;

/// The events that were published in one epoch, by offset.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<BTreeMap<u64, Said>>);

#[derive(Debug)]
struct Said {
    /// The number in the event's data. No other event of the test has the same number.
    number: u64,
    to: BTreeSet<Place>,
}

/// Everything that one reader received in one epoch.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The offset in the reader's first id. The reader must get all later events that are for it.
    pub(crate) since: u64,
    /// The offset and number of each event, in the order of arrival.
    pub(crate) events: Vec<(u64, u64)>,
    pub(crate) holes: Vec<Hole>,
}

/// A gap that a reader received. The offsets of the missing events are in `after + 1..=until`.
#[derive(Debug)]
pub(crate) struct Hole {
    pub(crate) after: u64,
    pub(crate) until: u64,
    /// The number of events that arrived before the gap.
    pub(crate) events_before: usize,
}

impl Seen {
    /// The offset of the last event that the reader received, or 0.
    pub(crate) fn last(&self) -> u64 {
        self.events.last().map_or(0, |(offset, _)| *offset)
    }
}

impl Ledger {
    pub(crate) fn note(&self, offset: u64, number: u64, to: BTreeSet<Place>) {
        let before = self.0.lock().unwrap().insert(offset, Said { number, to });
        assert!(before.is_none(), "offset {offset} was assigned twice");
    }

    /// Checks the events and gaps that a reader of these places has received. The last offset
    /// to check is `until`. Up to this offset, the reader must have received each event for its
    /// places, or a gap that covers the event.
    pub(crate) fn check(&self, who: &str, places: &BTreeSet<Place>, seen: &Seen, until: u64) {
        let said = self.0.lock().unwrap();
        let is_due = |said: &Said| said.to.contains(&EVERYONE) || !said.to.is_disjoint(places);
        for pair in seen.events.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{who}: {} came after {}", pair[1].0, pair[0].0);
        }
        for (offset, number) in &seen.events {
            let published = said.get(offset).expect("a received event was published");
            assert_eq!(*number, published.number, "{who}: {offset} has the data of another event");
            assert!(is_due(published), "{who}: {offset} was for {:?}", published.to);
            assert!(
                *offset > seen.since,
                "{who}: {offset} is not after its first id, {}",
                seen.since
            );
        }
        for hole in &seen.holes {
            let had = seen.events[..hole.events_before].last().map_or(seen.since, |last| last.0);
            assert!(
                hole.until > had,
                "{who}: {hole:?} ends before the events received; the last one has offset {had}"
            );
            let missing = said.get(&hole.until).expect("a gap ends at a published event");
            assert!(is_due(missing), "{who}: {hole:?} ends at an event for {:?}", missing.to);
        }
        let mut came = seen.events.iter().map(|(offset, _)| *offset).peekable();
        let due = (Excluded(seen.since), Included(until.max(seen.since)));
        for (offset, _) in said.range(due).filter(|(_, said)| is_due(said)) {
            if came.next_if_eq(offset).is_none() {
                let covers = |hole: &Hole| hole.after < *offset && *offset <= hole.until;
                assert!(
                    seen.holes.iter().any(covers),
                    "{who}: {offset} was lost without a gap; the gaps are {:?}",
                    seen.holes
                );
            }
        }
        assert_eq!(
            came.next(),
            None,
            "{who} received an event that was not for it, or an event after {until}"
        );
    }
}

/// Tests of the method `check`, which must find each kind of error.
mod tests {
    use super::{BTreeSet, EVERYONE, Hole, Ledger, Seen};

    /// The received events, the gaps, and the expected error message.
    type Wrong<'a> = (&'a [(u64, u64)], Vec<Hole>, &'a str);

    /// Records four events in a ledger. The third event is not for the reader. Then checks the
    /// events and gaps that the reader received. Returns the error message, if the check fails.
    fn complaint(events: &[(u64, u64)], holes: Vec<Hole>) -> Option<String> {
        let ledger = Ledger::default();
        for (offset, to) in [(1, 1), (2, 1), (3, 2), (5, EVERYONE)] {
            ledger.note(offset, offset * 10, BTreeSet::from([to]));
        }
        let seen = Seen { since: 0, events: events.to_vec(), holes };
        let check = || ledger.check("reader", &BTreeSet::from([1]), &seen, 5);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).err()?;
        panic.downcast::<String>().ok().map(|text| *text)
    }

    fn hole(after: u64, until: u64, events_before: usize) -> Vec<Hole> {
        vec![Hole { after, until, events_before }]
    }

    #[test]
    fn the_check_accepts_all_events_or_a_gap_that_covers_the_missing_events() {
        assert_eq!(complaint(&[(1, 10), (2, 20), (5, 50)], Vec::new()), None);
        assert_eq!(complaint(&[(5, 50)], hole(0, 2, 0)), None);
        assert_eq!(complaint(&[(1, 10), (5, 50)], hole(1, 2, 1)), None);
    }

    #[test]
    fn the_check_finds_each_kind_of_error() {
        let wrongs: [Wrong<'_>; 8] = [
            (&[(1, 10), (5, 50)], Vec::new(), "2 was lost without a gap"),
            (&[(1, 10), (2, 20)], Vec::new(), "5 was lost without a gap"),
            (&[(5, 50)], hole(1, 2, 0), "1 was lost without a gap"),
            (&[(1, 10), (1, 10), (2, 20), (5, 50)], Vec::new(), "1 came after 1"),
            (&[(2, 20), (1, 10), (5, 50)], Vec::new(), "1 came after 2"),
            (&[(1, 10), (2, 20), (3, 30), (5, 50)], Vec::new(), "3 was for {2}"),
            (&[(1, 10), (2, 10), (5, 50)], Vec::new(), "2 has the data of another event"),
            (&[(1, 10), (2, 20), (5, 50)], hole(2, 3, 2), "ends at an event for {2}"),
        ];
        for (events, holes, wrong) in wrongs {
            let found = complaint(events, holes).expect(wrong);
            assert!(found.contains(wrong), "{found}");
        }
        let reported_late = complaint(&[(1, 10), (2, 20), (5, 50)], hole(0, 2, 2)).unwrap();
        assert!(reported_late.contains("ends before the events received"), "{reported_late}");
    }
}
