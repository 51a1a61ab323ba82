//! The memory of a subscription, counted by the allocator. A change has to justify higher numbers.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "counts more than is asked for here")]
#[path = "../../../downlink-proto/tests/it/allocation.rs"]
mod allocation;

use std::task::{Context, Poll, Waker};

use allocation::allocations_of;
use downlink::{
    Frame, Subscription,
    adapters::{AsPublished, SubscriptionFrames},
    http::{AnyError, SseBody},
    hub::{Hub, Offset},
};
use futures_util::FutureExt;
use futures_util::StreamExt;

/// The number of subscriptions counted together. Lists grow by doubling, so their unused capacity
/// counts too.
const SUBSCRIPTIONS: usize = 10_000;

/// A waiting subscription of one topic and an inbox.
fn waiting(hub: &Hub<String>, topic: &str, client: &str) -> Subscription<String> {
    let opened = hub.subscribe().topic(topic).client(client).open();
    let mut subscription = opened.now_or_never().unwrap().unwrap();
    assert!(poll(&mut subscription).is_none());
    subscription
}

/// The offset of the next event, if there is one.
fn poll(subscription: &mut Subscription<String>) -> Option<Offset> {
    match subscription.poll_next_unpin(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(downlink::Delivery::Event(event))) => Some(event.offset()),
        Poll::Ready(other) => panic!("{other:?}"),
        Poll::Pending => None,
    }
}

/// The body of an idle stream and its state in the log together take less than 550 bytes. With
/// twice as much, the subscription would be larger than its connection.
#[test]
fn an_idle_subscription_with_an_inbox_stays_small() {
    let hub = Hub::<String>::text();
    let mut subscriptions = Vec::with_capacity(SUBSCRIPTIONS);
    let ((), used) = allocations_of(|| {
        for number in 0..SUBSCRIPTIONS {
            subscriptions.push(waiting(&hub, "news", &format!("client-{number}")));
        }
    });
    let itself = size_of::<SubscriptionFrames<String, AsPublished>>();
    let behind = used.live / SUBSCRIPTIONS as isize;
    assert!(itself <= 168, "{itself}");
    let body = size_of::<SseBody<SubscriptionFrames<String, AsPublished>>>();
    println!("an idle subscription: {itself} bytes, its body {body}, and {behind} behind it");
    assert!(body <= 208, "{body}");
    assert!(behind <= 366, "{behind}");
}

/// A subscription that resumes from a cursor is no larger than a new one.
#[test]
fn a_subscription_that_came_back_holds_no_more() {
    let hub = Hub::<String>::text();
    let cursor = hub.cursor();
    let others = ["alice", "bob"].map(|client| waiting(&hub, "news", client));
    // From here on, the lists have capacity for one more.
    drop(waiting(&hub, "news", "carol"));
    let (subscription, anew) = allocations_of(|| waiting(&hub, "news", "carol"));
    drop(subscription);
    let (_subscription, back) = allocations_of(|| {
        let opened = hub.subscribe().topic("news").client("carol").resume(&cursor).open();
        let mut subscription = opened.now_or_never().unwrap().unwrap();
        assert!(poll(&mut subscription).is_none());
        subscription
    });
    assert_eq!(back.live, anew.live);
    drop(others);
}

/// The cost of each delivery to a connection: a wake-up, an event, nothing more to read, waiting
/// again.
#[test]
fn a_delivery_to_a_waiting_subscription_allocates_nothing() {
    let hub = Hub::<String>::text();
    let mut subscriptions = ["alice", "bob"].map(|client| waiting(&hub, "news", client));
    for to in [hub.to("news"), hub.to_everyone(), hub.to("news").and_to_everyone()] {
        to.publish("hello".to_owned()).unwrap();
        for subscription in &mut subscriptions {
            let ((), used) = allocations_of(|| {
                assert!(poll(subscription).is_some());
                assert!(poll(subscription).is_none());
            });
            assert_eq!(used.count, 0);
        }
    }
    // Two topics have a new event at the same time, and both are delivered in order.
    hub.to("news").publish("one".to_owned()).unwrap();
    hub.to_client("alice").publish("two".to_owned()).unwrap();
    let [alice, _] = &mut subscriptions;
    let (seen, used) = allocations_of(|| [poll(alice), poll(alice), poll(alice)]);
    let offsets = seen.map(|offset| offset.map(Offset::get));
    assert!(matches!(offsets, [Some(one), Some(two), None] if one < two), "{offsets:?}");
    assert_eq!(used.count, 0);
}

/// The allocations of one publish beside this many topics with one subscription each.
fn publish_beside(topics: usize) -> usize {
    let hub = Hub::<String>::text();
    let others: Vec<_> = (0..topics)
        .map(|number| waiting(&hub, &format!("other/{number}"), &format!("client-{number}")))
        .collect();
    let mut reader = waiting(&hub, "news", "alice");
    let publish = || hub.to("news").publish("hello".to_owned()).unwrap();
    publish();
    let (_, used) = allocations_of(publish);
    assert!(poll(&mut reader).is_some());
    drop(others);
    used.count
}

/// The log's own tests count the locks and wake-ups.
#[test]
fn a_publish_allocates_the_same_beside_few_and_many_topics() {
    let few = publish_beside(100);
    println!("a publish: {few} allocations");
    assert_eq!(publish_beside(20_000), few);
}

/// An error is an item of a source, and costs the frames of a stream nothing.
#[test]
fn a_polled_frame_is_no_larger_for_the_error_in_its_place() {
    let with_error = size_of::<Poll<Option<Result<Frame, AnyError>>>>();
    assert_eq!(with_error, size_of::<Poll<Option<Frame>>>());
}
