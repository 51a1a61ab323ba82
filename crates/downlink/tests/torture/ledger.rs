//! The ledger of published events and their recipients, and the check of a reader against it.
//!
//! A place is a possible recipient as a number: a topic, a client's inbox, or everyone. The ledger
//! does not know patterns, or how the hub finds readers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};
use std::sync::Mutex;

/// A possible recipient of events.
pub(crate) type Place = usize;

/// Everyone. This place is part of every selection.
pub(crate) const EVERYONE: Place = usize::MAX;

/// The events of one life of a hub.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<BTreeMap<u64, Said>>);

#[derive(Debug)]
struct Said {
    /// The number in the event's data. It is unique among all events of a test.
    number: u64,
    to: BTreeSet<Place>,
}

/// Everything that one reader received in one life of a hub.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The reader's first id. All later events are due.
    pub(crate) since: u64,
    /// The offset and number of each event, in the order of arrival.
    pub(crate) events: Vec<(u64, u64)>,
    pub(crate) holes: Vec<Hole>,
}

/// A gap that a reader received. The missing events lie in `after + 1..=until`.
#[derive(Debug)]
pub(crate) struct Hole {
    pub(crate) after: u64,
    pub(crate) until: u64,
    /// The number of events that arrived before the gap.
    pub(crate) events_before: usize,
}

impl Seen {
    /// The last offset received. 0 before the first event.
    pub(crate) fn last(&self) -> u64 {
        self.events.last().map_or(0, |(offset, _)| *offset)
    }
}

impl Ledger {
    pub(crate) fn note(&self, offset: u64, number: u64, to: BTreeSet<Place>) {
        let before = self.0.lock().unwrap().insert(offset, Said { number, to });
        assert!(before.is_none(), "offset {offset} was assigned twice");
    }

    /// Asserts that a reader of `places` received everything due up to an offset.
    pub(crate) fn check(&self, who: &str, places: &BTreeSet<Place>, seen: &Seen, until: u64) {
        let said = self.0.lock().unwrap();
        let is_due = |said: &Said| said.to.contains(&EVERYONE) || !said.to.is_disjoint(places);
        for pair in seen.events.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{who}: {} came after {}", pair[1].0, pair[0].0);
        }
        for (offset, number) in &seen.events {
            let published = said.get(offset).expect("a published event");
            assert_eq!(*number, published.number, "{who}: the data of {offset} is another's");
            assert!(is_due(published), "{who}: {offset} was for {:?}", published.to);
            assert!(*offset > seen.since, "{who}: {offset} is before {}", seen.since);
        }
        for hole in &seen.holes {
            let had = seen.events[..hole.events_before].last().map_or(seen.since, |last| last.0);
            assert!(hole.until > had, "{who}: {hole:?} names what came already, up to {had}");
            let missing = said.get(&hole.until).expect("a hole ends at a published event");
            assert!(is_due(missing), "{who}: {hole:?} names what was for {:?}", missing.to);
        }
        let mut came = seen.events.iter().map(|(offset, _)| *offset).peekable();
        let due = (Excluded(seen.since), Included(until.max(seen.since)));
        for (offset, _) in said.range(due).filter(|(_, said)| is_due(said)) {
            if came.next_if_eq(offset).is_none() {
                let covers = |hole: &Hole| hole.after < *offset && *offset <= hole.until;
                assert!(
                    seen.holes.iter().any(covers),
                    "{who}: {offset} was lost without a word; told of {:?}",
                    seen.holes
                );
            }
        }
        assert_eq!(came.next(), None, "{who}: came, and was not due by {until}");
    }
}

/// Tests of the check itself: it must find each kind of error.
mod tests {
    use super::{BTreeSet, EVERYONE, Hole, Ledger, Seen};

    /// The received events, the reported gaps, and the expected error message.
    type Wrong<'a> = (&'a [(u64, u64)], Vec<Hole>, &'a str);

    /// Checks a reader of place 1 against four events. The third event is for another place.
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
    fn all_or_a_hole_is_right() {
        assert_eq!(complaint(&[(1, 10), (2, 20), (5, 50)], Vec::new()), None);
        assert_eq!(complaint(&[(5, 50)], hole(0, 2, 0)), None);
        assert_eq!(complaint(&[(1, 10), (5, 50)], hole(1, 2, 1)), None);
    }

    #[test]
    fn each_kind_of_wrong_is_found() {
        let wrongs: [Wrong<'_>; 8] = [
            (&[(1, 10), (5, 50)], Vec::new(), "2 was lost without a word"),
            (&[(1, 10), (2, 20)], Vec::new(), "5 was lost without a word"),
            (&[(5, 50)], hole(1, 2, 0), "1 was lost without a word"),
            (&[(1, 10), (1, 10), (2, 20), (5, 50)], Vec::new(), "1 came after 1"),
            (&[(2, 20), (1, 10), (5, 50)], Vec::new(), "1 came after 2"),
            (&[(1, 10), (2, 20), (3, 30), (5, 50)], Vec::new(), "3 was for {2}"),
            (&[(1, 10), (2, 10), (5, 50)], Vec::new(), "the data of 2 is another's"),
            (&[(1, 10), (2, 20), (5, 50)], hole(2, 3, 2), "names what was for {2}"),
        ];
        for (events, holes, wrong) in wrongs {
            let found = complaint(events, holes).expect(wrong);
            assert!(found.contains(wrong), "{found}");
        }
        let told_late = complaint(&[(1, 10), (2, 20), (5, 50)], hole(0, 2, 2)).unwrap();
        assert!(told_late.contains("names what came already"), "{told_late}");
    }
}
