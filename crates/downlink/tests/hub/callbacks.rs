//! The hub calls code of the user, such as filters and observers. This code may call the hub,
//! because the hub holds no lock during such a call.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use downlink::Event;
use downlink::hub::{
    Connection, DisconnectReason, Gap, Hub, Observer, PublishError, Retention, Start,
};

use super::{open, seen};

static HUB: OnceLock<Hub<Chatty>> = OnceLock::new();
static DROPPED: AtomicUsize = AtomicUsize::new(0);

/// Calls methods of the hub that together take every lock of the hub. The calls do not change the
/// hub.
fn call_back() {
    let Some(hub) = HUB.get() else { return };
    let before = hub.stats().subscribers;
    let _subscription =
        open(hub.subscribe().topic("called-back").client("c").start(Start::Earliest));
    assert_eq!(hub.stats().subscribers, before + 1);
    assert!(matches!(hub.finish("*"), Err(PublishError::InvalidTopic { .. })));
    assert!(matches!(hub.finish("over"), Err(PublishError::Finished)));
    assert!(!hub.client_overviews(9).is_empty() && !hub.topic_overviews("", None, 9).is_empty());
}

/// A value that calls the hub when it is dropped.
struct Chatty(&'static str);

impl Drop for Chatty {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::SeqCst);
        call_back();
    }
}

/// An observer that calls the hub. It ignores the subscriptions that `call_back` opens. If it
/// called the hub for them too, the calls would never end.
struct Curious;

impl Curious {
    fn is_ours(connection: &Connection) -> bool {
        connection.client.as_ref().is_some_and(|client| client.as_str() == "ours")
    }
}

impl Observer for Curious {
    fn connected(&self, connection: &Connection) {
        if Self::is_ours(connection) {
            call_back();
        }
    }

    fn disconnected(&self, connection: &Connection, _: DisconnectReason) {
        self.connected(connection);
    }

    fn gap(&self, connection: &Connection, _: &Gap) {
        self.connected(connection);
    }
}

#[test]
fn every_callback_may_call_the_hub() {
    let one = Retention { events_max: 1, ..Retention::DEFAULT };
    let encode = |value: &Chatty| {
        call_back();
        Ok::<_, std::convert::Infallible>(Event::new(value.0))
    };
    let bytes = |_: &Chatty| {
        call_back();
        1
    };
    let builder =
        Hub::builder().encode_with(encode).keep_values(bytes).retention(one).observer(Curious);
    let hub = HUB.get_or_init(|| builder.build().unwrap());
    hub.finish("over").unwrap();

    let wanted = |value: &Chatty| {
        call_back();
        value.0 != "unwanted"
    };
    let subscribe = || hub.subscribe().topic("a").client("ours").filter(wanted);
    let mut subscription = open(subscribe().resume("who"));
    assert_eq!(seen(&mut subscription), ["gap unknown_id"]);
    for data in ["1", "unwanted", "2"] {
        hub.to("a").publish(Chatty(data)).unwrap();
    }
    assert_eq!(DROPPED.load(Ordering::SeqCst), 2, "the hub must drop the evicted values");
    assert_eq!(seen(&mut subscription), ["gap lagged", "2"]);
    assert!(hub.to("over").publish(Chatty("refused")).is_err());
    assert_eq!(DROPPED.load(Ordering::SeqCst), 3, "the hub must drop the refused value");
    drop(subscription);
    hub.close();
}
