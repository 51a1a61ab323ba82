//! The books of a run: every publish and every delivery is entered here.
//!
//! Sans-IO: times are nanoseconds since the start of the run. Latency and rates cover the measured
//! period only; the counts of deliveries cover the whole run.

use std::{collections::HashSet, ops::Range};

use hdrhistogram::Histogram;

use super::{
    pace::Pace,
    record::{EventRecord, Scanner},
    tally::{Counts, DeliveryOrder, Seen},
};

/// The longest latency that the histogram distinguishes: an hour.
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
    /// Whether a refused event may still arrive: a crash of the server cuts off the answer only.
    pub(super) refused_may_arrive: bool,
    /// Deliveries, and reads that held any, within the measured period.
    pub(super) measured: MeasuredCounts,
    topics: u64,
    /// Connections that are up, by topic.
    up: Vec<u64>,
    period: Range<u64>,
}

/// Counts within the measured period.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MeasuredCounts {
    pub(super) deliveries: u64,
    pub(super) reads: u64,
    pub(super) published: u64,
    /// Events that the server acknowledged.
    pub(super) acknowledged: u64,
}

/// The place of an event among those of its topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicPosition {
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
            refused_may_arrive: false,
            measured: MeasuredCounts::default(),
            topics: topics as u64,
            up: vec![0; topics],
            period: 0..0,
        })
    }

    /// Sets the measured period.
    pub(super) fn measure(&mut self, period: Range<u64>) {
        self.period = period;
    }

    /// The next event of the topic is the first one due to a connection that comes up now.
    pub(super) fn first_due(&self, topic: usize) -> Seen {
        Seen::starting_at((self.published + self.topics - 1 - topic as u64) / self.topics)
    }

    /// A connection is up: the events from now on are due to it.
    pub(super) fn up(&mut self, topic: usize) {
        self.up[topic] += 1;
    }

    /// A connection is gone: the events from now on are not due to it.
    pub(super) fn down(&mut self, topic: usize) {
        self.up[topic] -= 1;
    }

    /// Connections that are up.
    pub(super) fn connections_up(&self) -> u64 {
        self.up.iter().sum()
    }

    /// The next event is on its way.
    pub(super) fn publish(&mut self, due_ns: u64, now_ns: u64) -> (TopicPosition, EventRecord) {
        let number = self.published;
        let topic = (number % self.topics) as usize;
        let deliveries = self.up[topic];
        self.published += 1;
        self.measured.published += u64::from(self.period.contains(&now_ns));
        self.counts.expected += deliveries;
        self.pace.published(deliveries, now_ns);
        (TopicPosition { topic, deliveries, number }, EventRecord { run: self.run, number, due_ns })
    }

    /// The server acknowledged this many events.
    pub(super) fn acknowledge(&mut self, events: usize, now_ns: u64) {
        if self.period.contains(&now_ns) {
            self.measured.acknowledged += events as u64;
        }
    }

    /// An event was refused, or its connection broke: no delivery is due.
    pub(super) fn refuse(&mut self, place: TopicPosition) {
        self.counts.expected -= place.deliveries;
        self.pace.refused(place.number);
        self.refused.insert(place.number);
    }

    /// A connection on this topic got a record. Returns nothing if the record is not one of its events.
    pub(super) fn deliver(
        &mut self,
        seen: &mut Seen,
        topic: usize,
        record: EventRecord,
        now_ns: u64,
    ) -> Option<DeliveryOrder> {
        let known = record.run == self.run && record.number < self.published;
        if !known || (!self.refused_may_arrive && self.refused.contains(&record.number)) {
            self.counts.foreign += 1;
            return None;
        }
        if record.number % self.topics != topic as u64 {
            self.counts.wrong_topic += 1;
            return None;
        }
        let arrival = seen.arrive(record.number / self.topics, &mut self.counts);
        if arrival == DeliveryOrder::Duplicate {
            return Some(arrival);
        }
        self.pace.delivered(record.number, now_ns);
        self.measured.deliveries += u64::from(self.period.contains(&now_ns));
        if self.period.contains(&record.due_ns) {
            self.latency_ns.saturating_record(now_ns.saturating_sub(record.due_ns).max(1));
        }
        Some(arrival)
    }

    /// A read held at least one record.
    pub(super) fn read(&mut self, now_ns: u64) {
        self.measured.reads += u64::from(self.period.contains(&now_ns));
    }

    /// Whether every due delivery has arrived.
    pub(super) fn is_complete(&self) -> bool {
        self.counts.lost() == 0
    }
}

/// The books, and the scanner that all streams share.
#[derive(Debug)]
pub(super) struct SharedBooks {
    pub(super) books: Books,
    pub(super) scanner: Scanner,
}

impl SharedBooks {
    pub(super) fn new(books: Books) -> Self {
        Self { books, scanner: Scanner::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(topics: usize) -> Books {
        Books::new(1, topics, Pace::window(16)).unwrap()
    }

    fn up(books: &mut Books, topic: usize) -> Seen {
        books.up(topic);
        books.first_due(topic)
    }

    #[test]
    fn an_event_is_due_to_the_connections_on_its_topic() {
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
    fn a_late_connection_is_due_the_later_events() {
        let mut books = books(2);
        books.up(0);
        books.publish(0, 0);
        books.publish(0, 0);
        let mut late = up(&mut books, 0);
        let (_, record) = books.publish(0, 0);
        books.deliver(&mut late, 0, record, 1);
        assert_eq!((books.counts.expected, books.counts.received), (3, 1));
    }

    #[test]
    fn only_published_events_of_the_topic_count() {
        let mut books = books(2);
        let mut seen = up(&mut books, 0);
        let (place, record) = books.publish(0, 0);
        books.deliver(&mut seen, 0, EventRecord { run: 2, ..record }, 1);
        books.deliver(&mut seen, 0, EventRecord { number: 1, ..record }, 1);
        assert_eq!(books.counts.foreign, 2);
        let (_, other) = books.publish(0, 0);
        books.deliver(&mut seen, 0, other, 1);
        assert_eq!(books.counts.wrong_topic, 1);
        assert_eq!(books.counts.lost(), 1);
        books.refuse(place);
        books.deliver(&mut seen, 0, record, 1);
        assert_eq!((books.counts.foreign, books.counts.lost()), (3, 0));
        books.refused_may_arrive = true;
        assert_eq!(books.deliver(&mut seen, 0, record, 1), Some(DeliveryOrder::InOrder));
    }

    #[test]
    fn latency_runs_from_the_due_time_of_events_in_the_period() {
        let mut books = books(1);
        let mut seen = up(&mut books, 0);
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
