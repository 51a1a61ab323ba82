//! Tests of requirement 14: what happens if a function of the app panics while the hub calls it.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

use downlink::Event;
use downlink::hub::{Delivery, DisconnectReason, Hub, Subscription};
use futures_util::{FutureExt, StreamExt};

use super::open;

fn next(subscription: &mut Subscription<u32>) -> Option<String> {
    match subscription.next().now_or_never()?? {
        Delivery::Event(event) => Some(event.data().into_owned()),
        other => panic!("not an event: {other:?}"),
    }
}

#[test]
fn acceptance_14_a_panicking_filter_ends_only_its_subscription() {
    let encode = |value: &u32| Ok::<_, Infallible>(Event::new(value.to_string()));
    let hub = Hub::builder().encode_with(encode).keep_values(|_| 4).build().unwrap();
    let mut panicking = open(hub.subscribe().topic("n").filter(|_| panic!("the filter's bug")));
    let mut healthy = open(hub.subscribe().topic("n").filter(|_| true));
    hub.to("n").publish(1).unwrap();
    assert_eq!(next(&mut panicking), None);
    assert_eq!(panicking.ended(), Some(DisconnectReason::FilterPanicked));
    assert_eq!(next(&mut healthy).as_deref(), Some("1"));
    hub.to("n").publish(2).unwrap();
    assert_eq!(next(&mut healthy).as_deref(), Some("2"));
}

#[test]
fn acceptance_14_a_panic_of_the_serializer_affects_only_one_publish() {
    let encode = |value: &u32| {
        assert!(*value != 13, "the serializer's bug");
        Ok::<_, Infallible>(Event::new(value.to_string()))
    };
    let hub = Hub::builder().encode_with(encode).build().unwrap();
    let mut subscription = open(hub.subscribe().topic("n"));
    let unlucky = catch_unwind(AssertUnwindSafe(|| hub.to("n").publish(13)));
    assert!(unlucky.is_err(), "the publisher's own call must panic");
    let receipt = hub.to("n").publish(14).unwrap();
    assert_eq!(
        receipt.offset().unwrap().get(),
        1,
        "the publish that panicked must not take an offset"
    );
    assert_eq!(next(&mut subscription).as_deref(), Some("14"));
    assert_eq!(next(&mut subscription), None);
}
