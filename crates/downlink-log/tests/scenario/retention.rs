//! Tests of a change of the retention rules while the log is in use.

use std::time::Duration;

use downlink_log::{Address, Log, Read, Retention, RetentionRules, Start, TopicSelector};

use crate::support::{
    EVENT_COST_BYTES, Load, Seen, append, append_all, client, draft, ms, options, selection, topic,
};

/// Rules with which every topic keeps at most this many events of any age.
fn keeping(events_max: usize) -> RetentionRules {
    let rule = Retention { events_max, age_max: None, ..Retention::DEFAULT };
    RetentionRules { default: rule, inbox: rule, everyone: rule, ..RetentionRules::default() }
}

fn log(rules: RetentionRules) -> Log<Load> {
    let mut options = options();
    options.retention = rules;
    Log::new(options)
}

fn publish(log: &Log<Load>, now: u64, name: &str, count: usize) {
    for _ in 0..count {
        append(log, now, &[name]).expect("the topic is open");
    }
}

fn events(log: &Log<Load>, now: u64, name: &str) -> usize {
    log.topic(ms(now), &topic(name)).map_or(0, |topic| topic.events)
}

#[test]
fn smaller_limits_evict_events_and_readers_get_one_gap() {
    let log = log(keeping(100));
    let mut slow = log.open(ms(0), &selection(&["a"]), &Start::Live).unwrap();
    publish(&log, 0, "a", 10);
    log.set_retention(ms(0), keeping(3));
    assert_eq!((events(&log, 0, "a"), log.totals(ms(0)).bytes), (3, 3 * EVENT_COST_BYTES));
    let mut seen = Seen::default();
    assert_eq!(seen.read_all(&mut slow, 0), Read::CaughtUp);
    assert_eq!((seen.offsets, seen.gaps), (vec![8, 9, 10], vec![(0, 7)]));
    let after = Start::After("70000000-5".into());
    let mut resumed = log.open(ms(0), &selection(&["a"]), &after).unwrap();
    let mut seen = Seen::default();
    assert_eq!(seen.read_all(&mut resumed, 0), Read::CaughtUp);
    assert_eq!((seen.offsets, seen.gaps), (vec![8, 9, 10], vec![(5, 7)]));
}

#[test]
fn larger_limits_keep_later_events_and_return_no_evicted_event() {
    let log = log(keeping(3));
    publish(&log, 0, "a", 10);
    log.set_retention(ms(0), keeping(5));
    assert_eq!(events(&log, 0, "a"), 3);
    publish(&log, 0, "a", 10);
    assert_eq!(events(&log, 0, "a"), 5);
    let mut reader = log.open(ms(0), &selection(&["a"]), &Start::Earliest).unwrap();
    let mut seen = Seen::default();
    assert_eq!(seen.read_all(&mut reader, 0), Read::CaughtUp);
    assert_eq!((seen.offsets, seen.gaps), ((16..=20).collect(), vec![]));
}

/// Each step evicts at most 128 events, and the log lists its topics in steps. So the numbers of
/// events and of topics are larger than these steps.
#[test]
fn a_change_applies_to_all_topics_and_inboxes_and_to_later_topics() {
    let log = log(keeping(1_000));
    publish(&log, 0, "busy", 700);
    let names: Vec<String> = (0..600).map(|n| format!("t/{n}")).collect();
    names.iter().for_each(|name| publish(&log, 0, name, 3));
    let inbox = Address::Client(client("c"));
    let others = [inbox.clone(), Address::Everyone];
    (0..3).for_each(|_| drop(append_all(&log, 0, [draft(&others)]).unwrap()));
    log.set_retention(ms(0), keeping(2));
    assert!(names.iter().all(|name| events(&log, 0, name) == 2));
    let of = |address| log.topic(ms(0), address).map_or(0, |topic| topic.events);
    assert_eq!((events(&log, 0, "busy"), of(&inbox), of(&Address::Everyone)), (2, 2, 2));
    assert_eq!(log.totals(ms(0)).events, 602 * 2 + 2);
    publish(&log, 0, "later", 3);
    publish(&log, 0, "t/0", 3);
    assert_eq!((events(&log, 0, "later"), events(&log, 0, "t/0")), (2, 2));
}

#[test]
fn a_topic_follows_the_first_new_rule_that_matches_it() {
    let log = log(keeping(10));
    ["a/x", "b"].iter().for_each(|name| publish(&log, 0, name, 10));
    let narrow = Retention { events_max: 4, ..Retention::DEFAULT };
    let rules = vec![(TopicSelector::parse("a/*").unwrap(), narrow)];
    log.set_retention(ms(0), RetentionRules { rules, ..keeping(6) });
    assert_eq!((events(&log, 0, "a/x"), events(&log, 0, "b")), (4, 6));
}

#[test]
fn a_shorter_age_evicts_old_events_and_a_longer_age_keeps_them() {
    let aged = |age_max: Option<u64>| {
        let rule = Retention { age_max: age_max.map(Duration::from_millis), ..Retention::DEFAULT };
        RetentionRules { default: rule, ..RetentionRules::default() }
    };
    let log = log(aged(Some(100)));
    (0..300).for_each(|n| publish(&log, n / 10, "a", 1));
    log.set_retention(ms(30), aged(Some(10)));
    assert_eq!((events(&log, 30, "a"), log.totals(ms(30)).events), (90, 90));
    log.set_retention(ms(30), aged(Some(1_000)));
    assert_eq!(events(&log, 900, "a"), 90);
    log.set_retention(ms(900), aged(None));
    assert_eq!(events(&log, 1 << 40, "a"), 90);
}

#[test]
fn finished_topics_stay_for_the_new_time() {
    let kept_for = |millis| {
        let finished_keep = Duration::from_millis(millis);
        RetentionRules { finished_keep, ..keeping(10) }
    };
    let log = log(kept_for(100));
    let mut last = draft(&[topic("a")]);
    last.finish = true;
    append_all(&log, 0, [last]).unwrap();
    log.set_retention(ms(0), kept_for(1_000));
    assert!(append(&log, 500, &["a"]).is_err());
    log.set_retention(ms(500), kept_for(400));
    assert_eq!(events(&log, 500, "a"), 0);
    assert!(append(&log, 500, &["a"]).is_ok());
}
