//! Tests with one reader, which uses one connection after another. A connection may be cut before
//! the reader has received a `downlink.gap`. The reader must then get the gap on the next
//! connection. A reader that misses no event gets no gap.

use downlink::hub::{Hub, Retention};
use downlink_proto::{DecodedEvent, Decoder, Item};

use super::patiently;
use super::wire::{Connection, Manner, Turn};
use super::world::{Running, ServedBy, topic};

/// The only reader of a test. It reads one topic.
struct Only {
    server: Running,
    decoder: Decoder,
}

impl Only {
    /// Starts a server, and makes a reader that will resume from this id.
    async fn new(hub: &Hub<String>, last_event_id: &str) -> Self {
        let server = Running::new(ServedBy::Direct, hub).await;
        Self { server, decoder: Decoder::default().with_last_event_id(last_event_id) }
    }

    async fn connect(&self) -> Connection {
        let query = format!("topics={}", topic(0));
        let last_event_id = self.decoder.last_event_id();
        Connection::ask(&self.server.place, &query, last_event_id, None, Manner::Plain)
            .await
            .unwrap()
    }

    /// Connects, reads exactly this many bytes, and disconnects. Returns the events that are
    /// complete in these bytes.
    async fn read_bytes(&mut self, mut bytes: usize) -> Vec<DecodedEvent> {
        let mut connection = self.connect().await;
        while bytes > 0 {
            let (read, turn) = patiently(connection.read(bytes, &mut self.decoder)).await;
            assert_eq!(turn, Turn::Open);
            bytes -= read;
        }
        let events = std::iter::from_fn(|| self.decoder.poll_item()).filter_map(event).collect();
        self.decoder.handle_end();
        events
    }

    /// Connects, reads this many events, and disconnects.
    async fn read_events(&mut self, count: usize) -> Vec<DecodedEvent> {
        let mut connection = self.connect().await;
        let mut events = Vec::new();
        while events.len() < count {
            match self.decoder.poll_item() {
                Some(item) => events.extend(event(item)),
                None => {
                    let (_, turn) = patiently(connection.read(1, &mut self.decoder)).await;
                    assert_eq!(turn, Turn::Open);
                }
            }
        }
        self.decoder.handle_end();
        events
    }
}

fn event(item: Item) -> Option<DecodedEvent> {
    match item {
        Item::Event(event) => Some(event),
        _ => None,
    }
}

fn types(events: &[DecodedEvent]) -> Vec<&str> {
    events.iter().map(|event| &*event.event_type).collect()
}

fn data(events: &[DecodedEvent]) -> Vec<&str> {
    events.iter().map(|event| &*event.data).collect()
}

/// Makes a hub, and publishes five events to one topic. The hub keeps only events 4 and 5.
fn two_of_five() -> Hub<String> {
    let two = Retention { events_max: 2, ..Retention::DEFAULT };
    let hub = Hub::builder().text().retention(two).build().unwrap();
    for number in 1..=5 {
        hub.to(topic(0)).publish(number.to_string()).unwrap();
    }
    hub
}

/// Cuts the reader's first connection after 0 bytes, then after 1 byte, and so on, up to the end of
/// the event `downlink.gap`. If the cut comes before the end of this event, the reader must get the
/// event when it resumes.
async fn cut_everywhere(hub: Hub<String>, last_event_id: &str, reason: &str) {
    let mut only = Only::new(&hub, last_event_id).await;
    for bytes in 0.. {
        only.decoder = Decoder::default().with_last_event_id(last_event_id);
        let first = only.read_bytes(bytes).await;
        if types(&first).contains(&"downlink.gap") {
            assert!(bytes > 400, "the test has too few cuts: {first:?}");
            return;
        }
        let again = only.read_events(2).await;
        assert_eq!(types(&again), ["downlink.open", "downlink.gap"], "after {bytes} bytes");
        let notice = format!(r#"{{"reason":"{reason}","after":"{last_event_id}","#);
        assert!(again[1].data.starts_with(&notice), "{:?} after {bytes} bytes", again[1]);
    }
}

#[tokio::test]
async fn a_reader_that_is_cut_off_before_the_gap_of_a_new_epoch_gets_the_gap_when_it_resumes() {
    cut_everywhere(two_of_five(), "00000000-3", "new_epoch").await;
}

#[tokio::test]
async fn a_reader_that_is_cut_off_before_the_gap_of_an_unknown_id_gets_the_gap_when_it_resumes() {
    cut_everywhere(two_of_five(), "who", "unknown_id").await;
}

#[tokio::test]
async fn a_reader_that_is_cut_off_before_the_gap_of_evicted_events_gets_the_gap_when_it_resumes() {
    let hub = two_of_five();
    let first = hub.cursor().as_str().replace("-5", "-1");
    cut_everywhere(hub, &first, "evicted").await;
}

#[tokio::test]
async fn a_reader_that_is_cut_off_before_the_gap_of_lost_events_gets_the_gap_when_it_resumes() {
    let hub = two_of_five();
    let ahead = hub.cursor().as_str().replace("-5", "-99");
    cut_everywhere(hub, &ahead, "lost").await;
}

#[tokio::test]
async fn a_reader_that_has_received_no_event_gets_the_events_published_while_it_is_disconnected() {
    let hub = Hub::text();
    let mut only = Only::new(&hub, "").await;
    assert_eq!(types(&only.read_events(1).await), ["downlink.open"]);
    for data in ["1", "2"] {
        hub.to(topic(0)).publish(data.to_owned()).unwrap();
    }
    let again = only.read_events(3).await;
    assert_eq!(types(&again), ["downlink.open", "message", "message"]);
    assert_eq!(data(&again)[1..], ["1", "2"]);
    hub.to(topic(0)).publish("3".to_owned()).unwrap();
    assert_eq!(data(&only.read_events(2).await)[1..], ["3"]);
}

/// A keep-alive may have an id, so that a reader that gets no events still gets a recent id. A
/// reader that resumes after this id must get all later events of its topic.
#[tokio::test]
async fn a_reader_resumes_exactly_after_the_id_of_a_keep_alive() {
    let hub = Hub::text();
    let mut only = Only::new(&hub, "").await;
    assert_eq!(types(&only.read_events(1).await), ["downlink.open"]);
    hub.to(topic(1)).publish("for others".to_owned()).unwrap();
    let moved = only.read_events(2).await;
    assert_eq!(types(&moved), ["downlink.open", "downlink.alive"]);
    assert_eq!(&*moved[1].last_event_id, hub.cursor().as_str());
    hub.to(topic(0)).publish("mine".to_owned()).unwrap();
    assert_eq!(data(&only.read_events(2).await)[1..], ["mine"]);
}
