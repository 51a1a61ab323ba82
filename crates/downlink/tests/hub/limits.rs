//! Tests of each limit, with values below the limit, at the limit and above the limit.

use downlink::hub::{
    ADDRESSES_MAX, Delivery, EVENT_BYTES_MAX, Hub, HubRetention, InvalidName, Limits, OpenError,
    PublishError, Retention, Start, SubscribeErrorKind,
};
use futures_util::{FutureExt, StreamExt};

use super::{build, hub, open, refused, say, seen, try_open};

fn at_limit(error: OpenError) -> SubscribeErrorKind {
    SubscribeErrorKind::AtLimit(error)
}

fn limited(set: impl FnOnce(&mut Limits)) -> Hub<String> {
    let mut limits = Limits::default();
    set(&mut limits);
    build(|builder| builder.limits(limits))
}

#[test]
fn an_event_has_a_limited_size() {
    let hub = build(|builder| builder.event_bytes_max(100));
    let publish = |bytes: usize| hub.to("a").id("x").publish("x".repeat(bytes));
    // The limit is for the whole frame. `rest` is the length of the frame without its data: a line
    // with the id, an empty `data` line, and a blank line.
    let rest = 14;
    assert!(publish(100 - rest - 1).is_ok());
    let hub = build(|builder| builder.event_bytes_max(100));
    let publish = |bytes: usize| hub.to("a").id("x").publish("x".repeat(bytes));
    assert!(publish(100 - rest).is_ok());
    let error = publish(100 - rest + 1).unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { bytes: 101, bytes_max: 100 }), "{error:?}");
}

#[test]
fn the_size_limit_assumes_the_longest_id_that_the_hub_may_give() {
    let hub = hub();
    let rest = "id: abcdefgh-18446744073709551615\ndata: \n\n".len();
    let publish = |bytes: usize| hub.to("a").publish("x".repeat(bytes));
    for bytes in [EVENT_BYTES_MAX - rest - 1, EVENT_BYTES_MAX - rest] {
        assert!(publish(bytes).is_ok());
    }
    assert!(matches!(publish(EVENT_BYTES_MAX - rest + 1), Err(PublishError::TooLarge { .. })));
}

// A hub may allow events of more than 16 MiB, which the client's decoder refuses by default. A
// subscription must be able to yield such events.
#[test]
fn a_subscription_yields_events_larger_than_the_default_limit_of_the_decoder() {
    let mib = 1 << 20;
    let large = Retention { bytes_max: 64 * mib, ..Retention::DEFAULT };
    let hub = build(|builder| builder.event_bytes_max(32 * mib).retention(large));
    let mut subscription = open(hub.subscribe().topic("a"));
    hub.to("a").publish("x".repeat(17 * mib)).unwrap();
    let Some(Some(Delivery::Event(event))) = subscription.next().now_or_never() else {
        panic!("the subscription has no event");
    };
    assert_eq!(event.data().len(), 17 * mib);
}

#[test]
fn an_event_has_a_limited_number_of_addresses() {
    let hub = hub();
    let to = |addresses: usize| {
        let publish =
            (1..addresses).fold(hub.to("0"), |publish, at| publish.and_to(at.to_string()));
        // An address that is given twice counts once.
        publish.and_to("0").publish(String::new())
    };
    assert!(to(ADDRESSES_MAX - 1).is_ok());
    assert!(to(ADDRESSES_MAX).is_ok());
    let error = to(ADDRESSES_MAX + 1).unwrap_err();
    assert!(matches!(error, PublishError::TooManyAddresses { addresses_max: ADDRESSES_MAX }));
}

#[test]
fn a_hub_has_a_limited_number_of_subscribers() {
    let hub = limited(|limits| limits.subscribers_max = 2);
    let first = open(hub.subscribe());
    let _second = open(hub.subscribe());
    let full = at_limit(OpenError::Full { subscribers_max: 2 });
    assert_eq!(refused(hub.subscribe()).kind(), &full);
    drop(first);
    assert!(try_open(hub.subscribe()).is_ok());
    assert_eq!(hub.stats().refused, 1);
}

#[test]
fn a_client_has_a_limited_number_of_subscriptions() {
    let hub = limited(|limits| limits.subscribers_per_client_max = 2);
    let first = open(hub.subscribe().client("alice"));
    let _second = open(hub.subscribe().client("alice"));
    let full = at_limit(OpenError::ClientFull { subscribers_per_client_max: 2 });
    assert_eq!(refused(hub.subscribe().client("alice")).kind(), &full);
    assert!(try_open(hub.subscribe().client("bob")).is_ok());
    drop(first);
    assert!(try_open(hub.subscribe().client("alice")).is_ok());
}

#[test]
fn a_subscription_has_a_limited_number_of_selectors() {
    let hub = limited(|limits| limits.selectors_max = 2);
    assert!(try_open(hub.subscribe().topic("a")).is_ok());
    assert!(try_open(hub.subscribe().topic("a").pattern("b/*")).is_ok());
    let error = refused(hub.subscribe().topics(["a", "b"]).pattern("c/*"));
    let many = at_limit(OpenError::TooManySelectors { selectors: 3, selectors_max: 2 });
    assert_eq!(error.kind(), &many);
}

#[test]
fn a_hub_has_a_limited_number_of_topics() {
    let hub = limited(|limits| limits.topics_max = 2);
    say(&hub, "a", "x");
    hub.to_client("alice").publish("x".to_owned()).unwrap();
    let error = hub.to("b").publish("x".to_owned()).unwrap_err();
    assert!(matches!(error, PublishError::TooManyTopics { topics_max: 2 }));
    say(&hub, "a", "an event to an existing topic");
    assert_eq!(hub.stats().topics, 2);
}

#[test]
fn names_in_subscriptions_do_not_count_as_topics_of_publishers() {
    let hub = limited(|limits| limits.topics_max = 2);
    let _readers = ["a", "b", "c"].map(|topic| open(hub.subscribe().topic(topic)));
    let _inbox = open(hub.subscribe().client("alice"));
    say(&hub, "d", "x");
    say(&hub, "e", "x");
    let error = hub.to("a").publish("x".to_owned()).unwrap_err();
    assert!(matches!(error, PublishError::TooManyTopics { topics_max: 2 }));
}

#[test]
fn the_number_of_subscribed_names_is_limited() {
    let hub = limited(|limits| limits.subscribed_names_max = 2);
    let first = open(hub.subscribe().topic("a"));
    let _inbox = open(hub.subscribe().client("alice"));
    let expected = at_limit(OpenError::TooManyNames { subscribed_names_max: 2 });
    assert_eq!(refused(hub.subscribe().topic("b")).kind(), &expected);
    assert_eq!(hub.stats().subscribers, 2, "the refused subscription must not be counted");
    assert!(try_open(hub.subscribe().topic("a").client("alice")).is_ok());
    assert!(try_open(hub.subscribe().pattern("b/*")).is_ok(), "a pattern is not a name");
    say(&hub, "b", "topics of publishers are not counted");
    drop(first);
    assert!(try_open(hub.subscribe().topic("b")).is_ok());
}

#[test]
fn the_number_of_subscribed_patterns_is_limited() {
    let hub = limited(|limits| limits.patterns_max = 2);
    let first = open(hub.subscribe().pattern("a/*"));
    let _second = open(hub.subscribe().pattern("b/*"));
    let expected = at_limit(OpenError::TooManyPatterns { patterns_max: 2 });
    assert_eq!(refused(hub.subscribe().pattern("c/*")).kind(), &expected);
    assert_eq!(hub.stats().subscribers, 2, "the refused subscription must not be counted");
    assert!(try_open(hub.subscribe().pattern("a/*")).is_ok());
    assert!(try_open(hub.subscribe().topic("c")).is_ok(), "a name is not a pattern");
    drop(first);
    assert!(try_open(hub.subscribe().pattern("c/*")).is_ok());
}

#[test]
fn a_pattern_has_a_limited_number_of_segments_and_placeholders() {
    let hub = hub();
    let invalid = |pattern: &str| {
        let error = refused(hub.subscribe().pattern(pattern));
        let SubscribeErrorKind::InvalidSelector { reason, .. } = error.kind() else {
            panic!("{error:?}")
        };
        *reason
    };
    for placeholders in [3, 4] {
        let pattern = vec!["{x}"; placeholders].join("/");
        assert!(try_open(hub.subscribe().pattern(pattern)).is_ok());
    }
    let expected = InvalidName::TooManyPlaceholders { placeholders: 5, placeholders_max: 4 };
    assert_eq!(invalid(&["{x}"; 5].join("/")), expected);
    for segments in [15, 16] {
        let pattern = format!("{}/*", vec!["x"; segments - 1].join("/"));
        assert!(try_open(hub.subscribe().pattern(pattern)).is_ok());
    }
    let expected = InvalidName::TooManySegments { segments: 17, segments_max: 16 };
    assert_eq!(invalid(&format!("{}/*", ["x"; 16].join("/"))), expected);
    assert!(
        try_open(hub.subscribe().topic(["x"; 100].join("/"))).is_ok(),
        "a topic may have more segments"
    );
}

#[test]
fn a_hub_has_a_limited_number_of_bytes() {
    let hub = build(|builder| {
        let limits = Limits { bytes_max: 10_000, ..Limits::default() };
        builder.limits(limits).event_bytes_max(5_000)
    });
    for at in 0..20 {
        say(&hub, &format!("t/{at}"), &"x".repeat(2_000));
        assert!(hub.stats().bytes <= 10_000);
    }
    assert!(hub.stats().events >= 3);
    assert!(
        hub.topic_overview("t/0").unwrap().events == 0,
        "the oldest event must be evicted first"
    );
    assert_eq!(hub.topic_overview("t/19").unwrap().events, 1);
}

#[test]
fn retention_rules_apply_to_matching_topics() {
    let one = Retention { events_max: 1, ..Retention::DEFAULT };
    let hub = build(|builder| {
        builder.retention(HubRetention::default().topics("one/*", one).inboxes(one).everyone(one))
    });
    for data in ["1", "2"] {
        say(&hub, "one/x", data);
        say(&hub, "other", data);
        hub.to_client("c").publish(data.to_owned()).unwrap();
        hub.publish(data.to_owned()).unwrap();
    }
    assert_eq!(hub.topic_overview("one/x").unwrap().events, 1);
    assert_eq!(hub.topic_overview("other").unwrap().events, 2);
    let everyone = hub.subscribe().start(Start::Earliest);
    assert_eq!(seen(&mut open(everyone)), ["2"]);
    let inbox = hub.subscribe().client("c").open_event(false).start(Start::Earliest);
    assert_eq!(seen(&mut open(inbox)), ["2", "2"]);
}
