//! Tests of the lists of topics and readers that the log returns.

use downlink_log::{Log, Start, Timestamp, Topic};

use crate::support::{Load, append, client, ms, options, selection, topic};

fn log() -> Log<Load> {
    let log = Log::new(options());
    for name in ["a", "a-b", "a/1", "a/2", "a/2/x", "ab", "b", "ä/1"] {
        append(&log, 0, &[name]).expect("room for a topic");
    }
    log
}

fn names(log: &Log<Load>, prefix: &str, after: Option<&str>, count: usize) -> Vec<String> {
    let after = after.map(|name| Topic::new(name).expect("a valid topic"));
    let topics = log.topics(ms(0), prefix, after.as_ref(), count);
    topics.iter().filter_map(|found| Some(found.address.topic()?.to_string())).collect()
}

#[test]
fn topics_are_listed_by_any_prefix() {
    let log = log();
    let inbox = downlink_log::Selection { client: Some(client("z")), ..selection(&["*"]) };
    let _reader = log.open(ms(0), &inbox, &Start::Live).unwrap();
    let all = |prefix| names(&log, prefix, None, 100);
    assert_eq!(all(""), ["a", "a-b", "a/1", "a/2", "a/2/x", "ab", "b", "ä/1"]);
    assert_eq!(all("a"), ["a", "a-b", "a/1", "a/2", "a/2/x", "ab"]);
    assert_eq!(all("a/"), ["a/1", "a/2", "a/2/x"]);
    assert_eq!(all("a/2"), ["a/2", "a/2/x"]);
    assert_eq!(all("ä"), ["ä/1"]);
    for nothing in ["/", "a//", "*", "a/*", "a\0", "z", &"a".repeat(1_000)] {
        assert!(all(nothing).is_empty(), "{nothing}");
    }
}

#[test]
fn a_listing_continues_after_a_given_name() {
    let log = log();
    assert_eq!(names(&log, "", None, 3), ["a", "a-b", "a/1"]);
    assert_eq!(names(&log, "", Some("a/1"), 3), ["a/2", "a/2/x", "ab"]);
    assert_eq!(names(&log, "a/", Some("a/2"), 3), ["a/2/x"]);
    assert_eq!(names(&log, "a/", Some("a"), 1), ["a/1"]);
    assert_eq!(names(&log, "a/", Some("b"), 3), [""; 0]);
    assert_eq!(names(&log, "b", Some("a/15"), 3), ["b"]);
    assert_eq!(names(&log, "", None, 0), [""; 0]);
}

#[test]
fn a_topic_shows_its_subscribers_and_events() {
    let log = log();
    let reader = log.open(ms(0), &selection(&["a/*", "b", "c"]), &Start::Live).unwrap();
    append(&log, 0, &["b"]).unwrap();
    let b = log.topic(ms(0), &topic("b")).unwrap();
    assert_eq!((b.subscribers, b.events, b.finished), (1, 2, false));
    assert_eq!((b.oldest.map(|o| o.get()), b.newest.map(|o| o.get())), (Some(7), Some(9)));
    let c = log.topic(ms(0), &topic("c")).unwrap();
    assert_eq!((c.subscribers, c.events, c.oldest), (1, 0, None));
    assert_eq!(log.topic(ms(0), &topic("nothing")), None);
    let seen = log.readers(Timestamp::default());
    assert_eq!((seen.len(), seen[0].number, seen[0].selectors), (1, reader.number(), 3));
    assert_eq!((seen[0].lag, reader.lag(reader.cursor().next)), (1, 1));
}
