//! Tests of filters, which are functions that decide which values a subscription gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use downlink::Event;
use downlink::hub::{DisconnectReason, Hub, Start, SubscribeErrorKind};
use futures_util::StreamExt;

use super::{build, hub, open, refused, say, seen};

fn numbers() -> downlink::hub::Hub<u32> {
    let encode = |value: &u32| Ok::<_, std::convert::Infallible>(Event::new(value.to_string()));
    Hub::builder().encode_with(encode).keep_values(|_| size_of::<u32>()).build().unwrap()
}

#[test]
fn a_filter_gets_replayed_and_live_values() {
    let hub = numbers();
    for value in 0..4 {
        hub.to("n").publish(value).unwrap();
    }
    let even = |value: &u32| value.is_multiple_of(2);
    let mut subscription = open(hub.subscribe().topic("n").start(Start::Earliest).filter(even));
    assert_eq!(seen(&mut subscription), ["0", "2"]);
    for value in 4..7 {
        hub.to("n").publish(value).unwrap();
    }
    assert_eq!(seen(&mut subscription), ["4", "6"]);
}

#[test]
fn a_filter_may_have_state() {
    let hub = numbers();
    let mut last = None;
    let changes = move |value: &u32| last.replace(*value) != Some(*value);
    let mut subscription = open(hub.subscribe().topic("n").filter(changes));
    for value in [1, 1, 2, 2, 1] {
        hub.to("n").publish(value).unwrap();
    }
    assert_eq!(seen(&mut subscription), ["1", "2", "1"]);
}

#[test]
fn a_panic_of_a_filter_ends_only_its_subscription() {
    let hub = numbers();
    let mut panicking = open(hub.subscribe().topic("n").filter(|value| {
        assert!(*value < 2, "the filter's bug");
        true
    }));
    let mut other = open(hub.subscribe().topic("n").filter(|_| true));
    for value in 0..4 {
        hub.to("n").publish(value).unwrap();
    }
    assert_eq!(seen(&mut panicking), ["0", "1", "end filter_panicked"]);
    assert_eq!(panicking.ended(), Some(DisconnectReason::FilterPanicked));
    assert_eq!(
        seen(&mut panicking),
        ["end filter_panicked"],
        "an ended subscription must stay ended"
    );
    assert_eq!(seen(&mut other), ["0", "1", "2", "3"]);
}

/// The first call of the filter publishes six more events, and then refuses the event that it was
/// called for. The subscription reads these six events as one batch.
#[test]
fn events_that_arrive_during_a_call_of_the_filter_are_delivered() {
    let hub = numbers();
    let (publisher, mut is_first) = (hub.clone(), true);
    let filter = move |_: &u32| {
        let refuses = std::mem::take(&mut is_first);
        for value in if refuses { 1..7 } else { 0..0 } {
            publisher.to("n").publish(value).unwrap();
        }
        !refuses
    };
    let mut subscription = open(hub.subscribe().topic("n").filter(filter));
    hub.to("n").publish(0).unwrap();
    assert_eq!(seen(&mut subscription), ["1", "2", "3", "4", "5", "6"]);
}

/// One poll skips at most 256 events that the filter refuses. In this test, the 256th event is the
/// newest one, and the filter panics when it gets this event.
#[test]
fn a_filter_that_panics_at_the_last_event_of_a_poll_ends_its_subscription() {
    let hub = numbers();
    let publisher = hub.clone();
    let filter = move |value: &u32| {
        assert!(*value < 255, "the filter's bug");
        publisher.to("n").publish(value + 1).unwrap();
        false
    };
    let mut subscription = open(hub.subscribe().topic("n").filter(filter));
    hub.to("n").publish(0).unwrap();
    assert!(seen(&mut subscription).is_empty(), "the first poll must end after 256 events");
    assert_eq!(seen(&mut subscription), ["end filter_panicked"]);
}

#[test]
fn a_filter_is_refused_if_the_hub_keeps_no_values() {
    let error = refused(hub().subscribe().filter(|_| true));
    assert_eq!(error.kind(), &SubscribeErrorKind::FilterNeedsValues);
}

#[test]
fn an_event_has_its_value_if_the_hub_keeps_values() {
    use downlink::hub::Delivery;
    use futures_util::{FutureExt, StreamExt};
    let hub = numbers();
    let mut subscription = open(hub.subscribe().topic("n"));
    hub.to("n").publish(7).unwrap();
    let Some(Some(Delivery::Event(event))) = subscription.next().now_or_never() else {
        panic!("the subscription has no event");
    };
    assert_eq!(event.value(), Some(&7));
}

#[test]
fn kept_values_count_as_bytes_of_the_hub() {
    let plain = build(|builder| builder);
    let keeping = build(|builder| builder.keep_values(|_| 10_000));
    say(&plain, "a", "x");
    say(&keeping, "a", "x");
    assert_eq!(keeping.stats().bytes, plain.stats().bytes + 10_000);
}

// A filter that refuses many events must not keep a thread busy for long. So one poll skips at most
// 256 events, and two polls are needed to skip 300 events.
#[test]
fn skipping_many_events_does_not_block_other_tasks() {
    struct Woken(AtomicUsize);
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let hub = numbers();
    for value in 0..300 {
        hub.to("n").publish(value).unwrap();
    }
    let last = |value: &u32| *value == 299;
    let mut subscription = open(hub.subscribe().topic("n").start(Start::Earliest).filter(last));
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let waker = Arc::clone(&woken).into();
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(subscription.poll_next_unpin(&mut cx).is_pending());
    assert_eq!(
        woken.0.load(Ordering::SeqCst),
        1,
        "the subscription must wake its task to continue"
    );
    assert!(subscription.poll_next_unpin(&mut cx).is_ready());
}
