//! A subscription of a load: a reader, and the account of the events that it got.

use std::{io, ops::Range};

use mio::{Registry, Token};

use super::{
    books::SharedBooks,
    connection::{HttpConnection, ReadOutcome, Ready},
    plan::Plan,
    reader::{StreamEvent, StreamReader, SubscriptionError},
    tally::{DeliveryOrder, Seen},
};

/// One of the subscriptions.
#[derive(Debug)]
pub(super) struct Subscriber {
    number: usize,
    topic: usize,
    pub(super) reader: StreamReader,
    /// Starts with the first event that is due, once the stream is up. It outlives the connection.
    pub(super) seen: Option<Seen>,
    /// Of a subscription that resumes.
    pub(super) story: Option<Box<Story>>,
}

/// The account of a subscription that resumes: it has to explain missing events.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    /// The gaps that the server reported.
    pub(super) gaps: u64,
    /// Whether a gap was reported since the newest event.
    is_reported: bool,
    /// The missing events without a report.
    pub(super) unreported: Vec<Range<u64>>,
    /// Events that came twice or after a later one.
    pub(super) disorder: u64,
}

impl Story {
    /// The server reported a gap.
    pub(super) fn gap(&mut self) {
        self.gaps += 1;
        self.is_reported = true;
    }

    /// An event arrived, and `next` would have continued the order.
    pub(super) fn arrival(&mut self, arrival: DeliveryOrder, number: u64, next: u64) {
        if arrival != DeliveryOrder::InOrder {
            self.disorder += 1;
            return;
        }
        if number > next && !self.is_reported {
            self.unreported.push(next..number);
        }
        self.is_reported = false;
    }
}

impl Subscriber {
    /// Begins to connect.
    pub(super) fn open(plan: &Plan, number: usize, registry: &Registry) -> io::Result<Self> {
        let connection = connect(plan, number, None, registry)?;
        let reader = StreamReader::new(connection, plan.is_resuming);
        let story = plan.is_resuming.then(Box::default);
        Ok(Self { number, topic: number % plan.topics, reader, seen: None, story })
    }

    /// Connects a subscription to which all events are due, from the first one.
    pub(super) fn replay(plan: &Plan, request: Vec<u8>) -> io::Result<Self> {
        let connection = HttpConnection::open_unregistered(plan.subscribe_address, request)?;
        let (reader, seen) = (StreamReader::new(connection, false), Some(Seen::starting_at(0)));
        Ok(Self { number: 0, topic: 0, reader, seen, story: None })
    }

    /// Begins to connect again, after the last event id.
    pub(super) fn resume(&mut self, plan: &Plan, registry: &Registry) -> io::Result<()> {
        let connection = connect(plan, self.number, self.reader.last_event_id(), registry)?;
        self.reader.resume(connection);
        Ok(())
    }

    /// Whether the connection is up or over: it is not in the making any more.
    pub(super) fn is_settled(&self) -> bool {
        self.reader.is_up() || self.reader.is_over()
    }

    /// Whether the event before this position, or a later one, has arrived.
    pub(super) fn has_reached(&self, next: u64) -> bool {
        next == 0 || self.seen.as_ref().is_some_and(|seen| seen.next() >= next)
    }

    /// Reads until the socket is empty. An error ends the connection.
    pub(super) fn read_all(
        &mut self,
        mut ready: Ready<'_>,
        reading: &mut SharedBooks,
    ) -> Result<(), SubscriptionError> {
        while self.read(&mut ready, reading)? == ReadOutcome::More {}
        Ok(())
    }

    /// Reads once. An error ends the connection.
    pub(super) fn read(
        &mut self,
        ready: &mut Ready<'_>,
        reading: &mut SharedBooks,
    ) -> Result<ReadOutcome, SubscriptionError> {
        let Self { topic, reader, seen, story, .. } = self;
        let SharedBooks { books, scanner } = reading;
        let (was_up, mut read_ns) = (reader.is_up(), None);
        let read = reader.read(ready, scanner, |found, now_ns| match found {
            StreamEvent::Record(record) => {
                let seen = seen.get_or_insert_with(|| books.first_due(*topic));
                let next = seen.next();
                let arrival = books.deliver(seen, *topic, record, now_ns);
                if let (Some(story), Some(arrival)) = (&mut *story, arrival) {
                    story.arrival(arrival, record.number, next);
                }
                read_ns = Some(now_ns);
            }
            StreamEvent::Gap => story.iter_mut().for_each(|story| story.gap()),
            StreamEvent::Unknown => books.counts.foreign += 1,
        });
        if let Some(read_ns) = read_ns {
            books.read(read_ns);
        }
        match (was_up, reader.is_up()) {
            (false, true) => {
                seen.get_or_insert_with(|| books.first_due(*topic));
                books.up(*topic);
            }
            (true, false) => books.down(*topic),
            _ => {}
        }
        read
    }
}

fn connect(
    plan: &Plan,
    number: usize,
    last_event_id: Option<&str>,
    registry: &Registry,
) -> io::Result<HttpConnection> {
    let request = plan.subscribe_request(number, last_event_id);
    HttpConnection::open(plan.subscribe_address, request, Token(number), registry)
}
