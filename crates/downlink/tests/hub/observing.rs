//! Tests of the observer, which the hub calls when a subscription begins, ends or gets a gap, and
//! of the hub's statistics.

use std::sync::{Arc, Mutex};

use downlink::hub::{
    Connection, DisconnectReason, Gap, GapReason, Hub, HubBuilder, LagPolicy, Limits, Observer,
    Retention, Start, Stats,
};

use super::{build, hub, id, open, refused, say, seen, word};

/// An observer that writes down each call as a line of text.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Diary {
    fn connected(&self, connection: &Connection) {
        let client = connection.client.as_ref().map_or("-", |client| client.as_str());
        let resumed = if connection.resumed { " resumed" } else { "" };
        self.note(format!("connected {client}{resumed}"));
    }

    fn disconnected(&self, _connection: &Connection, reason: DisconnectReason) {
        self.note(format!("disconnected {}", reason.as_str()));
    }

    fn gap(&self, _connection: &Connection, gap: &Gap) {
        self.note(format!("gap {}", word(gap.reason)));
    }
}

fn watched(set: impl FnOnce(HubBuilder<String>) -> HubBuilder<String>) -> (Hub<String>, Diary) {
    let diary = Diary::default();
    let hub = build(|builder| set(builder).observer(diary.clone()));
    (hub, diary)
}

#[test]
fn the_observer_is_called_for_each_connect_gap_and_disconnect() {
    let (hub, diary) = watched(|builder| builder);
    drop(open(hub.subscribe().client("alice").resume(id(&hub, 0).as_str())));
    assert_eq!(diary.take(), ["connected alice resumed", "disconnected left"]);
    drop(open(hub.subscribe().start(Start::Earliest)));
    assert_eq!(diary.take(), ["connected -", "disconnected left"]);
    let mut subscription = open(hub.subscribe().client("alice").resume("who"));
    assert_eq!(diary.take(), ["connected alice"]);
    seen(&mut subscription);
    assert_eq!(diary.take(), ["gap unknown_id"]);
    drop(subscription);
    assert_eq!(diary.take(), ["disconnected left"]);
}

#[test]
fn the_observer_gets_the_reason_for_each_disconnect() {
    let one = Retention { events_max: 1, ..Retention::DEFAULT };
    let (hub, diary) = watched(|builder| {
        builder.retention(one).lag_policy(LagPolicy::Disconnect).keep_values(String::len)
    });
    let ended = |mut subscription: downlink::Subscription<String>| {
        seen(&mut subscription);
        drop(subscription);
        diary.take().pop().unwrap()
    };
    let lagging = open(hub.subscribe().topic("a"));
    let panicking = open(hub.subscribe().topic("a").filter(|_| panic!("the filter's bug")));
    say(&hub, "a", "1");
    assert_eq!(ended(panicking), "disconnected filter_panicked");
    say(&hub, "a", "2");
    assert_eq!(ended(lagging), "disconnected lagged");
    hub.finish("f").unwrap();
    let finishing = open(hub.subscribe().topic("g"));
    hub.finish("g").unwrap();
    assert_eq!(ended(finishing), "disconnected finished");
    let disconnected = open(hub.subscribe().client("c"));
    hub.disconnect("c");
    assert_eq!(ended(disconnected), "disconnected disconnected");
    let closed = open(hub.subscribe());
    hub.close();
    assert_eq!(ended(closed), "disconnected closed");
    let (hub, diary) = watched(|builder| builder);
    let mut drained = open(hub.subscribe());
    hub.drain();
    seen(&mut drained);
    drop(drained);
    assert_eq!(diary.take(), ["connected -", "disconnected drained"]);
}

/// A server that shuts down drops a response at once if no event is incomplete.
#[test]
fn a_subscription_that_is_dropped_before_it_has_read_its_end_keeps_the_reason() {
    let (hub, diary) = watched(|builder| builder);
    let drained = open(hub.subscribe().topic("a"));
    hub.drain();
    drop(drained);
    assert_eq!(diary.take(), ["connected -", "disconnected drained"]);
}

#[test]
fn the_observer_gets_no_call_for_a_refused_subscription() {
    let (hub, diary) =
        watched(|builder| builder.limits(Limits { subscribers_max: 0, ..Limits::default() }));
    refused(hub.subscribe());
    hub.drain();
    refused(hub.subscribe());
    assert!(diary.take().is_empty());
}

// An observer may call the hub to count the clients, for example to show the number on a page.
#[test]
fn during_an_observer_call_the_counts_include_the_connect_or_disconnect() {
    struct Counting(Arc<Mutex<Option<Hub<String>>>>, Diary);
    impl Counting {
        fn count(&self) {
            let hub = self.0.lock().unwrap().clone().unwrap();
            self.1.note(format!("{} {}", hub.stats().subscribers, hub.subscribers_of("c")));
        }
    }
    impl Observer for Counting {
        fn connected(&self, _: &Connection) {
            self.count();
        }
        fn disconnected(&self, _: &Connection, _: DisconnectReason) {
            self.count();
        }
    }
    let (slot, diary) = (Arc::default(), Diary::default());
    let hub = build(|builder| builder.observer(Counting(Arc::clone(&slot), diary.clone())));
    *slot.lock().unwrap() = Some(hub.clone());
    drop(open(hub.subscribe().client("c")));
    assert_eq!(diary.take(), ["1 1", "0 0"]);
}

#[test]
fn a_panic_of_the_observer_does_not_affect_the_subscription() {
    struct Panics;
    impl Observer for Panics {
        fn connected(&self, _: &Connection) {
            panic!("the observer's bug");
        }
        fn disconnected(&self, _: &Connection, _: DisconnectReason) {
            panic!("the observer's bug");
        }
        fn gap(&self, _: &Connection, _: &Gap) {
            panic!("the observer's bug");
        }
    }
    let hub = build(|builder| builder.observer(Panics));
    let mut subscription = open(hub.subscribe().topic("a").resume("who"));
    say(&hub, "a", "1");
    assert_eq!(seen(&mut subscription), ["gap unknown_id", "1"]);
    drop(subscription);
    assert_eq!(hub.stats().subscribers, 0);
}

fn disconnects(stats: &Stats, reason: DisconnectReason) -> u64 {
    stats.disconnects.iter().find(|(counted, _)| *counted == reason).unwrap().1
}

#[test]
fn the_statistics_count_events_and_subscriptions_and_gaps() {
    let hub = hub();
    let before = hub.stats();
    assert_eq!((before.subscribers, before.events, before.published), (0, 0, 0));
    let mut one = open(hub.subscribe().topic("a"));
    let mut two = open(hub.subscribe().topics(["a", "b"]).resume("who"));
    hub.to("a").and_to("b").publish("x".into()).unwrap();
    say(&hub, "b", "y");
    seen(&mut one);
    seen(&mut two);
    drop(two);
    let stats = hub.stats();
    assert_eq!((stats.subscribers, stats.topics, stats.events), (1, 2, 3));
    assert_eq!((stats.published, stats.delivered), (2, 3));
    assert_eq!((stats.connects, stats.refused), (2, 0));
    assert_eq!(disconnects(&stats, DisconnectReason::Left), 1);
    assert_eq!(stats.gaps.iter().find(|(r, _)| *r == GapReason::UnknownId).unwrap().1, 1);
    assert_eq!(stats.gaps.iter().map(|(_, count)| count).sum::<u64>(), 1);
    assert!(stats.bytes > 0);
}

#[test]
fn subscribers_are_connects_minus_disconnects() {
    let hub = hub();
    let kept: Vec<_> = (0..5).map(|_| open(hub.subscribe().start(Start::Earliest))).collect();
    (0..3).for_each(|_| drop(open(hub.subscribe())));
    let stats = hub.stats();
    let ended: u64 = stats.disconnects.iter().map(|(_, count)| count).sum();
    assert_eq!(stats.connects - ended, kept.len() as u64);
    assert_eq!(stats.subscribers, kept.len());
}
