//! Tests of where a subscription begins, for every kind of last event id and for every `Start`.

use std::time::Duration;

use downlink::http::LastEventId;
use downlink::hub::{Clock, Delivery, Hub, Limits, Retention, Start};
use futures_util::{FutureExt, StreamExt};

use super::{build, hub, id, keeping, open, say, seen};

/// A hub with the events 1 to 5 in topic `a`.
fn five() -> Hub<String> {
    let hub = hub();
    for data in ["1", "2", "3", "4", "5"] {
        say(&hub, "a", data);
    }
    hub
}

fn after(hub: &Hub<String>, id: &str) -> Vec<String> {
    seen(&mut open(hub.subscribe().topic("a").resume(id)))
}

fn from(hub: &Hub<String>, start: Start) -> Vec<String> {
    seen(&mut open(hub.subscribe().topic("a").start(start)))
}

#[test]
fn a_subscription_resumes_exactly_after_an_event_id_that_the_hub_gave() {
    let hub = five();
    assert_eq!(after(&hub, &id(&hub, 0)), ["1", "2", "3", "4", "5"]);
    assert_eq!(after(&hub, &id(&hub, 3)), ["4", "5"]);
    assert!(after(&hub, &id(&hub, 5)).is_empty());
}

#[test]
fn a_subscription_resumes_exactly_after_an_event_id_that_the_publisher_chose() {
    let hub = five();
    hub.to("a").id("mine/1").publish("6".to_owned()).unwrap();
    say(&hub, "a", "7");
    assert_eq!(after(&hub, "mine/1"), ["7"]);
}

#[test]
fn an_unknown_id_gives_one_gap_and_the_newest_events() {
    let hub = build(|builder| builder.limits(Limits { gap_replay_max: 2, ..Limits::default() }));
    for data in ["1", "2", "3"] {
        say(&hub, "a", data);
    }
    assert_eq!(after(&hub, "never-given"), ["gap unknown_id", "2", "3"]);
}

#[test]
fn a_malformed_id_is_an_unknown_id() {
    let hub = five();
    let expected = ["gap unknown_id", "1", "2", "3", "4", "5"];
    let too_big = format!("{}0", id(&hub, u64::MAX));
    for malformed in ["", "-", "abcdefgh-", "abcdefgh-x", "\u{1F4A9}", "a b", &too_big] {
        let seen = after(&hub, malformed);
        if malformed.is_empty() {
            assert!(seen.is_empty(), "an empty id counts as no id");
        } else {
            assert_eq!(seen, expected, "{malformed:?}");
        }
    }
}

#[test]
fn an_id_of_another_epoch_gives_one_gap() {
    let hub = five();
    let other = id(&super::hub(), 4);
    assert_eq!(after(&hub, &other), ["gap new_epoch", "1", "2", "3", "4", "5"]);
}

#[test]
fn an_id_beyond_the_newest_event_gives_a_gap_of_lost_events() {
    let hub = five();
    let mut subscription = open(hub.subscribe().topic("a").resume(id(&hub, 6).as_str()));
    assert_eq!(seen(&mut subscription), ["gap lost"]);
    say(&hub, "a", "6");
    assert_eq!(seen(&mut subscription), ["6"]);
}

#[test]
fn a_subscription_that_starts_at_the_earliest_event_gets_all_kept_events_without_a_gap() {
    let hub = keeping(2);
    for data in ["1", "2", "3"] {
        say(&hub, "a", data);
    }
    assert_eq!(after(&hub, "earliest"), ["2", "3"]);
    assert_eq!(from(&hub, Start::Earliest), ["2", "3"]);
}

#[test]
fn a_last_event_id_overrides_the_start_setting() {
    let hub = five();
    let last = id(&hub, 4);
    let subscribe = hub.subscribe().topic("a").start(Start::Earliest).resume(last.as_str());
    assert_eq!(seen(&mut open(subscribe)), ["5"]);
    let without = hub.subscribe().topic("a").start(Start::Earliest).resume(LastEventId::none());
    assert_eq!(seen(&mut open(without)).len(), 5);
}

#[test]
fn a_live_subscription_gets_only_events_that_are_published_after_it_opens() {
    let hub = five();
    let mut subscription = open(hub.subscribe().topic("a"));
    assert!(seen(&mut subscription).is_empty());
    say(&hub, "a", "6");
    assert_eq!(seen(&mut subscription), ["6"]);
}

#[test]
fn a_subscription_that_starts_with_the_newest_events_counts_all_topics_together() {
    let hub = five();
    say(&hub, "b", "6");
    assert!(from(&hub, Start::Last(0)).is_empty());
    assert_eq!(from(&hub, Start::Last(2)), ["4", "5"]);
    assert_eq!(from(&hub, Start::Last(99)).len(), 5);
    let both = hub.subscribe().topics(["a", "b"]).start(Start::Last(2));
    assert_eq!(seen(&mut open(both)), ["5", "6"]);
}

#[test]
fn a_subscription_that_starts_at_a_time_gets_the_events_published_at_that_time_or_later() {
    let clock = Clock::manual();
    let hub = build(|builder| builder.clock(clock.clone()));
    say(&hub, "a", "old");
    clock.advance(Duration::from_secs(10));
    let since = clock.now();
    say(&hub, "a", "new");
    assert_eq!(from(&hub, Start::Since(since)), ["new"]);
    clock.advance(Duration::from_millis(1));
    assert!(from(&hub, Start::Since(clock.now())).is_empty());
    let by_the_system = std::time::SystemTime::from(since);
    assert_eq!(from(&hub, Start::Since(by_the_system.into())), ["new"]);
}

#[test]
fn the_last_event_id_of_a_subscription_moves_with_each_yielded_event() {
    let hub = five();
    let mut subscription = open(hub.subscribe().topic("a").resume(id(&hub, 2).as_str()));
    assert_eq!(subscription.last_event_id(), id(&hub, 2));
    assert_eq!(subscription.lag(), 3);
    assert_eq!(seen(&mut subscription), ["3", "4", "5"]);
    assert_eq!(subscription.last_event_id(), id(&hub, 5));
    assert_eq!(subscription.lag(), 0);
}

#[test]
fn lag_counts_all_offsets_after_the_last_yielded_event() {
    let hub = five();
    say(&hub, "b", "6");
    say(&hub, "a", "7");
    say(&hub, "b", "8");
    let mut subscription = open(hub.subscribe().topic("a").start(Start::Earliest));
    assert_eq!(subscription.lag(), 7);
    for lag in [6, 5, 4, 3, 2, 0] {
        let next = subscription.next().now_or_never();
        assert!(matches!(next, Some(Some(Delivery::Event(_)))));
        assert_eq!(subscription.lag(), lag);
    }
}

#[test]
fn lag_decreases_with_each_yielded_event() {
    let hub = five();
    let mut subscription = open(hub.subscribe().topic("a").start(Start::Earliest));
    let lags: Vec<_> = (0..5)
        .map(|_| {
            let next = subscription.next().now_or_never();
            assert!(matches!(next, Some(Some(Delivery::Event(_)))));
            subscription.lag()
        })
        .collect();
    assert_eq!(lags, [4, 3, 2, 1, 0]);
}

#[test]
fn a_subscription_resumes_after_the_last_event_id_of_a_request() {
    let mut headers = http::HeaderMap::new();
    headers.insert("last-event-id", "x".parse().unwrap());
    let hub = five();
    let subscribe = |last: LastEventId| hub.subscribe().topic("a").resume(last);
    let last = LastEventId::from_request(&headers, None);
    let mut unknown = open(subscribe(last.clone()));
    assert_eq!(seen(&mut unknown)[0], "gap unknown_id");
    assert!(seen(&mut open(subscribe(last.without_id()))).is_empty());
    assert_eq!(seen(&mut open(subscribe(LastEventId::none().or(&id(&hub, 4))))), ["5"]);
}

#[test]
fn live_events_follow_replayed_events_without_a_gap() {
    let hub = build(|builder| builder);
    for at in 0..200 {
        say(&hub, "a", &at.to_string());
    }
    let mut subscription = open(hub.subscribe().topic("a").start(Start::Earliest));
    say(&hub, "a", "200");
    let seen = seen(&mut subscription);
    let expected: Vec<_> = (0..=200).map(|at: u32| at.to_string()).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_subscription_resumes_exactly_after_a_cursor_taken_during_publishes() {
    const EVENTS: u64 = 20_000;
    let all = Retention { events_max: usize::MAX, bytes_max: usize::MAX, age_max: None };
    let hub = build(|builder| builder.retention(all));
    std::thread::scope(|threads| {
        let publisher = threads.spawn(|| (0..EVENTS).for_each(|_| drop(say(&hub, "a", ""))));
        while !publisher.is_finished() {
            let cursor = hub.cursor();
            let mut subscription = open(hub.subscribe().topic("a").resume(&cursor));
            if let Some(Some(Delivery::Event(first))) = subscription.next().now_or_never() {
                assert_eq!(id(&hub, first.offset().get() - 1), cursor.as_str());
            }
        }
    });
    assert_eq!(hub.cursor().as_str(), id(&hub, EVENTS));
}
