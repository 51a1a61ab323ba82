//! Tests of finished topics. A publisher finishes a topic when no more events will follow. The
//! topic then refuses events for a configured time.

use std::time::Duration;

use downlink::hub::{
    Clock, DisconnectReason, HubRetention, PublishError, Start, SubscribeErrorKind,
};

use super::{build, hub, id, open, refused, say, seen};

#[test]
fn subscriptions_to_a_finished_topic_get_its_events_and_then_end() {
    let hub = hub();
    let mut subscription = open(hub.subscribe().topic("a"));
    say(&hub, "a", "1");
    assert_eq!(hub.finish("a").unwrap().matched(), Some(1));
    assert_eq!(seen(&mut subscription), ["1", "end finished"]);
    assert_eq!(subscription.ended(), Some(DisconnectReason::Finished));
}

#[test]
fn an_event_that_is_marked_as_the_last_finishes_its_topic() {
    let hub = hub();
    let mut subscription = open(hub.subscribe().topics(["a", "b"]));
    hub.to("a").and_to("b").last().publish("bye".to_owned()).unwrap();
    assert_eq!(seen(&mut subscription), ["bye", "end finished"]);
    assert!(hub.topic_overview("a").unwrap().finished && hub.topic_overview("b").unwrap().finished);
}

#[test]
fn a_subscription_to_several_topics_ends_when_all_are_finished() {
    let hub = hub();
    let mut subscription = open(hub.subscribe().topics(["a", "b"]));
    let mut pattern = open(hub.subscribe().pattern("{any}"));
    hub.finish("a").unwrap();
    assert!(seen(&mut subscription).is_empty());
    hub.finish("b").unwrap();
    assert_eq!(seen(&mut subscription), ["end finished"]);
    assert!(seen(&mut pattern).is_empty(), "the pattern may match other topics later");
}

#[test]
fn a_finished_topic_refuses_events() {
    let hub = hub();
    hub.finish("a").unwrap();
    let error = hub.to("a").publish("x".to_owned()).unwrap_err();
    assert!(matches!(error, PublishError::Finished));
    assert!(matches!(hub.finish("a").unwrap_err(), PublishError::Finished));
}

#[test]
fn a_new_subscription_reads_a_finished_topic_from_its_beginning() {
    let hub = hub();
    say(&hub, "a", "1");
    say(&hub, "a", "2");
    hub.finish("a").unwrap();
    let mut reload = open(hub.subscribe().topic("a"));
    assert_eq!(seen(&mut reload), ["1", "2", "end finished"]);
}

#[test]
fn a_subscription_resumes_within_a_finished_topic() {
    let hub = hub();
    say(&hub, "a", "1");
    say(&hub, "a", "2");
    hub.finish("a").unwrap();
    let mut subscription = open(hub.subscribe().topic("a").resume(id(&hub, 1).as_str()));
    assert_eq!(seen(&mut subscription), ["2", "end finished"]);
}

#[test]
fn a_subscription_that_resumes_after_the_last_event_of_a_finished_topic_is_refused() {
    let hub = hub();
    say(&hub, "a", "1");
    let subscribe = || hub.subscribe().topic("a").resume(id(&hub, 1).as_str());
    drop(open(subscribe()));
    hub.finish("a").unwrap();
    assert_eq!(refused(subscribe()).kind(), &SubscribeErrorKind::Finished);
    assert_eq!(hub.stats().subscribers, 0);
}

#[test]
fn a_finished_topic_accepts_events_again_after_the_configured_time() {
    let clock = Clock::manual();
    let keep = Duration::from_secs(60);
    let retention = HubRetention::default().finished_keep(keep);
    let hub = build(|builder| builder.clock(clock.clone()).retention(retention));
    say(&hub, "a", "1");
    hub.finish("a").unwrap();
    clock.advance(keep - Duration::from_millis(1));
    assert!(hub.to("a").publish("x".to_owned()).is_err());
    clock.advance(Duration::from_millis(1));
    say(&hub, "a", "again");
    assert_eq!(seen(&mut open(hub.subscribe().topic("a").start(Start::Last(1)))), ["again"]);
}

#[test]
fn finishing_a_topic_does_not_publish_an_event() {
    let hub = hub();
    hub.finish("a").unwrap();
    let stats = hub.stats();
    assert_eq!((stats.published, stats.events), (0, 0));
    let read = refused(hub.subscribe().topic("a"));
    assert_eq!(read.kind(), &SubscribeErrorKind::Finished, "the finished topic has no events");
}

#[test]
fn finishing_an_invalid_topic_is_an_error() {
    assert!(matches!(hub().finish("*"), Err(PublishError::InvalidTopic { .. })));
}

/// If a publisher could finish a client's inbox, the client would get no more events until the hub
/// reopens the inbox. If a publisher could finish the address for everyone, no client would get
/// events to everyone.
#[test]
fn only_topics_can_be_finished() {
    let hub = hub();
    for publish in [hub.to_everyone(), hub.to_client("alice"), hub.to("a").and_to_client("alice")] {
        let refused = publish.last().publish("x".to_owned());
        assert!(matches!(refused, Err(PublishError::LastNeedsTopics)));
    }
    assert!(hub.to("a").and_to("b").last().publish("x".to_owned()).is_ok());
    assert!(hub.to_client("alice").publish("x".to_owned()).is_ok());
}
