//! A subscription of a load: its reader, and a record of the events that it got.

use std::{io, ops::Range};

use mio::{Registry, Token};

use super::{
    books::SharedBooks,
    connection::{HttpConnection, ReadOutcome, Ready},
    plan::Plan,
    reader::{StreamEvent, StreamReader, SubscriptionError},
    tally::{DeliveryOrder, Seen},
};

/// A subscription.
#[derive(Debug)]
pub(super) struct Subscriber {
    number: usize,
    topic: usize,
    pub(super) reader: StreamReader,
    /// The events that arrived. `None` until the event stream begins. The value stays when the
    /// connection ends.
    pub(super) seen: Option<Seen>,
    /// The record of reported gaps. `None` if the subscription cannot resume.
    pub(super) story: Option<Box<Story>>,
}

/// The record of a subscription that can resume. It distinguishes missing events in a reported gap
/// from other missing events.
#[derive(Clone, Debug, Default)]
pub(super) struct Story {
    /// The number of gaps that the server reported.
    pub(super) gaps: u64,
    /// True if the server has reported a gap, and no newer event has arrived since the report.
    is_reported: bool,
    /// The ranges of missing events for which no gap was reported.
    pub(super) unreported: Vec<Range<u64>>,
    /// The number of events that arrived twice or after a later event.
    pub(super) disorder: u64,
}

impl Story {
    /// Records that the server reported a gap.
    pub(super) fn gap(&mut self) {
        self.gaps += 1;
        self.is_reported = true;
    }

    /// Records that the event `number` arrived. `next` is the number of the event that would have
    /// been next in order.
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

    /// Connects a subscription that has to get all events of the topic, from the first one on.
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

    /// True if the connection is up or has ended, and false while it is being opened.
    pub(super) fn is_settled(&self) -> bool {
        self.reader.is_up() || self.reader.is_over()
    }

    /// True if the event at the position `next - 1` or a later event has arrived. Also true if
    /// `next` is 0.
    pub(super) fn has_reached(&self, next: u64) -> bool {
        next == 0 || self.seen.as_ref().is_some_and(|seen| seen.next() >= next)
    }

    /// Reads until the socket is empty. After an error the connection is closed.
    pub(super) fn read_all(
        &mut self,
        mut ready: Ready<'_>,
        reading: &mut SharedBooks,
    ) -> Result<(), SubscriptionError> {
        while self.read(&mut ready, reading)? == ReadOutcome::More {}
        Ok(())
    }

    /// Reads once. After an error the connection is closed.
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
