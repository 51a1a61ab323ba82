//! Tests of how subscriptions end: when the app disconnects their client, and when the hub drains
//! or closes. A drain ends all subscriptions, and their clients may continue at another server.

use std::time::Duration;

use downlink::hub::{DisconnectReason, PublishError, SubscribeErrorKind};
use futures_util::{FutureExt, StreamExt};

use super::{build, hub, open, refused, say, seen};

#[test]
fn disconnect_ends_all_connections_of_a_client() {
    let hub = hub();
    let mut phone = open(hub.subscribe().client("alice"));
    let mut laptop = open(hub.subscribe().client("alice").topic("a"));
    let mut bob = open(hub.subscribe().client("bob").topic("a"));
    say(&hub, "a", "unread");
    assert_eq!(hub.disconnect("alice"), 2);
    assert_eq!(seen(&mut phone), ["end disconnected"]);
    assert_eq!(seen(&mut laptop), ["end disconnected"], "the unread event must not be delivered");
    assert_eq!(seen(&mut bob), ["unread"]);
    assert_eq!(hub.disconnect("nobody"), 0);
    assert_eq!(hub.disconnect("\n"), 0);
}

#[test]
fn a_disconnected_client_may_reconnect() {
    let hub = hub();
    let first = open(hub.subscribe().client("alice"));
    hub.disconnect("alice");
    drop(first);
    let mut again = open(hub.subscribe().client("alice"));
    assert!(seen(&mut again).is_empty());
}

#[test]
fn a_closed_hub_refuses_calls_and_ends_subscriptions_after_their_events() {
    let hub = hub();
    let mut subscription = open(hub.subscribe().topic("a"));
    say(&hub, "a", "1");
    hub.close();
    hub.close();
    assert!(matches!(hub.publish("x".to_owned()), Err(PublishError::Closed)));
    assert!(matches!(hub.finish("a"), Err(PublishError::Closed)));
    assert_eq!(refused(hub.subscribe()).kind(), &SubscribeErrorKind::Closed);
    assert_eq!(seen(&mut subscription), ["1", "end closed"]);
}

#[test]
fn a_drain_ends_subscriptions_and_publishing_continues() {
    let hub = hub();
    let mut subscription = open(hub.subscribe().topic("a"));
    say(&hub, "a", "1");
    assert!(!hub.is_draining());
    hub.drain();
    assert!(hub.is_draining());
    assert_eq!(refused(hub.subscribe()).kind(), &SubscribeErrorKind::Draining);
    assert_eq!(seen(&mut subscription), ["1", "end drained"]);
    assert_eq!(say(&hub, "a", "2").offset().get(), 2);
    assert_eq!(hub.stats().refused, 1);
    drop(subscription);
    assert_eq!(hub.stats().subscribers, 0);
}

#[test]
fn a_drain_at_a_signal_begins_when_the_signal_arrives() {
    let hub = hub();
    let (send, signal) = tokio::sync::oneshot::channel::<()>();
    let mut draining = Box::pin(hub.drain_on(signal));
    assert!(draining.as_mut().now_or_never().is_none());
    assert!(!hub.is_draining());
    send.send(()).unwrap();
    assert!(draining.as_mut().now_or_never().is_some());
    assert!(hub.is_draining());
}

#[test]
fn a_hub_does_not_drain_if_the_future_that_waits_for_the_signal_is_dropped() {
    let hub = hub();
    let (send, signal) = tokio::sync::oneshot::channel::<()>();
    drop(hub.drain_on(signal));
    assert!(send.is_closed() && !hub.is_draining());
}

#[test]
fn a_waiting_subscription_ends_when_the_hub_closes() {
    let hub = build(|builder| builder.gap_wait_max(Duration::ZERO));
    let mut subscription = open(hub.subscribe());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(subscription.poll_next_unpin(&mut cx).is_pending());
    hub.close();
    assert!(subscription.poll_next_unpin(&mut cx).is_ready());
    assert_eq!(subscription.ended(), Some(DisconnectReason::Closed));
}

#[test]
fn a_subscription_reports_the_first_of_several_reasons_to_end() {
    let hub = hub();
    let mut subscription = open(hub.subscribe().client("alice"));
    hub.drain();
    hub.close();
    assert_eq!(seen(&mut subscription), ["end drained"]);
}
