//! Tests of repeated publishes. The hub recognizes a repeated publish by the id that the publisher
//! has given the event, or by the idempotency key.

use std::time::Duration;

use downlink::hub::{Clock, Confirmed, Hub, Publish, PublishError, Start};

use super::{build, certain, hub, keeping, open, say, seen};

fn publish(publish: Publish<String>, data: &str) -> Result<Confirmed, PublishError> {
    certain(publish.publish(data.to_owned()))
}

fn with_id(hub: &Hub<String>, id: &str, data: &str) -> Result<Confirmed, PublishError> {
    publish(hub.to("a").id(id), data)
}

fn with_key(
    hub: &Hub<String>,
    credential: &str,
    key: &str,
    data: &str,
) -> Result<Confirmed, PublishError> {
    publish(hub.to("a").idempotency_key(credential, key), data)
}

#[test]
fn the_event_id_that_the_publisher_chose_is_sent_to_clients() {
    let hub = hub();
    let receipt = with_id(&hub, "order/7", "x").unwrap();
    assert_eq!(receipt.id().as_str(), "order/7");
    let mut subscription = open(hub.subscribe().topic("a").start(Start::Earliest));
    use futures_util::{FutureExt, StreamExt};
    let Some(Some(downlink::Delivery::Event(event))) = subscription.next().now_or_never() else {
        panic!("the subscription has no event");
    };
    assert_eq!(event.id().as_str(), "order/7");
    assert_eq!(event.frame().as_bytes(), b"id: order/7\ndata: x\n\n");
}

#[test]
fn a_repeated_publish_with_the_same_id_and_content_returns_the_first_receipt() {
    let hub = hub();
    let mut subscription = open(hub.subscribe().topic("a"));
    let first = with_id(&hub, "x", "same").unwrap();
    let again = with_id(&hub, "x", "same").unwrap();
    assert!(!first.is_repeated() && again.is_repeated());
    assert_eq!(
        (first.id(), first.offset(), first.matched()),
        (again.id(), again.offset(), again.matched())
    );
    assert_eq!(seen(&mut subscription), ["same"]);
    assert_eq!(hub.stats().published, 1);
}

#[test]
fn a_publish_with_the_same_id_and_other_content_is_an_error() {
    let hub = hub();
    with_id(&hub, "x", "one").unwrap();
    assert!(matches!(with_id(&hub, "x", "two"), Err(PublishError::IdTaken)));
    let to_b = publish(hub.to("b").id("x"), "one");
    assert!(matches!(to_b, Err(PublishError::IdTaken)), "the address is part of the content");
    let typed = publish(hub.to("a").id("x").event("t"), "one");
    assert!(matches!(typed, Err(PublishError::IdTaken)), "the type is part of the content");
    let timed = publish(hub.to("a").id("x").retry(Duration::from_secs(1)), "one");
    assert!(
        matches!(timed, Err(PublishError::IdTaken)),
        "the reconnection time is part of the content"
    );
    let last = publish(hub.to("a").id("x").last(), "one");
    assert!(matches!(last, Err(PublishError::IdTaken)), "the flag `last` is part of the content");
    assert_eq!(hub.stats().events, 1);
}

#[test]
fn a_repeated_finish_with_the_same_key_returns_the_first_receipt() {
    let hub = hub();
    say(&hub, "a", "one");
    let finish = |topic: &str| certain(hub.to(topic).idempotency_key("", "end").finish());
    let first = finish("a").unwrap();
    let again = finish("a").unwrap();
    assert!(!first.is_repeated() && again.is_repeated());
    assert_eq!((first.id(), first.offset()), (again.id(), again.offset()));
    assert!(
        matches!(finish("b"), Err(PublishError::KeyReused)),
        "the topic is part of the content"
    );
    let event = publish(hub.to("a").idempotency_key("", "end").last(), "");
    assert!(matches!(event, Err(PublishError::KeyReused)), "an empty event is other content");
    assert!(matches!(certain(hub.finish("a")), Err(PublishError::Finished)));
    let to_client = certain(hub.to_client("alice").finish());
    assert!(matches!(to_client, Err(PublishError::LastNeedsTopics)));
}

#[test]
fn an_id_is_free_again_when_its_event_is_evicted() {
    let hub = keeping(1);
    with_id(&hub, "x", "one").unwrap();
    say(&hub, "a", "other");
    assert!(!with_id(&hub, "x", "two").unwrap().is_repeated());
}

#[test]
fn invalid_ids_are_errors() {
    let hub = hub();
    let longest = "x".repeat(128);
    assert!(with_id(&hub, &longest[1..], "1").is_ok());
    assert!(with_id(&hub, &longest, "2").is_ok());
    let ours = hub.cursor();
    for wrong in ["", "earliest", "a b", "é", "\u{7f}", "\n", ours.as_str(), &format!("{longest}x")]
    {
        let error = with_id(&hub, wrong, "x").unwrap_err();
        assert!(matches!(&error, PublishError::InvalidId { id } if id == wrong), "{wrong:?}");
    }
}

#[test]
fn a_repeated_publish_with_the_same_key_publishes_nothing() {
    let hub = hub();
    let mut subscription = open(hub.subscribe().topic("a"));
    let first = with_key(&hub, "", "k", "same").unwrap();
    let again = with_key(&hub, "", "k", "same").unwrap();
    assert_eq!((again.id(), again.is_repeated()), (first.id(), true));
    assert!(matches!(with_key(&hub, "", "k", "other"), Err(PublishError::KeyReused)));
    assert_eq!(seen(&mut subscription), ["same"]);
}

#[test]
fn publishers_with_different_credentials_may_use_the_same_key() {
    let hub = hub();
    with_key(&hub, "alice", "k", "hers").unwrap();
    assert!(!with_key(&hub, "bob", "k", "his").unwrap().is_repeated());
}

#[test]
fn a_key_is_free_again_after_ten_minutes() {
    let clock = Clock::manual();
    let hub = build(|builder| builder.clock(clock.clone()));
    with_key(&hub, "", "k", "one").unwrap();
    clock.advance(Duration::from_millis(10 * 60_000 - 1));
    assert!(with_key(&hub, "", "k", "two").is_err());
    clock.advance(Duration::from_millis(1));
    assert!(!with_key(&hub, "", "k", "two").unwrap().is_repeated());
}

#[test]
fn a_key_is_kept_longer_than_its_event() {
    let hub = keeping(1);
    with_key(&hub, "", "k", "one").unwrap();
    say(&hub, "a", "other");
    assert!(with_key(&hub, "", "k", "one").unwrap().is_repeated());
}

#[test]
fn a_key_has_1_to_255_bytes() {
    let hub = hub();
    for bytes in [1, 254, 255] {
        assert!(with_key(&hub, "", &"k".repeat(bytes), "x").is_ok(), "{bytes}");
    }
    for bytes in [0, 256] {
        let error = with_key(&hub, "", &"k".repeat(bytes), "x").unwrap_err();
        assert!(matches!(error, PublishError::InvalidKey { bytes: found } if found == bytes));
    }
}

#[test]
fn a_credential_has_at_most_256_bytes() {
    let hub = hub();
    for bytes in [0, 255, 256] {
        assert!(with_key(&hub, &"c".repeat(bytes), "k", "x").is_ok(), "{bytes}");
    }
    let error = with_key(&hub, &"c".repeat(257), "k", "x").unwrap_err();
    assert!(matches!(error, PublishError::InvalidCredential { bytes: 257 }));
    assert_eq!(
        error.to_string(),
        "the credential of an idempotency key has 257 bytes, at most 256 are allowed"
    );
    assert_eq!(error.to_problem().status(), 400);
}

#[test]
fn a_receipt_of_a_hub_without_a_store_is_durable_at_once() {
    use futures_util::FutureExt;
    let receipt = hub().to("a").publish("x".to_owned()).unwrap();
    let certain = receipt.durable().now_or_never().unwrap().unwrap();
    assert_eq!(receipt.id(), Some(certain.id()));
    assert_eq!(receipt.offset(), Some(certain.offset()));
    assert_eq!((receipt.matched(), receipt.is_repeated()), (Some(0), Some(false)));
}
