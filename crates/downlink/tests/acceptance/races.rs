//! Tests of requirements 3, 4, 5 and 17, which are about races between threads.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use downlink::hub::{
    Delivery, DisconnectReason, Hub, Limits, OpenError, PublishError, Retention,
    SubscribeErrorKind, Subscription,
};
use futures_util::{FutureExt, StreamExt};

use super::{open, try_open};

/// A hub that keeps all events of these tests.
fn hub() -> Hub<String> {
    let all = Retention { events_max: 1 << 20, bytes_max: 1 << 30, age_max: None };
    Hub::builder().text().retention(all).build().unwrap()
}

fn number(delivery: Delivery<String>) -> usize {
    match delivery {
        Delivery::Event(event) => event.data().parse().unwrap(),
        other => panic!("not an event: {other:?}"),
    }
}

/// Reads a subscription to its end.
fn read(mut subscription: Subscription<String>) -> (Vec<usize>, DisconnectReason) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let read = runtime.block_on(subscription.by_ref().map(number).collect());
    (read, subscription.ended().unwrap())
}

/// Publishes fifty times, or until the hub is closed. Returns the number of accepted publishes.
fn publish_until_closed(hub: &Hub<String>) -> usize {
    let publish = |_: &usize| match hub.to("a").publish("1".to_owned()) {
        Ok(_) => true,
        Err(PublishError::Closed) => false,
        Err(other) => panic!("{other:?}"),
    };
    (0..50).take_while(publish).count()
}

#[test]
fn acceptance_03_an_event_published_during_a_close_is_delivered_or_refused() {
    for _ in 0..200 {
        let hub = hub();
        let start = Barrier::new(3);
        let before = open(hub.subscribe().topic("a"));
        let publishing = || {
            start.wait();
            publish_until_closed(&hub)
        };
        thread::scope(|threads| {
            let reading = threads.spawn(|| read(before));
            let publishers = [threads.spawn(publishing), threads.spawn(publishing)];
            start.wait();
            hub.close();
            let accepted: usize = publishers.into_iter().map(|one| one.join().unwrap()).sum();
            let (read, ended) = reading.join().unwrap();
            assert_eq!((read.len(), ended), (accepted, DisconnectReason::Closed));
        });
    }
}

/// Subscribes twenty times, and reads each subscription until the hub is closed. Returns the number
/// of subscriptions that were opened.
fn subscribe_until_closed(hub: &Hub<String>) -> usize {
    let subscribe = |_: &usize| match try_open(hub.subscribe().topic("a")) {
        Ok(subscription) => read_after(hub, subscription) == DisconnectReason::Closed,
        Err(error) => {
            assert_eq!(error.kind(), &SubscribeErrorKind::Closed);
            false
        }
    };
    (0..20).filter(subscribe).count()
}

#[test]
fn acceptance_03_a_subscription_during_a_close_ends_or_is_refused() {
    let mut opened = 0;
    for _ in 0..200 {
        let hub = hub();
        let start = Barrier::new(3);
        let subscribing = || {
            start.wait();
            subscribe_until_closed(&hub)
        };
        thread::scope(|threads| {
            let subscribers = [threads.spawn(subscribing), threads.spawn(subscribing)];
            start.wait();
            hub.close();
            opened += subscribers.into_iter().map(|one| one.join().unwrap()).sum::<usize>();
        });
        assert_eq!(hub.stats().subscribers, 0);
    }
    assert!(opened > 0, "no subscription was opened before the close");
}

/// Reads a subscription until the hub is closed. Asserts that the subscription got no event, and
/// that the hub opens no new subscription.
fn read_after(hub: &Hub<String>, subscription: Subscription<String>) -> DisconnectReason {
    let (read, ended) = read(subscription);
    assert_eq!(ended, DisconnectReason::Closed);
    assert!(read.is_empty() && try_open(hub.subscribe()).is_err());
    ended
}

#[test]
fn acceptance_04_a_hub_delivers_without_a_background_task() {
    let hub = hub();
    let mut subscription = open(hub.subscribe().topic("a"));
    for at in 0..10_000 {
        hub.to("a").publish(at.to_string()).unwrap();
    }
    let subscriptions: Vec<_> = (0..100).map(|_| open(hub.subscribe())).collect();
    assert_eq!(hub.stats().subscribers, 1 + subscriptions.len());
    for at in 0..10_000 {
        let next = subscription.next().now_or_never().expect("the event is ready at once");
        assert_eq!(number(next.unwrap()), at);
    }
}

#[test]
fn acceptance_05_a_subscription_gets_all_later_events_once_and_in_order() {
    const EVENTS: usize = 20_000;
    let hub = hub();
    let published = AtomicUsize::new(0);
    thread::scope(|threads| {
        threads.spawn(|| {
            for at in 0..EVENTS {
                hub.to("a").publish(at.to_string()).unwrap();
                published.store(at + 1, Ordering::SeqCst);
            }
            hub.close();
        });
        for _ in 0..3 {
            threads.spawn(|| {
                loop {
                    let before = published.load(Ordering::SeqCst);
                    let Ok(subscription) = try_open(hub.subscribe().topic("a")) else { break };
                    let after = published.load(Ordering::SeqCst);
                    let (read, _) = read(subscription);
                    let first = read.first().copied().unwrap_or(EVENTS);
                    // The publisher first publishes an event and then counts it. So at each load of
                    // `published`, one published event may not be counted yet.
                    assert!(
                        (before..=after + 1).contains(&first),
                        "the first event is {first}, the counts were {before} and {after}"
                    );
                    assert!(read.into_iter().eq(first..EVENTS));
                }
            });
        }
    });
}

#[test]
fn acceptance_17_as_many_concurrent_subscriptions_succeed_as_the_limit_allows() {
    const LIMIT: usize = 400;
    const THREADS: usize = 8;
    let limits = Limits { subscribers_max: LIMIT, ..Limits::default() };
    let hub = Hub::<String>::builder().text().limits(limits).build().unwrap();
    for _ in 0..10 {
        let start = Barrier::new(THREADS);
        let tried: Vec<_> = thread::scope(|threads| {
            let running: Vec<_> = (0..THREADS)
                .map(|_| {
                    threads.spawn(|| {
                        start.wait();
                        let each = 2 * LIMIT / THREADS;
                        (0..each).map(|_| try_open(hub.subscribe())).collect::<Vec<_>>()
                    })
                })
                .collect();
            running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = tried.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (LIMIT, LIMIT));
        let error = OpenError::Full { subscribers_max: LIMIT };
        let full = SubscribeErrorKind::AtLimit(error);
        assert!(lost.into_iter().all(|lost| *lost.unwrap_err().kind() == full));
        drop(won);
        assert_eq!(hub.stats().subscribers, 0);
    }
}
