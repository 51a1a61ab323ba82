//! Tests each limit with three numbers: one below the limit, the limit itself, and one above the
//! limit.

use downlink_log::{AppendError, Limits, Log, OpenError, Selection, Start};

use crate::support::{EVENT_COST_BYTES, Load, append, client, ms, options, selection};

fn log(change: impl FnOnce(&mut Limits)) -> Log<Load> {
    let mut options = options();
    change(&mut options.limits);
    Log::new(options)
}

#[test]
fn subscribers_above_the_limit_are_rejected() {
    let log = log(|limits| limits.subscribers_max = 2);
    let open = || log.open(ms(0), &selection(&["a"]), &Start::Live);
    let first = open().unwrap();
    let second = open().unwrap();
    assert_eq!(open().err(), Some(OpenError::Full { subscribers_max: 2 }));
    assert_eq!(log.totals(ms(0)).subscribers, 2);
    drop(first);
    let third = open().unwrap();
    drop((second, third));
    assert_eq!((log.totals(ms(0)).subscribers, log.totals(ms(0)).topics), (0, 0));
}

#[test]
fn subscribers_of_one_client_above_the_limit_are_rejected() {
    let log = log(|limits| limits.subscribers_per_client_max = 2);
    let of = |name| Selection { client: Some(client(name)), ..Selection::default() };
    let open = |name| log.open(ms(0), &of(name), &Start::Live);
    let readers = [open("alice"), open("alice"), open("bob")];
    assert!(readers.iter().all(Result::is_ok));
    let full = OpenError::ClientFull { subscribers_per_client_max: 2 };
    assert_eq!(open("alice").err(), Some(full));
    assert_eq!(log.subscribers_of(&client("alice")), 2);
    assert_eq!(log.subscribers_of(&client("carol")), 0);
    drop(readers);
    assert!(open("alice").is_ok());
}

#[test]
fn a_selection_with_too_many_selectors_is_rejected() {
    let log = log(|limits| limits.selectors_max = 2);
    let open = |names: &[&str]| log.open(ms(0), &selection(names), &Start::Live).err();
    assert_eq!(open(&["a"]), None);
    assert_eq!(open(&["a", "b/*"]), None);
    let too_many = OpenError::TooManySelectors { selectors: 3, selectors_max: 2 };
    assert_eq!(open(&["a", "b/*", "c"]), Some(too_many));
}

#[test]
fn events_to_too_many_topics_are_rejected() {
    let log = log(|limits| limits.topics_max = 2);
    let open = |names: &[&str]| log.open(ms(0), &selection(names), &Start::Live);
    let _one = open(&["a", "b", "c", "d", "e/*"]).unwrap();
    append(&log, 0, &["b"]).unwrap();
    append(&log, 0, &["f"]).unwrap();
    let full = AppendError::TooManyTopics { draft: 0, topics_max: 2 };
    assert_eq!(
        append(&log, 0, &["d"]),
        Err(full.clone()),
        "topic `d` has a reader but no events, so its first event would exceed the limit"
    );
    assert_eq!(append(&log, 0, &["g"]), Err(full), "topic `g` is new");
    assert!(append(&log, 0, &["f"]).is_ok());
    assert!(open(&["*"]).is_ok(), "patterns create no topics");
}

/// If subscribers already use as many topic names as the limit allows, the log rejects subscribers
/// with other names. Publishers may still use other names.
#[test]
fn subscribers_with_too_many_new_names_are_rejected() {
    let log = log(|limits| (limits.subscribed_names_max, limits.topics_max) = (3, 2));
    let open = |names: &[&str]| log.open(ms(0), &selection(names), &Start::Live);
    let first = open(&["a", "b"]).unwrap();
    let full = OpenError::TooManyNames { subscribed_names_max: 3 };
    assert_eq!(open(&["b", "c", "d"]).err(), Some(full));
    assert_eq!(log.totals(ms(0)).topics, 2, "the rejected reader leaves no topic");
    let second = open(&["a", "b", "c"]).unwrap();
    let inbox = Selection { client: Some(client("alice")), ..Selection::default() };
    assert_eq!(log.open(ms(0), &inbox, &Start::Live).err(), Some(full));
    append(&log, 0, &["x"]).unwrap();
    append(&log, 0, &["y"]).unwrap();
    drop(first);
    assert_eq!(open(&["d"]).err(), Some(full));
    drop(second);
    assert!(open(&["d", "e", "f"]).is_ok());
}

#[test]
fn subscribers_with_too_many_new_patterns_are_rejected() {
    let log = log(|limits| limits.patterns_max = 2);
    let open = |names: &[&str]| log.open(ms(0), &selection(names), &Start::Live);
    let first = open(&["a/*", "{x}"]).unwrap();
    assert!(open(&["{y}", "a/*", "b"]).is_ok(), "both patterns are already in use");
    let full = OpenError::TooManyPatterns { patterns_max: 2 };
    assert_eq!(open(&["a/*", "b/*", "c"]).err(), Some(full));
    assert_eq!((log.totals(ms(0)).topics, log.totals(ms(0)).subscribers), (0, 1));
    drop(first);
    assert!(open(&["b/*", "c/*"]).is_ok());
}

#[test]
fn events_above_the_byte_limit_evict_older_events() {
    let log = log(|limits| limits.bytes_max = 2 * EVENT_COST_BYTES);
    let events = |name| {
        append(&log, 0, &[name]).unwrap();
        (log.totals(ms(0)).events, log.totals(ms(0)).bytes / EVENT_COST_BYTES)
    };
    assert_eq!(events("a"), (1, 1));
    assert_eq!(events("b"), (2, 2));
    assert_eq!(events("b"), (2, 2), "the topic of the new event is trimmed first");
    assert_eq!(log.topics(ms(0), "b", None, 1)[0].oldest.map(|o| o.get()), Some(3));
    assert_eq!(events("c"), (2, 2), "no older event in `c`, so the oldest of all is evicted");
    assert!(log.topics(ms(0), "a", None, 1).is_empty());
}
