//! The books of a run record every publish and every delivery.
//!
//! The books read no clock: the callers pass the time, as nanoseconds since the start of the run.
//! Latency and rates are computed only for the measured period, which begins after the warm-up. The
//! counts of deliveries cover the whole run.

use std::{collections::HashSet, ops::Range};

use hdrhistogram::Histogram;

use super::{
    pace::Pace,
    record::{EventRecord, Scanner},
    tally::{Counts, DeliveryOrder, Seen},
};

/// The maximum latency that the histogram can record: an hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// The precision of the histogram, in significant digits.
const LATENCY_DIGITS: u8 = 3;

/// The record of every publish and every delivery of a run.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) run: u32,
    pub(super) pace: Pace,
    pub(super) counts: Counts,
    /// The latency of the events that were due in the measured period.
    pub(super) latency_ns: Histogram<u64>,
    /// The time from the moment at which an event should be published to the server's answer.
    pub(super) answer_ns: Histogram<u64>,
    pub(super) published: u64,
    /// The numbers of the events that the server refused or did not answer. No connection has to
    /// get these events.
    pub(super) refused: HashSet<u64>,
    /// True if an event in `refused` may still arrive. A server that crashes may have published an
    /// event without answering.
    pub(super) refused_may_arrive: bool,
    /// The counts within the measured period.
    pub(super) measured: MeasuredCounts,
    topics: u64,
    /// The number of connections that are up, for each topic. A connection is up while its event
    /// stream is open.
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

/// A published event: its topic, the number of connections that have to get it, its number in the
/// run, and the time at which it should be published.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopicPosition {
    pub(super) topic: usize,
    pub(super) deliveries: u64,
    pub(super) number: u64,
    pub(super) due_ns: u64,
}

impl Books {
    /// Makes empty books. The measured period is empty until [`measure`](Self::measure) sets it.
    pub(super) fn new(run: u32, topics: usize, pace: Pace) -> anyhow::Result<Self> {
        Ok(Self {
            run,
            pace,
            counts: Counts::default(),
            latency_ns: Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)?,
            answer_ns: Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)?,
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

    /// Makes the record of deliveries ([`Seen`]) for a connection that comes up now. The record is
    /// empty. The connection has to get all events of its topic from the next event on.
    pub(super) fn first_due(&self, topic: usize) -> Seen {
        Seen::starting_at((self.published + self.topics - 1 - topic as u64) / self.topics)
    }

    /// Records that a connection is up. The connection has to get all later events of its topic.
    pub(super) fn up(&mut self, topic: usize) {
        self.up[topic] += 1;
    }

    /// Records that a connection has ended. The connection does not have to get later events.
    pub(super) fn down(&mut self, topic: usize) {
        self.up[topic] -= 1;
    }

    /// The number of connections that are up.
    pub(super) fn connections_up(&self) -> u64 {
        self.up.iter().sum()
    }

    /// Records the next event, which is about to be sent to the server.
    pub(super) fn publish(&mut self, due_ns: u64, now_ns: u64) -> (TopicPosition, EventRecord) {
        let number = self.published;
        let topic = (number % self.topics) as usize;
        let deliveries = self.up[topic];
        self.published += 1;
        self.measured.published += u64::from(self.period.contains(&now_ns));
        self.counts.expected += deliveries;
        self.pace.published(deliveries, now_ns);
        let place = TopicPosition { topic, deliveries, number, due_ns };
        (place, EventRecord { run: self.run, number, due_ns })
    }

    /// Records that the server acknowledged these events.
    pub(super) fn acknowledge(&mut self, events: &[TopicPosition], now_ns: u64) {
        if self.period.contains(&now_ns) {
            self.measured.acknowledged += events.len() as u64;
        }
        for event in events.iter().filter(|event| self.period.contains(&event.due_ns)) {
            self.answer_ns.saturating_record(now_ns.saturating_sub(event.due_ns).max(1));
        }
    }

    /// Records that an event was refused, or that the publisher's connection broke before the
    /// answer. No subscription has to get this event.
    pub(super) fn refuse(&mut self, place: TopicPosition) {
        self.counts.expected -= place.deliveries;
        self.pace.refused(place.number);
        self.refused.insert(place.number);
    }

    /// Counts a delivery to a connection on this topic. `record` is from the payload and identifies
    /// the event. Returns `None` if no such event was published to the topic.
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

    /// Counts a read that contained at least one event.
    pub(super) fn read(&mut self, now_ns: u64) {
        self.measured.reads += u64::from(self.period.contains(&now_ns));
    }

    /// True if every expected delivery has arrived.
    pub(super) fn is_complete(&self) -> bool {
        self.counts.lost() == 0
    }
}

/// The books of a run, and the scanner that finds events in a stream of bytes. All streams of a run
/// share the books and the scanner.
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
    fn an_event_must_reach_every_open_connection_of_its_topic() {
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
    fn a_connection_does_not_have_to_get_events_from_before_it_opened() {
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
    fn an_event_that_was_not_published_to_the_topic_does_not_count_as_received() {
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
    fn latency_is_measured_from_the_due_time_of_events_in_the_measured_period() {
        let mut books = books(1);
        let mut seen = up(&mut books, 0);
        books.measure(1_000..2_000);
        for (due, now) in [(999, 1_500), (1_000, 1_500), (1_999, 4_999), (2_000, 5_000)] {
            let (place, record) = books.publish(due, now);
            books.acknowledge(&[place], now + 1_000);
            books.deliver(&mut seen, 0, record, now);
        }
        assert_eq!(books.latency_ns.len(), 2);
        assert!(books.latency_ns.equivalent(books.latency_ns.max(), 3_000));
        assert_eq!(books.answer_ns.len(), 2);
        assert!(books.answer_ns.equivalent(books.answer_ns.max(), 4_000));
        assert_eq!(books.measured.deliveries, 2);
    }
}
