//! Tests of requirements 9 to 13 and 15, which are about the bytes that reach a client.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use downlink::KeepAlive;
use downlink::hub::{Delivery, Hub, PublishError, Subscription};
use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Running, app, open, patiently};

#[tokio::test]
async fn acceptance_09_type_id_and_reconnection_time_reach_clients() {
    let hub = Hub::<String>::text();
    let running = Running::new(app(&hub, KeepAlive::off()), |serve| serve).await;
    let mut client = running.subscribe("topics=a", "").await;
    let retry = Duration::from_millis(1_234);
    hub.to("a").event("price").id("trade/7").retry(retry).publish("42".into()).unwrap();
    let event = client.event().await;
    assert_eq!((event.event_type.as_ref(), event.data.as_str()), ("price", "42"));
    assert_eq!((event.last_event_id.as_ref(), event.has_own_id), ("trade/7", true));
    let received = client.decoder.reconnection_time().unwrap();
    assert_eq!(received.as_duration(), retry);
}

#[tokio::test]
async fn acceptance_10_an_empty_event_arrives_as_an_event() {
    let hub = Hub::<String>::text();
    let running = Running::new(app(&hub, KeepAlive::off()), |serve| serve).await;
    let mut client = running.subscribe("topics=a", "").await;
    hub.to("a").publish(String::new()).unwrap();
    let event = client.event().await;
    assert_eq!((event.event_type.as_ref(), event.data.as_str()), ("message", ""));
}

#[test]
fn acceptance_11_publishing_a_value_that_json_cannot_represent_is_an_error() {
    let hub = Hub::<HashMap<(u8, u8), u8>>::json();
    let mut subscription = open(hub.subscribe());
    let error = hub.publish(HashMap::from([((1, 2), 3)])).unwrap_err();
    assert!(matches!(error, PublishError::Encode(_)));
    assert!(std::error::Error::source(&error).is_some());
    assert!(subscription.next().now_or_never().is_none(), "a refused event must not be published");
    assert!(hub.publish(HashMap::new()).is_ok());
}

/// A value that counts how often it is serialized.
#[derive(Clone)]
struct Probe(Arc<AtomicUsize>);

impl serde::Serialize for Probe {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        serializer.serialize_str("probe")
    }
}

#[test]
fn acceptance_12_an_event_is_encoded_once_for_all_subscriptions() {
    let hub = Hub::<Probe>::json();
    let probe = Probe(Arc::default());
    let mut subscriptions: Vec<_> = (0..100).map(|_| open(hub.subscribe().topic("a"))).collect();
    let receipt = hub.to("a").publish(probe.clone()).unwrap();
    assert_eq!(receipt.matched(), Some(100));
    let mut frames = Vec::new();
    for subscription in &mut subscriptions {
        let Some(Some(Delivery::Event(event))) = subscription.next().now_or_never() else {
            panic!("the subscription has no event");
        };
        frames.push(event.frame().clone());
    }
    assert_eq!(probe.0.load(Ordering::SeqCst), 1);
    let first = frames[0].as_bytes().as_ptr();
    assert!(
        frames.iter().all(|frame| frame.as_bytes().as_ptr() == first),
        "all subscriptions must share one copy"
    );
}

/// A second, independent decoder. It follows the steps of the standard in the simplest way.
fn read_plainly(bytes: &[u8]) -> Vec<(String, String, String)> {
    let text = String::from_utf8(bytes.to_vec()).unwrap().replace("\r\n", "\n").replace('\r', "\n");
    let (mut event_type, mut data, mut last_id) = (String::new(), String::new(), String::new());
    let mut events = Vec::new();
    for line in text.split('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                let event_type = std::mem::take(&mut event_type);
                let data = std::mem::take(&mut data);
                if let Some(data) = data.strip_suffix('\n') {
                    events.push((event_type, data.to_owned(), last_id.clone()));
                }
            }
            "event" => value.clone_into(&mut event_type),
            "data" => data.extend([value, "\n"]),
            "id" if !value.contains('\0') => value.clone_into(&mut last_id),
            _ => {}
        }
    }
    events
}

/// Reads the next event of a subscription. Returns the event's data, and the frame.
fn received(subscription: &mut Subscription<String>) -> Option<(String, Vec<u8>)> {
    match subscription.next().now_or_never()?? {
        Delivery::Event(event) => {
            Some((event.data().into_owned(), event.frame().as_bytes().to_vec()))
        }
        other => panic!("not an event: {other:?}"),
    }
}

/// Text with many line ends, colons and other special characters.
fn hazardous() -> impl Strategy<Value = String> {
    let hazard = prop_oneof!["[\r\n\0: ]{1,3}", "(id|event|data|retry): ?x", "\\PC{0,4}"];
    prop::collection::vec(hazard, 0..6).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn acceptance_13_a_client_reads_exactly_the_published_event_or_the_hub_refuses_it(
        data in hazardous(), event_type in hazardous(), id in hazardous(),
    ) {
        let hub = Hub::<String>::text();
        let mut subscription = open(hub.subscribe().topic("a"));
        let published = hub.to("a").event(&event_type).id(&id).publish(data.clone());
        let Some((read, frame)) = received(&mut subscription) else {
            prop_assert!(published.is_err(), "the event was accepted but not delivered");
            return Ok(());
        };
        prop_assert!(published.is_ok());
        prop_assert!(received(&mut subscription).is_none(), "one publish gave more than one event");
        let data = data.replace("\r\n", "\n").replace('\r', "\n");
        prop_assert_eq!(&read, &data);
        prop_assert_eq!(read_plainly(&frame), [(event_type, data, id)]);
    }

    #[test]
    fn acceptance_13_one_publish_of_any_data_arrives_as_one_event(data in hazardous()) {
        let hub = Hub::<String>::text();
        let mut subscription = open(hub.subscribe().topic("a"));
        let receipt = hub.to("a").publish(data.clone()).unwrap();
        let (read, frame) = received(&mut subscription).unwrap();
        let data = data.replace("\r\n", "\n").replace('\r', "\n");
        prop_assert_eq!(&read, &data);
        let expected = (String::new(), data, receipt.id().unwrap().as_str().to_owned());
        prop_assert_eq!(read_plainly(&frame), [expected]);
    }
}

#[tokio::test]
async fn acceptance_15_a_response_has_no_connection_header_in_any_http_version() {
    let hub = Hub::<String>::text();
    let plain = open(hub.subscribe()).into_http_response();
    assert!(!plain.headers().contains_key("connection"));
    let running = Running::new(app(&hub, KeepAlive::off()), |serve| serve).await;
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let mut io = TcpStream::connect(running.address).await.unwrap();
        let request = format!("GET /?topics=a {version}\r\nHost: test\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(patiently(io.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
        assert!(!head.contains("\r\nconnection:"), "{head}");
        assert!(!head.contains("\r\nkeep-alive:"), "{head}");
    }
}
