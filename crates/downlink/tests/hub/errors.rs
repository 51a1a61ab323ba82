//! Tests of the errors of the hub. They check each variant and its message.

use std::error::Error;
use std::time::Duration;

use downlink::hub::{
    BATCH_EVENTS_MAX, Batch, BatchError, Hub, HubError, HubRetention, Limits, PublishError,
    Retention, SubscribeErrorKind,
};

use super::{hub, refused, say};

/// Asserts the message and the cause of an error. A message begins with a lower-case letter and has
/// no full stop. The message does not repeat the cause, because `source` returns the cause.
fn check(error: &dyn Error, says: &str, cause: Option<&str>) {
    assert_eq!(error.to_string(), says);
    let first = says.chars().next().unwrap();
    assert!(!first.is_uppercase() && !says.ends_with('.'), "{says}");
    assert_eq!(error.source().map(ToString::to_string).as_deref(), cause);
}

fn publish_error(result: Result<downlink::hub::Receipt, PublishError>) -> PublishError {
    result.unwrap_err()
}

#[test]
fn an_invalid_topic_or_client_id_is_an_error() {
    let hub = hub();
    let topic = publish_error(hub.to("a//b").publish(String::new()));
    assert!(matches!(topic, PublishError::InvalidTopic { .. }));
    check(&topic, "\"a//b\" is not a topic", topic.source().map(ToString::to_string).as_deref());
    assert!(topic.source().is_some());
    let client = publish_error(hub.to_client("").publish(String::new()));
    assert!(matches!(client, PublishError::InvalidClient { .. }));
    check(&client, "\"\" is not a client id", Some("the name is empty"));
}

#[test]
fn an_invalid_or_reserved_type_or_id_is_an_error() {
    let hub = hub();
    let broken = publish_error(hub.to("a").event("x\ny").publish(String::new()));
    assert!(matches!(broken, PublishError::InvalidType(_)));
    assert_eq!(broken.to_string(), "the event type cannot be sent");
    assert!(broken.source().is_some());
    for reserved in ["open", "error", "downlink.", "downlink.gap"] {
        let error = publish_error(hub.to("a").event(reserved).publish(String::new()));
        assert!(matches!(error, PublishError::ReservedType { .. }), "{reserved}");
        let says = error.to_string();
        assert!(says.starts_with(&format!("the event type {reserved:?} is reserved")), "{says}");
    }
    for free in ["opened", "errors", "downlink", "message", ""] {
        assert!(hub.to("a").event(free).publish(String::new()).is_ok(), "{free}");
    }
    let id = publish_error(hub.to("a").id("\u{1b}[31m").publish(String::new()));
    let says = "\"\\u{1b}[31m\" is not an event id: use 1 to 128 visible ASCII characters, but not \
                `earliest` and not the form of the hub's own ids";
    check(&id, says, None);
}

#[test]
fn types_and_ids_from_an_encoder_are_checked_too() {
    use downlink::{Event, EventId, EventType};
    let hub = Hub::<&str>::with(|value: &&str| {
        let event = Event::new("");
        Ok::<_, downlink::InvalidField>(match *value {
            "type" => event.event(EventType::from_static("downlink.gap")),
            "id" => event.id(EventId::from_static("")),
            "own" => event.event(EventType::from_static("own")).id(EventId::from_static("own/1")),
            other => event.event(EventType::new(other)?),
        })
    });
    assert!(matches!(hub.publish("type"), Err(PublishError::ReservedType { .. })));
    assert!(matches!(hub.publish("id"), Err(PublishError::InvalidId { .. })));
    let failed = hub.publish("\n").unwrap_err();
    let PublishError::Encode(cause) = &failed else { panic!("{failed:?}") };
    assert_eq!(cause.to_string(), "the value could not be encoded");
    let field = cause.source().unwrap().to_string();
    check(&failed, "the value could not be encoded", Some(&field));
    let own = hub.to("a").event("mine").publish("own").unwrap();
    assert_eq!(own.id().unwrap().as_str(), "own/1");
}

#[test]
fn an_event_beyond_a_limit_is_an_error() {
    let limits = Limits { topics_max: 1, ..Limits::default() };
    let hub = Hub::<String>::builder().text().limits(limits).event_bytes_max(60).build().unwrap();
    let large = publish_error(hub.to("a").id("x").publish("x".repeat(60)));
    check(&large, "the event has 74 bytes, at most 60 are allowed", None);
    say(&hub, "a", "x");
    let topics = publish_error(hub.to("b").publish(String::new()));
    check(&topics, "too many topics have events or are finished: the limit is 1", None);
    let many = (0..=1_000).fold(hub.to("a"), |publish, at| publish.and_to(at.to_string()));
    check(
        &publish_error(many.publish(String::new())),
        "the event has too many topics and clients: the limit is 1000",
        None,
    );
    let key = publish_error(hub.to("a").idempotency_key("", "").publish(String::new()));
    check(&key, "an idempotency key has 1 to 255 bytes, but this one has 0", None);
}

#[test]
fn a_publish_that_conflicts_with_earlier_calls_is_an_error() {
    let hub = hub();
    hub.to("a").id("x").idempotency_key("", "k").publish("1".into()).unwrap();
    let id = publish_error(hub.to("a").id("x").publish("2".into()));
    check(&id, "the id belongs to an event with other content", None);
    let key = publish_error(hub.to("a").idempotency_key("", "k").publish("2".into()));
    check(&key, "the idempotency key was used for an event with other content", None);
    hub.finish("a").unwrap();
    check(
        &publish_error(hub.finish("a")),
        "a topic of the event is finished, so it accepts no more events",
        None,
    );
    hub.close();
    check(&publish_error(hub.publish(String::new())), "the hub is closed", None);
}

#[test]
fn if_a_call_has_several_errors_the_first_is_reported() {
    let error = publish_error(hub().to("").event("open").id("").publish(String::new()));
    assert!(matches!(error, PublishError::InvalidTopic { .. }));
    let error = refused(hub().subscribe().topic("a").client("").topic("*"));
    assert!(matches!(error.kind(), SubscribeErrorKind::InvalidClient { .. }));
}

#[test]
fn errors_escape_and_shorten_text_of_clients() {
    let long = format!("\n{}", "x".repeat(10_000));
    let error = publish_error(hub().to(&long).publish(String::new()));
    let says = format!("\"\\n{}\"… is not a topic", "x".repeat(39));
    assert_eq!(error.to_string(), says);
    assert_eq!(refused(hub().subscribe().client(&long)).to_string().len(), says.len() + 4);
}

#[test]
fn a_batch_with_an_invalid_event_or_too_many_events_is_an_error() {
    let hub = hub();
    let mut batch = Batch::new(&hub);
    batch.add(hub.to("a"), String::new());
    batch.add(hub.to(""), String::new());
    let event = batch.publish().unwrap_err();
    check(&event, "event 2 of the batch cannot be published", Some("\"\" is not a topic"));
    let mut batch = Batch::new(&hub);
    (0..=BATCH_EVENTS_MAX).for_each(|_| batch.add(hub.to("a"), String::new()));
    let many = batch.publish().unwrap_err();
    assert!(matches!(many, BatchError::TooMany { .. }));
    check(&many, "the batch has 10001 events, at most 10000 are allowed", None);
}

#[test]
fn a_subscription_that_is_invalid_or_beyond_a_limit_is_an_error() {
    let limits = Limits {
        subscribers_max: 2,
        subscribers_per_client_max: 1,
        selectors_max: 1,
        subscribed_names_max: 1,
        patterns_max: 1,
        ..Limits::default()
    };
    let hub = Hub::<String>::builder().text().limits(limits).build().unwrap();
    check(
        &refused(hub.subscribe().topics(["a", "b"])),
        "the subscription names 2 topics and patterns: the limit is 1",
        None,
    );
    let selector = refused(hub.subscribe().pattern("a*"));
    assert!(matches!(selector.kind(), SubscribeErrorKind::InvalidSelector { .. }));
    assert_eq!(selector.to_string(), "\"a*\" is neither a topic nor a pattern");
    assert!(selector.source().is_some());
    let client = refused(hub.subscribe().client("\t"));
    assert_eq!(client.to_string(), "\"\\t\" is not a client id");
    assert!(client.source().is_some());
    check(
        &refused(hub.subscribe().filter(|_| true)),
        "a filter needs the hub to keep values: build it with keep_values",
        None,
    );
    let _first = super::open(hub.subscribe().client("alice"));
    check(
        &refused(hub.subscribe().client("alice")),
        "the client has too many open subscriptions: the limit is 1",
        None,
    );
    check(
        &refused(hub.subscribe().topic("b")),
        "all open subscriptions together name too many topics and clients: the limit is 1",
        None,
    );
    let second = super::open(hub.subscribe().pattern("a/*"));
    drop(second);
    let _second = super::open(hub.subscribe().pattern("b/*"));
    check(&refused(hub.subscribe()), "too many subscriptions are open: the limit is 2", None);
    hub.drain();
    hub.close();
    check(&refused(hub.subscribe()), "the hub is closed", None);
}

#[test]
fn a_subscription_to_a_finished_topic_or_a_draining_hub_is_an_error() {
    let hub = hub();
    hub.finish("a").unwrap();
    let read = refused(hub.subscribe().topic("a"));
    check(&read, "every topic is finished, and the client has read all events", None);
    hub.drain();
    check(&refused(hub.subscribe()), "the hub is draining and accepts no new subscriptions", None);
}

#[test]
fn an_invalid_setting_of_a_hub_is_an_error() {
    let text = || Hub::<String>::builder().text();
    let rules = HubRetention::default;
    let without = Hub::<String>::builder().build().unwrap_err();
    assert_eq!(without, HubError::NoEncoding);
    let says = "no encoding was chosen: call json, text or encode_with on the builder";
    check(&without, says, None);
    let none = Retention { events_max: 0, ..Retention::DEFAULT };
    let one = Retention { events_max: 1, ..Retention::DEFAULT };
    let selector = text().retention(rules().topics("a*", one)).build().unwrap_err();
    assert!(matches!(selector, HubError::InvalidSelector { .. }));
    assert_eq!(selector.to_string(), "\"a*\" is neither a topic nor a pattern");
    assert!(selector.source().is_some());
    let builders = [
        text().retention(none),
        text().retention(rules().topics("a", none)),
        text().retention(rules().inboxes(none)),
        text().retention(rules().everyone(none)),
    ];
    for builder in builders {
        let error = builder.build().unwrap_err();
        assert_eq!(error, HubError::NoEvents);
        check(&error, "a retention rule keeps no event: events_max must be at least 1", None);
    }
    assert!(text().retention(one).build().is_ok());
    let limits = Limits { bytes_max: 100, ..Limits::default() };
    assert!(text().limits(limits).event_bytes_max(100).build().is_ok());
    let large = text().limits(limits).event_bytes_max(101).build().unwrap_err();
    check(
        &large,
        "an event may have 101 bytes, but the whole hub only 100: lower event_bytes_max, or raise bytes_max of the limits",
        None,
    );
    let ceiling = 32 << 20;
    assert!(text().event_bytes_max(ceiling).build().is_ok());
    let above = text().event_bytes_max(ceiling + 1).build().unwrap_err();
    let said = "an event may have 33554433 bytes, but at most 33554432 are possible: lower event_bytes_max";
    check(&above, said, None);
    let second = Duration::from_secs(1);
    assert!(text().drain_spread(second..=second).build().is_ok());
    let empty = text().drain_spread(second..=Duration::ZERO).build().unwrap_err();
    assert_eq!(empty, HubError::EmptySpread);
    check(&empty, "the end of the range drain_spread is before its start", None);
}
