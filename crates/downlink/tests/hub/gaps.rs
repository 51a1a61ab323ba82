//! Tests of gaps: when a subscription gets a gap, and which ids the gap contains.

use std::time::Duration;

use downlink::hub::{
    Clock, Delivery, Gap, GapReason, Hub, LagPolicy, Retention, Start, Subscription,
};
use futures_util::{FutureExt, StreamExt};

use super::{build, hub, id, keeping, open, say, seen};

fn next_gap(subscription: &mut Subscription<String>) -> Gap {
    match subscription.next().now_or_never() {
        Some(Some(Delivery::Gap(gap))) => gap,
        other => panic!("expected a gap, got {other:?}"),
    }
}

fn data(gap: &Gap) -> serde_json::Value {
    serde_json::from_str(gap.to_event().fields().data.unwrap()).unwrap()
}

/// Makes a hub, and publishes five events to the topic `a`. The hub keeps only events 4 and 5.
fn two_of_five() -> Hub<String> {
    let hub = keeping(2);
    for data in ["1", "2", "3", "4", "5"] {
        say(&hub, "a", data);
    }
    hub
}

#[test]
fn a_gap_of_evicted_events_has_the_missing_range_and_the_oldest_retained_id() {
    let hub = two_of_five();
    let mut subscription = open(hub.subscribe().topic("a").resume(id(&hub, 1).as_str()));
    let gap = next_gap(&mut subscription);
    assert_eq!(gap.reason, GapReason::Evicted);
    assert_eq!(gap.after, Some(id(&hub, 1)));
    assert_eq!(gap.until.as_ref().unwrap().as_str(), id(&hub, 3));
    assert_eq!(gap.oldest.as_ref().unwrap().as_str(), id(&hub, 4));
    assert_eq!(gap.id.as_str(), id(&hub, 3));
    assert_eq!(subscription.last_event_id(), id(&hub, 3));
    assert_eq!(seen(&mut subscription), ["4", "5"]);
}

#[test]
fn resuming_after_the_id_of_a_gap_gives_no_second_gap() {
    let hub = two_of_five();
    let mut first = open(hub.subscribe().topic("a").resume(id(&hub, 1).as_str()));
    let gap = next_gap(&mut first);
    drop(first);
    let mut second = open(hub.subscribe().topic("a").resume(&gap.id));
    assert_eq!(seen(&mut second), ["4", "5"]);
}

#[test]
fn a_gap_after_an_unknown_id_has_the_oldest_retained_id_and_no_range() {
    let hub = two_of_five();
    let mut subscription = open(hub.subscribe().topic("a").resume("who"));
    let gap = next_gap(&mut subscription);
    assert_eq!((gap.reason, gap.after.as_deref()), (GapReason::UnknownId, Some("who")));
    assert_eq!((gap.until, gap.oldest.unwrap().as_str()), (None, id(&hub, 4).as_str()));
    assert_eq!(gap.id.as_str(), id(&hub, 3));
}

#[test]
fn a_gap_after_an_id_beyond_the_newest_event_has_no_oldest_retained_id() {
    let hub = two_of_five();
    let ahead = id(&hub, 77);
    let mut subscription = open(hub.subscribe().topic("a").resume(ahead.as_str()));
    let gap = next_gap(&mut subscription);
    assert_eq!((gap.reason, gap.after), (GapReason::Lost, Some(ahead)));
    assert_eq!((gap.until, gap.oldest), (None, None));
    assert_eq!(gap.id, hub.cursor());
}

#[test]
fn a_subscription_that_starts_at_a_time_gets_a_gap_if_later_events_were_evicted() {
    let clock = Clock::manual();
    let short = Retention { events_max: 1, ..Retention::DEFAULT };
    let hub = build(|builder| builder.retention(short).clock(clock.clone()));
    let since = clock.now();
    say(&hub, "a", "1");
    say(&hub, "a", "2");
    let mut subscription = open(hub.subscribe().topic("a").start(Start::Since(since)));
    assert_eq!(subscription.last_event_id(), "");
    let gap = next_gap(&mut subscription);
    assert_eq!((gap.reason, gap.after.as_deref()), (GapReason::Evicted, None));
    assert_eq!(seen(&mut subscription), ["2"]);
}

/// Opens a subscription and then publishes three events to a hub that keeps two. The hub evicts the
/// first event before the subscription has read it.
fn overtaken(hub: &Hub<String>) -> Subscription<String> {
    let mut subscription = open(hub.subscribe().topic("a"));
    assert!(seen(&mut subscription).is_empty());
    for data in ["1", "2", "3"] {
        say(hub, "a", data);
    }
    subscription
}

#[test]
fn a_slow_subscription_gets_a_gap_and_continues() {
    let hub = keeping(2);
    let mut subscription = overtaken(&hub);
    let gap = next_gap(&mut subscription);
    assert_eq!((gap.reason, gap.after), (GapReason::Lagged, Some(id(&hub, 0))));
    assert_eq!(gap.until.unwrap().as_str(), id(&hub, 1));
    assert_eq!(seen(&mut subscription), ["2", "3"]);
}

#[test]
fn a_resumed_subscription_that_caught_up_and_then_lags_gets_a_gap() {
    let hub = keeping(2);
    let mut subscription = open(hub.subscribe().topic("a").resume(id(&hub, 0).as_str()));
    assert!(seen(&mut subscription).is_empty());
    for data in ["1", "2", "3"] {
        say(&hub, "a", data);
    }
    assert_eq!(seen(&mut subscription), ["gap lagged", "2", "3"]);
}

#[test]
fn a_gap_of_a_slow_subscription_begins_after_the_last_event_that_it_yielded() {
    let hub = keeping(2);
    say(&hub, "a", "1");
    let mut subscription = open(hub.subscribe().topic("a").resume(id(&hub, 0).as_str()));
    assert_eq!(seen(&mut subscription), ["1"]);
    for data in ["2", "3", "4"] {
        say(&hub, "a", data);
    }
    let gap = next_gap(&mut subscription);
    assert_eq!((gap.reason, gap.after), (GapReason::Lagged, Some(id(&hub, 1))));
}

#[test]
fn a_slow_subscription_ends_if_the_lag_policy_is_to_disconnect() {
    let short = Retention { events_max: 2, ..Retention::DEFAULT };
    let hub = build(|builder| builder.retention(short).lag_policy(LagPolicy::Disconnect));
    let mut subscription = overtaken(&hub);
    let last = subscription.last_event_id();
    assert_eq!(seen(&mut subscription), ["end lagged"]);
    // When the client resumes, it gets the gap that it did not get before.
    let mut again = open(hub.subscribe().topic("a").resume(last.as_str()));
    assert_eq!(seen(&mut again), ["gap evicted", "2", "3"]);
}

#[test]
fn an_unread_gap_is_repeated_after_a_reconnect() {
    let hub = two_of_five();
    for unknown in ["who", "00000000-3", &id(&hub, 99)] {
        let first = open(hub.subscribe().topic("a").resume(unknown));
        let saved = first.last_event_id();
        let mut second = open(hub.subscribe().topic("a").resume(saved.as_str()));
        assert!(seen(&mut second)[0].starts_with("gap "), "{unknown}");
    }
}

#[test]
fn the_wait_in_a_gap_is_random_and_at_most_the_configured_maximum() {
    let wait = Duration::from_millis(800);
    let hub = build(|builder| builder.gap_wait_max(wait));
    let waits: Vec<_> =
        (0..200).map(|_| next_gap(&mut open(hub.subscribe().resume("who"))).wait).collect();
    assert!(waits.iter().all(|one| *one <= wait));
    let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(*least < wait / 4 && *most > wait * 3 / 4, "{least:?}..{most:?}");
    let never = build(|builder| builder.gap_wait_max(Duration::ZERO));
    assert_eq!(next_gap(&mut open(never.subscribe().resume("who"))).wait, Duration::ZERO);
}

#[test]
fn the_data_of_a_gap_is_valid_json_for_any_last_event_id_of_a_client() {
    let hub = hub();
    let controls: String = (0..0x20).map(char::from).collect();
    let hostile =
        ["\"}", "\\", "\u{2028}\u{1F600}", "a\r\nid: evil\n\ndata: x", &controls, "</script>"];
    for after in hostile {
        let gap = next_gap(&mut open(hub.subscribe().resume(after)));
        let data = data(&gap);
        assert_eq!(data["after"], *after);
        assert_eq!(data["reason"], "unknown_id");
        assert_eq!(
            (&data["until"], &data["oldest"]),
            (&serde_json::Value::Null, &serde_json::Value::Null)
        );
        assert_eq!(data["wait_ms"].as_u64(), u64::try_from(gap.wait.as_millis()).ok());
        let frame = gap.to_event().encode();
        let text = std::str::from_utf8(frame.as_bytes()).unwrap();
        assert_eq!(text.matches("\n\n").count(), 1, "the frame must have one event: {text:?}");
        assert_eq!(text.matches("\nid: ").count(), 1);
        assert!(text.starts_with(&format!("event: downlink.gap\nid: {}\ndata: ", gap.id)));
    }
}
