//! The publishers and subscribers of a test run, and their records.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use downlink_client::{Delivery, EventSource, PublishRequest, Publisher};

/// The topic of nearly all subscribers.
pub(crate) const STEADY: &str = "steady";

/// The topic with a high rate of events. Its publishers pause only briefly after an answer.
pub(crate) const BUSY: &str = "busy";

/// The data of the last event of a topic.
pub(crate) const END: &str = "the end";

#[derive(Default)]
pub(crate) struct Tally {
    opened: AtomicUsize,
    acknowledged: AtomicUsize,
    stop: AtomicBool,
}

impl Tally {
    /// The number of connections that all subscribers together have opened so far.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Tells the publishers to stop.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The record of a publisher. The data of its events is `<number>-0`, `<number>-1` and so on.
pub(crate) struct Published {
    pub(crate) topic: &'static str,
    pub(crate) number: usize,
    /// For each event, the time when the publisher sent it, and how long the publisher waited for
    /// the answer.
    pub(crate) took: Vec<(Instant, Duration)>,
}

impl Published {
    /// The longest wait for an answer, among the waits that overlap the time between these two
    /// moments.
    pub(crate) fn longest_in(&self, (from, to): (Instant, Instant)) -> Option<Duration> {
        let meanwhile =
            self.took.iter().filter(|(sent, took)| *sent <= to && *sent + *took >= from);
        meanwhile.map(|(_, took)| *took).max()
    }
}

/// A server, and the key that publishers and subscribers send.
#[derive(Clone)]
pub(crate) struct Reached {
    pub(crate) url: String,
    pub(crate) key: String,
}

impl Reached {
    pub(crate) fn publisher(&self) -> Publisher {
        let publisher = Publisher::new(&self.url).expect("an address");
        publisher.with_bearer_token(&self.key).expect("a key in ASCII")
    }
}

/// Publishes one event after another until the test stops it. It sends each event only once, and
/// panics if the server does not acknowledge the event.
pub(crate) async fn publish(
    topic: &'static str,
    number: usize,
    server: Reached,
    pause: Duration,
    tally: Arc<Tally>,
) -> Published {
    let publisher = server.publisher();
    let mut took = Vec::new();
    while !tally.stop.load(Ordering::Relaxed) {
        let data = format!("{number}-{}", took.len());
        let key = format!("{topic}-{data}");
        let request = PublishRequest::to_topic(topic).idempotency_key(&key);
        let sent = Instant::now();
        let receipt = publisher.publish(&request, data).await;
        took.push((sent, sent.elapsed()));
        let receipt = receipt.unwrap_or_else(|error| panic!("{key} is refused: {error:?}"));
        assert!(receipt.committed);
        tally.acknowledged.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(pause).await;
    }
    Published { topic, number, took }
}

/// The record of a subscriber: the events that it got, without the last event of the topic, and the
/// number of its connections.
pub(crate) struct Read {
    pub(crate) topic: &'static str,
    pub(crate) seen: Vec<String>,
    pub(crate) connections: usize,
}

/// Reads a topic, over one connection after another, until the topic's last event.
pub(crate) async fn read(
    topic: &'static str,
    server: Reached,
    client: reqwest::Client,
    tally: Arc<Tally>,
) -> Read {
    let address = format!("{}/events?topic={topic}&start=earliest", server.url);
    let builder = EventSource::builder(&address).http_client(client).bearer_token(&server.key);
    let mut source = builder.build().expect("an address");
    let mut read = Read { topic, seen: Vec::new(), connections: 0 };
    while let Some(delivery) = source.next().await {
        match delivery {
            Delivery::Open(_) => {
                read.connections += 1;
                tally.opened.fetch_add(1, Ordering::Relaxed);
            }
            Delivery::Event(event) if event.data == END => return read,
            Delivery::Event(event) => read.seen.push(event.data),
            Delivery::Gap(gap) => panic!("an unexpected gap: {gap:?}"),
            _ => {}
        }
    }
    panic!("the subscriber stopped: {:?}", source.closed_because());
}
