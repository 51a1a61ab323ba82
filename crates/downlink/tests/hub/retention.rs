//! Tests of a change of the retention rules of a hub in use.

use downlink::hub::{HubError, HubRetention, Retention};

use super::{build, id, keeping, open, say, seen};

fn newest(events_max: usize) -> Retention {
    Retention { events_max, ..Retention::DEFAULT }
}

#[test]
fn smaller_retention_evicts_events_and_a_slow_subscription_gets_a_gap() {
    let hub = keeping(100);
    // A subscription reads ahead, so this one must not have read anything yet.
    let mut slow = open(hub.subscribe().topic("a"));
    (1..=10).for_each(|n| drop(say(&hub, "a", &n.to_string())));
    hub.set_retention(newest(2)).unwrap();
    assert_eq!(hub.stats().events, 2);
    assert_eq!(seen(&mut slow), ["gap lagged", "9", "10"]);
    let mut resumed = open(hub.subscribe().topic("a").resume(id(&hub, 5).as_str()));
    assert_eq!(seen(&mut resumed), ["gap evicted", "9", "10"]);
    hub.set_retention(newest(3)).unwrap();
    say(&hub, "a", "11");
    assert_eq!(hub.topic_overview("a").unwrap().events, 3);
    assert_eq!(seen(&mut slow), ["11"]);
}

#[test]
fn each_part_of_the_hub_gets_its_new_rule() {
    let hub = build(|builder| builder);
    for n in ["1", "2", "3", "4", "5"] {
        say(&hub, "a/x", n);
        say(&hub, "b", n);
        hub.to_client("alice").publish(n.to_owned()).unwrap();
        hub.to_everyone().publish(n.to_owned()).unwrap();
    }
    let rules = HubRetention::from(newest(4)).topics("a/*", newest(3));
    hub.set_retention(rules.inboxes(newest(2)).everyone(newest(1))).unwrap();
    let kept = ["a/x", "b"].map(|name| hub.topic_overview(name).unwrap().events);
    assert_eq!((kept, hub.stats().events), ([3, 4], 3 + 4 + 2 + 1));
}

#[test]
fn rules_that_cannot_be_used_change_nothing() {
    let hub = keeping(3);
    let invalid = HubRetention::from(newest(1)).topics("a//b", newest(1));
    let error = hub.set_retention(invalid).unwrap_err();
    assert!(matches!(error, HubError::InvalidSelector { .. }), "{error}");
    assert_eq!(hub.set_retention(newest(0)), Err(HubError::NoEvents));
    (1..=5).for_each(|n| drop(say(&hub, "a", &n.to_string())));
    assert_eq!(hub.stats().events, 3);
}
