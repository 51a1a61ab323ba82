//! The books of a run: every publish and every delivery goes through here, and nothing else counts.
//!
//! Sans-IO: times are nanoseconds since the start of the run. Latency and rates are of the measured
//! period only; the counts of what came and what did not are of the whole run.

use std::{collections::HashSet, ops::Range};

use hdrhistogram::Histogram;

use super::{
    pace::Pace,
    record::{Record, Scanner},
    tally::{Arrival, Counts, Seen},
};

/// The longest latency told apart: an hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// The books.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) run: u32,
    pub(super) pace: Pace,
    pub(super) counts: Counts,
    /// Of the events that were due in the measured period.
    pub(super) latency_ns: Histogram<u64>,
    pub(super) published: u64,
    /// Events whose publishing failed: they are not due.
    pub(super) refused: HashSet<u64>,
    /// Deliveries, and reads that held any, within the measured period.
    pub(super) measured: Measured,
    topics: u64,
    /// Connections that are up, by topic.
    up: Vec<u64>,
    period: Range<u64>,
}

/// What happened within the measured period.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    pub(super) deliveries: u64,
    pub(super) reads: u64,
    pub(super) published: u64,
    /// Events whose publisher got a good answer.
    pub(super) acknowledged: u64,
}

/// The place of an event among those of its topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) topic: usize,
    pub(super) deliveries: u64,
    pub(super) number: u64,
}

impl Books {
    /// Empty books; nothing is measured until [`measure`](Self::measure).
    pub(super) fn new(run: u32, topics: usize, pace: Pace) -> anyhow::Result<Self> {
        Ok(Self {
            run,
            pace,
            counts: Counts::default(),
            latency_ns: Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)?,
            published: 0,
            refused: HashSet::new(),
            measured: Measured::default(),
            topics: topics as u64,
            up: vec![0; topics],
            period: 0..0,
        })
    }

    /// Sets the measured period.
    pub(super) fn measure(&mut self, period: Range<u64>) {
        self.period = period;
    }

    /// A connection is up: what is published from now on is due to it.
    pub(super) fn up(&mut self, topic: usize) -> Seen {
        self.up[topic] += 1;
        let topic = topic as u64;
        Seen::starting_at((self.published + self.topics - 1 - topic) / self.topics)
    }

    /// A connection is gone: what is published from now on is not due to it.
    pub(super) fn down(&mut self, topic: usize) {
        self.up[topic] -= 1;
    }

    /// Connections that are up.
    pub(super) fn connections_up(&self) -> u64 {
        self.up.iter().sum()
    }

    /// The next event is on its way.
    pub(super) fn publish(&mut self, due_ns: u64, now_ns: u64) -> (Place, Record) {
        let number = self.published;
        let topic = (number % self.topics) as usize;
        let deliveries = self.up[topic];
        self.published += 1;
        self.measured.published += u64::from(self.period.contains(&now_ns));
        self.counts.expected += deliveries;
        self.pace.published(deliveries, now_ns);
        (Place { topic, deliveries, number }, Record { run: self.run, number, due_ns })
    }

    /// So many events were acknowledged.
    pub(super) fn acknowledge(&mut self, events: usize, now_ns: u64) {
        if self.period.contains(&now_ns) {
            self.measured.acknowledged += events as u64;
        }
    }

    /// An event was refused, or its connection broke: nobody waits for it.
    pub(super) fn refuse(&mut self, place: Place) {
        self.counts.expected -= place.deliveries;
        self.pace.refused(place.number);
        self.refused.insert(place.number);
    }

    /// A connection on this topic got a record.
    pub(super) fn deliver(&mut self, seen: &mut Seen, topic: usize, record: Record, now_ns: u64) {
        let known = record.run == self.run && record.number < self.published;
        if !known || self.refused.contains(&record.number) {
            self.counts.foreign += 1;
            return;
        }
        if record.number % self.topics != topic as u64 {
            self.counts.wrong_topic += 1;
            return;
        }
        let arrival = seen.arrive(record.number / self.topics, &mut self.counts);
        if arrival == Arrival::Duplicate {
            return;
        }
        self.pace.delivered(record.number, now_ns);
        self.measured.deliveries += u64::from(self.period.contains(&now_ns));
        if self.period.contains(&record.due_ns) {
            self.latency_ns.saturating_record(now_ns.saturating_sub(record.due_ns).max(1));
        }
    }

    /// A read held at least one record.
    pub(super) fn read(&mut self, now_ns: u64) {
        self.measured.reads += u64::from(self.period.contains(&now_ns));
    }

    /// Whether all that is due has come.
    pub(super) fn is_complete(&self) -> bool {
        self.counts.lost() == 0
    }
}

/// What all streams share while their bytes are read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) books: Books,
    pub(super) scanner: Scanner,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(topics: usize) -> Books {
        Books::new(1, topics, Pace::window(16)).unwrap()
    }

    #[test]
    fn an_event_is_due_to_those_who_are_up_on_its_topic() {
        let mut books = books(2);
        for topic in [0, 0, 1] {
            books.up(topic);
        }
        assert_eq!(books.publish(0, 0).0.deliveries, 2);
        assert_eq!(books.publish(0, 0).0.deliveries, 1);
        books.down(0);
        assert_eq!(books.publish(0, 0).0.deliveries, 1);
        assert_eq!(books.counts.expected, 4);
    }

    #[test]
    fn who_comes_later_is_due_what_is_published_then() {
        let mut books = books(2);
        books.up(0);
        books.publish(0, 0);
        books.publish(0, 0);
        let mut late = books.up(0);
        let (_, record) = books.publish(0, 0);
        books.deliver(&mut late, 0, record, 1);
        assert_eq!((books.counts.expected, books.counts.received), (3, 1));
    }

    #[test]
    fn only_what_was_published_and_asked_for_counts() {
        let mut books = books(2);
        let mut seen = books.up(0);
        let (place, record) = books.publish(0, 0);
        books.deliver(&mut seen, 0, Record { run: 2, ..record }, 1);
        books.deliver(&mut seen, 0, Record { number: 1, ..record }, 1);
        assert_eq!(books.counts.foreign, 2);
        let (_, other) = books.publish(0, 0);
        books.deliver(&mut seen, 0, other, 1);
        assert_eq!(books.counts.wrong_topic, 1);
        assert_eq!(books.counts.lost(), 1);
        books.refuse(place);
        books.deliver(&mut seen, 0, record, 1);
        assert_eq!((books.counts.foreign, books.counts.lost()), (3, 0));
    }

    #[test]
    fn latency_is_of_what_was_due_in_the_period_from_the_time_it_was_due() {
        let mut books = books(1);
        let mut seen = books.up(0);
        books.measure(1_000..2_000);
        for (due, now) in [(999, 1_500), (1_000, 1_500), (1_999, 4_999), (2_000, 5_000)] {
            let (_, record) = books.publish(due, now);
            books.deliver(&mut seen, 0, record, now);
        }
        assert_eq!(books.latency_ns.len(), 2);
        assert!(books.latency_ns.equivalent(books.latency_ns.max(), 3_000));
        assert_eq!(books.measured.deliveries, 2);
    }
}
