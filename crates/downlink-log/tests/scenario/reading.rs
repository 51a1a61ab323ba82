//! Tests of where readers begin, how they read many topics, and how they end when their topics are
//! finished.

use std::time::Duration;

use downlink_log::{
    Address, AppendError, Batch, EndReason, GapReason, Log, Read, Reader, Retention, Selection,
    Start, Timestamp,
};

use crate::support::{
    ALL, EVENT_COST_BYTES, Load, Seen, append, append_all, client, draft, ms, options, selection,
    sizes, topic,
};

fn open(log: &Log<Load>, now: u64, names: &[&str], start: Start) -> Reader<Load> {
    log.open(ms(now), &selection(names), &start).expect("room for a reader")
}

fn all(reader: &mut Reader<Load>, now: u64) -> (Vec<u64>, Vec<(u64, u64)>, Read) {
    let mut seen = Seen::default();
    let end = seen.read_all(reader, now);
    (seen.offsets, seen.gaps, end)
}

fn finish(log: &Log<Load>, now: u64, name: &str) {
    let mut last = draft(&[topic(name)]);
    last.finish = true;
    append_all(log, now, [last]).expect("the topic is open");
}

fn after(offset: u64) -> Start {
    Start::After(format!("70000000-{offset}").into())
}

#[test]
fn a_reader_of_many_topics_gets_its_events_from_the_index() {
    let log: Log<Load> = Log::new(options());
    let names: Vec<String> = (0..20).map(|n| format!("t/{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut reader = open(&log, 0, &names, Start::Live);
    for (name, offset) in [("t/3", 1), ("other", 2), ("t/7", 3), ("t/3", 4)] {
        assert_eq!(append(&log, 0, &[name]), Ok(offset));
    }
    let mut seen = Seen::default();
    let one = Batch { events_max: 1, bytes_max: usize::MAX };
    assert_eq!(seen.read(&mut reader, 0, one), Read::Events);
    assert_eq!((seen.offsets.as_slice(), reader.cursor().next.get()), ([1].as_slice(), 2));
    let few_bytes = Batch { events_max: 9, bytes_max: 0 };
    assert_eq!(seen.read(&mut reader, 0, few_bytes), Read::Events);
    assert_eq!(seen.offsets, [1, 3]);
    assert_eq!(seen.read_all(&mut reader, 0), Read::CaughtUp);
    assert_eq!((seen.offsets, reader.lag(reader.cursor().next)), (vec![1, 3, 4], 0));
}

#[test]
fn a_reader_of_many_topics_gets_a_gap_for_evicted_events() {
    let mut small = options();
    small.limits.bytes_max = 3 * EVENT_COST_BYTES;
    let log: Log<Load> = Log::new(small);
    let names: Vec<String> = (0..20).map(|n| format!("t/{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut reader = open(&log, 0, &names, Start::Live);
    for name in ["t/1", "t/2", "other", "t/3", "t/4"] {
        append(&log, 0, &[name]).unwrap();
    }
    assert_eq!(all(&mut reader, 0), (vec![4, 5], vec![(0, 2)], Read::CaughtUp));
}

/// The log's index has a row for each event of any topic. Each time a reader locks the index, it
/// may visit only a limited number of rows. In this test, more rows than this limit are between two
/// events for the reader.
#[test]
fn a_reader_gets_past_many_rows_of_other_topics() {
    let log: Log<Load> = Log::new(options());
    let rooms: Vec<String> = (0..3_000).map(|n| format!("t/{n}")).collect();
    for name in &rooms {
        append(&log, 0, &[name]).unwrap();
    }
    let mut reader = open(&log, 0, &["t/*"], Start::Live);
    for _ in 0..2_500 {
        append(&log, 0, &["other"]).unwrap();
    }
    append(&log, 0, &["t/2999"]).unwrap();
    assert_eq!(all(&mut reader, 0), (vec![5_501], vec![], Read::CaughtUp));
    for _ in 0..2_500 {
        append(&log, 0, &["other"]).unwrap();
    }
    assert_eq!(all(&mut reader, 0), (vec![], vec![], Read::CaughtUp));
    assert_eq!(reader.cursor(), log.tail());
}

/// After the last event of a topic has expired, the log removes the topic. Readers must still get
/// all events.
#[test]
fn a_pattern_reader_gets_all_events_while_old_topics_are_collected() {
    let mut short = options();
    short.retention.default.age_max = Some(Duration::from_millis(10));
    let log: Log<Load> = Log::new(short);
    let mut reader = open(&log, 0, &["*"], Start::Live);
    let mut seen = Seen::default();
    for round in 0..20_u64 {
        let now = round * 4;
        for n in 0..20 {
            append(&log, now, &[&format!("t/{round}/{n}")]).unwrap();
        }
        assert_eq!(seen.read_all(&mut reader, now), Read::CaughtUp);
    }
    assert!(log.totals(ms(80)).topics <= 60);
    assert_eq!((seen.offsets, seen.gaps), ((1..=400).collect(), vec![]));
    assert_eq!(log.readers(Timestamp::default())[0].selectors, 1);
    drop(reader);
    assert_eq!(sizes(&log, ms(1_000)), (0, 0, 0, 0));
}

#[test]
fn a_gap_of_a_live_reader_has_the_reason_lagged() {
    let mut one = options();
    one.retention.default = Retention { events_max: 1, ..Retention::DEFAULT };
    let log: Log<Load> = Log::new(one);
    let mut live = open(&log, 0, &["a"], Start::Live);
    append(&log, 0, &["a"]).unwrap();
    append(&log, 0, &["a"]).unwrap();
    let mut back = open(&log, 0, &["a"], after(0));
    let reason = |reader: &mut Reader<Load>| match reader.read(ms(0), ALL, &mut Vec::new()) {
        Read::Gap(gap) => Some(gap.reason),
        _ => None,
    };
    assert_eq!(reason(&mut live), Some(GapReason::Lagged));
    assert_eq!(reason(&mut back), Some(GapReason::Evicted));
}

/// The floor of a topic is the offset after its last evicted event. When a topic is removed from
/// memory, the log still keeps its floor. With the options of this test, it keeps the floor of only
/// one removed topic. All other names share one common floor. A reader may then get a gap although
/// it has missed nothing. But a reader that has missed events always gets a gap.
#[test]
fn a_floor_that_several_removed_topics_share_hides_no_gap() {
    let mut few = options();
    few.collected_max = Some(1);
    few.retention.default.age_max = Some(Duration::from_millis(10));
    let log: Log<Load> = Log::new(few);
    for (name, offset) in [("a", 1), ("b", 2), ("c", 3)] {
        assert_eq!(append(&log, offset, &[name]), Ok(offset));
    }
    assert_eq!(log.totals(ms(20)).topics, 0);
    let gaps = |names: &[&str], start| all(&mut open(&log, 20, names, start), 20).1;
    assert_eq!(gaps(&["a"], after(0)), [(0, 2)], "the common floor also covers event 2");
    assert_eq!(
        gaps(&["never"], after(0)),
        [(0, 2)],
        "a topic that never had an event also has the common floor"
    );
    assert_eq!(gaps(&["c"], after(0)), [(0, 3)]);
    assert_eq!(gaps(&["c"], after(3)), []);
    assert_eq!(gaps(&["*"], after(0)), [(0, 3)]);
    assert_eq!(gaps(&["a"], after(2)), []);
    assert_eq!(gaps(&["a"], Start::Live), []);
}

#[test]
fn a_live_reader_of_a_finished_topic_gets_all_its_events_and_ends() {
    let log: Log<Load> = Log::new(options());
    append(&log, 0, &["a"]).unwrap();
    append(&log, 0, &["other"]).unwrap();
    let mut waiting = open(&log, 0, &["a"], Start::Live);
    let mut by_pattern = open(&log, 0, &["a", "b/*"], Start::Live);
    finish(&log, 0, "a");
    let ended = Read::Ended(EndReason::Finished);
    assert_eq!(all(&mut waiting, 0), (vec![3], vec![], ended.clone()));
    assert_eq!(all(&mut by_pattern, 0), (vec![3], vec![], Read::CaughtUp));
    let mut reloaded = open(&log, 0, &["a"], Start::Live);
    assert!(!reloaded.is_at_end());
    assert_eq!(all(&mut reloaded, 0), (vec![1, 3], vec![], ended));
    assert!(reloaded.is_at_end());
    assert!(open(&log, 0, &["a"], after(3)).is_at_end());
    assert!(!open(&log, 0, &["a"], after(2)).is_at_end());
    assert!(!open(&log, 0, &["a", "b"], after(3)).is_at_end());
    let refused = append(&log, 0, &["a"]);
    assert_eq!(refused, Err(AppendError::Finished { draft: 0 }));
}

/// A live reader of a finished topic begins before the end of the log. But it asks for no history
/// of its inbox. So events that were evicted from the inbox before the reader was opened are not
/// missing.
#[test]
fn a_live_reader_of_a_finished_topic_gets_no_gap_for_events_evicted_from_its_inbox() {
    let mut options = options();
    options.retention.inbox.events_max = 1;
    let log: Log<Load> = Log::new(options);
    let mut last = draft(&[topic("a")]);
    last.finish = true;
    append_all(&log, 0, [last]).unwrap();
    let to_c = || draft(&[Address::Client(client("c"))]);
    append_all(&log, 0, [to_c()]).unwrap();
    append_all(&log, 0, [to_c()]).unwrap();
    let wanted = Selection { client: Some(client("c")), ..selection(&["a"]) };
    let mut reader = log.open(ms(0), &wanted, &Start::Live).unwrap();
    assert_eq!((reader.cursor().next.get(), log.tail().next.get()), (1, 4));
    let mut seen = Seen::default();
    let _ = seen.read_all(&mut reader, 0);
    assert_eq!((seen.offsets, seen.gaps), (vec![1, 3], vec![]));
}

#[test]
fn a_finished_topic_is_open_again_after_its_finish_mark_has_expired() {
    let mut options = options();
    options.retention.finished_keep = Duration::from_millis(50);
    let log: Log<Load> = Log::new(options);
    finish(&log, 0, "a");
    assert_eq!(append(&log, 49, &["a"]), Err(AppendError::Finished { draft: 0 }));
    assert_eq!(log.totals(ms(49)).topics, 1);
    assert_eq!(log.totals(ms(50)).topics, 0);
    assert_eq!(append(&log, 50, &["a"]), Ok(2));
    assert_eq!(all(&mut open(&log, 50, &["a"], after(0)), 50).1, [(0, 1)]);
}

#[test]
fn a_reader_that_starts_at_a_given_time_gets_a_gap_for_evicted_events_after_this_time() {
    let mut two = options();
    two.retention.default = Retention { events_max: 2, ..Retention::DEFAULT };
    let log: Log<Load> = Log::new(two);
    for now in [10, 20, 30] {
        append(&log, now, &["a"]).unwrap();
    }
    append(&log, 40, &["b"]).unwrap();
    let since = |at| log.open(ms(50), &selection(&["a", "b"]), &Start::Since(ms(at))).unwrap();
    let offsets = |at| all(&mut since(at), 50).0;
    assert_eq!((offsets(20), offsets(21), offsets(40)), (vec![2, 3, 4], vec![3, 4], vec![4]));
    assert_eq!(offsets(41), []);
    let mut early = since(10);
    let Read::Gap(gap) = early.read(ms(50), ALL, &mut Vec::new()) else { panic!("no gap") };
    assert_eq!((gap.reason, gap.until.map(|o| o.get())), (GapReason::Evicted, Some(1)));
    assert_eq!(all(&mut early, 50), (vec![2, 3, 4], vec![], Read::CaughtUp));
    assert_eq!(
        all(&mut since(11), 50).1,
        [],
        "no gap is reported, because the evicted event is older than the start"
    );
}

#[test]
fn a_reader_without_selectors_gets_only_events_to_everyone() {
    let log: Log<Load> = Log::new(options());
    let mut reader = log.open(ms(0), &Selection::default(), &Start::Earliest).unwrap();
    append(&log, 0, &["a"]).unwrap();
    append_all(&log, 0, [draft(&[downlink_log::Address::Everyone])]).unwrap();
    assert_eq!(all(&mut reader, 0), (vec![2], vec![], Read::CaughtUp));
}

/// The reader gets a gap for event 2. Then it finds the row of event 2 in the index of all events.
/// Topic `a` has also evicted event 3, but topic `b` still keeps event 3, so the reader must not
/// get a second gap.
#[test]
fn the_row_of_an_event_in_a_reported_gap_does_not_stop_a_reader() {
    let mut small = options();
    let newest = Retention { events_max: 1, ..Retention::DEFAULT };
    small.retention.rules.push((selection(&["a"]).selectors[0].clone(), newest));
    let log: Log<Load> = Log::new(small);
    let crowd: Vec<String> = (0..70).map(|n| format!("p/{n}")).collect();
    let crowd: Vec<&str> = crowd.iter().map(String::as_str).collect();
    let _crowd = open(&log, 0, &crowd, Start::Live);
    assert_eq!((append(&log, 0, &["c"]), append(&log, 0, &["a"])), (Ok(1), Ok(2)));
    let mut reader = open(&log, 0, &["a", "b", "c", "p/*"], Start::Earliest);
    append_all(&log, 0, [draft(&[topic("a"), topic("b")])]).unwrap();
    assert_eq!(append(&log, 0, &["a"]), Ok(4));
    assert_eq!(all(&mut reader, 0), (vec![1, 3, 4], vec![(0, 2)], Read::CaughtUp));
}
