//! The ledger of a run lists all events that are known to exist, because the answer to a publisher
//! or a reader has shown them. At the end, the ledger checks the answers to each publisher and the
//! events of each reader.
//!
//! The data of an event is its number and its topics. So the ledger also knows the topics of an
//! event if its publisher got no answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound::{Excluded, Included},
};

/// The data of the last event of a run, which goes to all topics.
pub(crate) const END: &str = "the-end";

/// The minimum number of events that a server keeps of a small topic.
pub(crate) const SMALL_MIN: usize = 20;

/// Whether a topic is small: its events are soon evicted. Other topics keep all events of a run.
pub(crate) fn is_small(topic: &str) -> bool {
    topic.starts_with("small/")
}

/// Whether the servers keep their history over a restart. If they do, readers must not notice where
/// one process ends and the next one begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Restarts {
    KeepHistory,
    LoseHistory,
}

impl Restarts {
    /// The name of the history that an id belongs to, and the offset in the id.
    pub(crate) fn split(self, id: &str) -> (String, u64) {
        let (epoch, offset) = id.split_once('-').expect("an id has a dash");
        let history = if self == Self::KeepHistory { "" } else { epoch };
        (history.to_owned(), offset.parse().expect("an id ends with an offset"))
    }
}

/// The answer to a publish.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// The event was published under this id.
    Published(String),
    /// Nothing was published.
    Refused,
    /// There was no answer, or the answer says that the outcome is unknown.
    Unknown,
}

/// Everything that one reader has got of one history.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) history: String,
    /// The offset after which the reader must get all events of its topics.
    pub(crate) since: u64,
    /// Whether the reader began with a gap that says that the history is new. It then gets the
    /// events that the server has kept, and each topic may have lost its first ones.
    pub(crate) is_new: bool,
    /// The offset in the last id that the reader has got.
    pub(crate) position: u64,
    /// The events in the order of arrival.
    pub(crate) events: Vec<Got>,
    pub(crate) holes: Vec<Hole>,
}

/// An event that a reader has got.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) offset: u64,
    pub(crate) data: String,
    /// The number of the connection.
    pub(crate) over: usize,
}

/// A gap that a reader has got. The missing events have the offsets `after + 1..=until`.
#[derive(Debug)]
pub(crate) struct Hole {
    pub(crate) after: u64,
    pub(crate) until: u64,
    /// The number of events that arrived before the gap.
    pub(crate) events_before: usize,
    /// The number of the connection.
    pub(crate) over: usize,
}

/// The events of a run.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// The data of each event, by history and offset.
    events: BTreeMap<String, BTreeMap<u64, String>>,
    /// The offset of each event, by history and data.
    offsets: HashMap<(String, String), u64>,
}

impl Ledger {
    /// Notes an event. Returns an error if the same offset has another event, or if the same event
    /// has another offset.
    pub(crate) fn note(&mut self, history: &str, offset: u64, data: &str) -> Result<(), String> {
        let events = self.events.entry(history.to_owned()).or_default();
        let known = events.entry(offset).or_insert_with(|| data.to_owned());
        if known != data {
            return Err(format!("two events have the id {history}-{offset}: {known} and {data}"));
        }
        let of_event = (history.to_owned(), data.to_owned());
        let known = *self.offsets.entry(of_event).or_insert(offset);
        if known != offset {
            return Err(format!("{data} is in the history {history:?} twice: {known}, {offset}"));
        }
        Ok(())
    }

    /// Checks that a refused event is in no history.
    pub(crate) fn check_refused(&self, data: &str) -> Result<(), String> {
        let is_in =
            |history: &&String| self.offsets.contains_key(&((*history).clone(), data.to_owned()));
        match self.events.keys().find(is_in) {
            Some(history) => Err(format!("{data} was refused, and is in the history {history:?}")),
            None => Ok(()),
        }
    }

    /// Checks what a reader of these topics has got of one history. `until` is the last offset that
    /// the reader must know about. Returns an error if an event is missing, came twice or does not
    /// belong there, or if a gap is not exact.
    pub(crate) fn check(
        &self,
        topics: &BTreeSet<String>,
        life: &Life,
        until: u64,
    ) -> Result<(), String> {
        let none = BTreeMap::new();
        let events = self.events.get(&life.history).unwrap_or(&none);
        let is_due = |data: &str| topics_of(data).any(|topic| topics.contains(topic));
        let mut last = life.since;
        for Got { offset, data, .. } in &life.events {
            if *offset <= last {
                return Err(format!("{offset} came after {last}"));
            }
            if !is_due(data) {
                return Err(format!("{offset} is not for the reader: {data}"));
            }
            last = *offset;
        }
        let came: HashMap<u64, usize> =
            life.events.iter().map(|event| (event.offset, event.over)).collect();
        for hole in &life.holes {
            let before = life.events[..hole.events_before].last();
            let had = before.map_or(life.since, |last| last.offset);
            if hole.until <= had || hole.after >= hole.until {
                return Err(format!("{hole:?} is not after the event {had}"));
            }
            // The gap ends exactly at the last missing event.
            let ends_at = events.get(&hole.until);
            if !ends_at.is_some_and(|data| is_due(data)) {
                return Err(format!("{hole:?} ends at {ends_at:?}, which is not for the reader"));
            }
            // The reader may get this last event only over another connection, from a server that
            // has kept the event.
            if came.get(&hole.until) == Some(&hole.over) {
                return Err(format!("{hole:?} ends at an event that came"));
            }
        }
        let due = events.range((Excluded(life.since), Included(until.max(life.since))));
        for (offset, data) in due.filter(|(_, data)| is_due(data)) {
            let covers = |hole: &Hole| hole.after < *offset && *offset <= hole.until;
            let is_known = came.contains_key(offset) || life.holes.iter().any(covers);
            if !is_known && !is_evicted_before(events, life, *offset, data) {
                let after = life.events.partition_point(|event| event.offset < *offset);
                let around =
                    &life.events[after.saturating_sub(2)..life.events.len().min(after + 3)];
                let (since, holes) = (life.since, &life.holes);
                return Err(format!(
                    "{offset} was lost in silence: {data}; the reader began after {since}, and got \
                     {around:?} and {holes:?}"
                ));
            }
        }
        Ok(())
    }
}

/// Whether a server may have evicted an event before the reader began with a new history. In this
/// case, the first event of the topic that the reader got comes after the evicted event. From this
/// first event on, the topic has at least [`SMALL_MIN`] events.
fn is_evicted_before(events: &BTreeMap<u64, String>, life: &Life, offset: u64, data: &str) -> bool {
    let Some(topic) = topics_of(data).next().filter(|topic| is_small(topic)) else { return false };
    let is_of_topic = |data: &str| topics_of(data).any(|of| of == topic);
    let first = life.events.iter().find(|event| is_of_topic(&event.data));
    let first = first.map_or(offset + 1, |event| event.offset);
    let kept = events.range(first..).filter(|(_, data)| is_of_topic(data)).count();
    life.is_new && offset < first && kept >= SMALL_MIN
}

/// The data of an event with this number.
pub(crate) fn data<'a>(number: &str, topics: impl IntoIterator<Item = &'a str>) -> String {
    let topics: Vec<&str> = topics.into_iter().collect();
    format!("{number} {}", topics.join(","))
}

fn topics_of(data: &str) -> impl Iterator<Item = &str> {
    let topics = data.split_once(' ').map_or("", |(_, topics)| topics);
    topics.split(',')
}

/// Tests of the check, which must find each kind of error.
mod tests {
    use super::{BTreeSet, Got, Hole, Ledger, Life};

    /// Notes four events, of which the third is not for the reader, and checks a reader.
    fn checked(events: &[u64], holes: Vec<Hole>) -> Result<(), String> {
        let mut ledger = Ledger::default();
        let data = |offset: u64| format!("{offset} {}", if offset == 3 { "b" } else { "a" });
        for offset in [1, 2, 3, 5] {
            ledger.note("", offset, &data(offset))?;
        }
        let got = |offset: &u64| Got { offset: *offset, data: data(*offset), over: 0 };
        let events = events.iter().map(got).collect();
        let (history, is_new) = (String::new(), false);
        let life = Life { history, since: 0, is_new, position: 5, events, holes };
        ledger.check(&BTreeSet::from(["a".to_owned()]), &life, 5)
    }

    fn hole(after: u64, until: u64, events_before: usize) -> Vec<Hole> {
        vec![Hole { after, until, events_before, over: 0 }]
    }

    #[test]
    fn a_reader_with_all_events_or_an_exact_gap_passes_the_check() {
        assert_eq!(checked(&[1, 2, 5], Vec::new()), Ok(()));
        assert_eq!(checked(&[5], hole(0, 2, 0)), Ok(()));
        assert_eq!(checked(&[1, 5], hole(1, 2, 1)), Ok(()));
    }

    #[test]
    fn each_kind_of_error_is_found() {
        let elsewhere = vec![Hole { after: 0, until: 2, events_before: 0, over: 1 }];
        assert_eq!(checked(&[1, 2, 5], elsewhere), Ok(()));
        let wrongs = [
            (&[1, 5][..], Vec::new(), "2 was lost"),
            (&[1, 2], Vec::new(), "5 was lost"),
            (&[5], hole(1, 2, 0), "1 was lost"),
            (&[1, 1, 2, 5], Vec::new(), "1 came after 1"),
            (&[2, 1, 5], Vec::new(), "1 came after 2"),
            (&[1, 2, 3, 5], Vec::new(), "3 is not for the reader"),
            (&[1, 2, 5], hole(2, 3, 2), "which is not for the reader"),
            (&[1, 2, 5], hole(0, 2, 0), "ends at an event that came"),
            (&[1, 2, 5], hole(0, 2, 2), "is not after the event 2"),
        ];
        for (events, holes, wrong) in wrongs {
            let found = checked(events, holes).expect_err(wrong);
            assert!(found.contains(wrong), "{found}");
        }
    }

    #[test]
    fn an_event_with_two_offsets_and_an_offset_with_two_events_are_found() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.note("", 1, "1 a"), Ok(()));
        assert_eq!(ledger.note("", 1, "1 a"), Ok(()));
        assert!(ledger.note("other", 1, "2 a").is_ok());
        assert!(ledger.note("", 2, "1 a").is_err_and(|error| error.contains("twice")));
        assert!(ledger.note("", 1, "2 a").is_err_and(|error| error.contains("two events")));
    }
}
