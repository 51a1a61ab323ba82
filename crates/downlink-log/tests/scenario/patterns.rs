//! Readers with patterns, in a log with many topics. The readers must get the right events, and
//! each call must do only a limited amount of work.

use std::{
    sync::{Arc, atomic::Ordering},
    task::Waker,
};

use downlink_log::{EndReason, Log, Read, Reader, Retention, Start};

use crate::support::{ALL, Count, Load, Seen, append, ms, options, selection};

/// The number of events. The log's index has one row for each event, and one call of a reader may
/// visit only a fraction of these rows.
const EVENTS: u64 = 20_000;

/// Makes a log with many topics. Every thousandth event has a topic whose name begins with
/// `t/rare/`.
fn log() -> Log<Load> {
    let log = Log::new(options());
    for number in 1..=EVENTS {
        let rare = number % 1_000 == 0;
        let name = if rare { format!("t/rare/{number}") } else { format!("t/{number}") };
        assert_eq!(append(&log, 0, &[&name]), Ok(number));
    }
    log
}

/// Opens a reader of `t/rare/*` and `t/{n}/none`. The second pattern matches no topic, but all
/// topics begin with its prefix `t/`.
fn open(log: &Log<Load>, start: Start) -> Reader<Load> {
    log.open(ms(0), &selection(&["t/rare/*", "t/{n}/none"]), &start).expect("within the limits")
}

/// Polls until the log has found the reader's first offset. Returns how often a poll returned
/// `Pending`.
fn begin(reader: &mut Reader<Load>) -> usize {
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut pending = 0;
    while reader.poll_begun(&waker).is_pending() {
        pending += 1;
        assert_eq!(
            count.0.load(Ordering::Relaxed),
            pending,
            "the reader must wake itself to continue"
        );
    }
    pending
}

/// Reads everything. Like a task, it registers a waker before each read. Returns the events, and
/// the number of reads that stopped early because they had reached the limit of work.
fn read_all(reader: &mut Reader<Load>) -> (Seen, usize) {
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let (mut seen, mut fetching) = (Seen::default(), 0);
    loop {
        reader.register(&waker);
        match seen.read(reader, 0, ALL) {
            Read::CaughtUp | Read::Ended(_) => return (seen, fetching),
            Read::Fetching => {
                fetching += 1;
                assert_eq!(
                    count.0.load(Ordering::Relaxed),
                    fetching,
                    "the reader must wake itself to continue"
                );
            }
            _ => {}
        }
    }
}

fn rare() -> Vec<u64> {
    (1..=EVENTS / 1_000).map(|n| n * 1_000).collect()
}

#[test]
fn a_pattern_reader_finds_its_history() {
    let log = log();
    let mut reader = open(&log, Start::Earliest);
    begin(&mut reader);
    assert_eq!(reader.cursor().next.get(), 1_000);
    let (seen, _) = read_all(&mut reader);
    assert_eq!((seen.offsets, seen.gaps), (rare(), vec![]));
}

#[test]
fn a_search_that_finds_nothing_takes_several_polls() {
    let log = log();
    let selection = selection(&["t/{n}/none", "t/{n}/{m}/none"]);
    for start in [Start::Earliest, Start::Last(5)] {
        let mut reader = log.open(ms(0), &selection, &start).unwrap();
        assert!(begin(&mut reader) >= 3, "{start:?}");
        assert_eq!(reader.cursor(), log.tail());
        assert_eq!(read_all(&mut reader).0.offsets, [0; 0]);
    }
    let mut reader = log.open(ms(0), &selection, &Start::After("70000000-0".into())).unwrap();
    assert_eq!(begin(&mut reader), 0, "nothing was evicted, so no search is necessary");
    let (seen, fetching) = read_all(&mut reader);
    assert!(fetching >= 3 && seen.offsets.is_empty() && seen.gaps.is_empty());
    append(&log, 0, &["t/1/none"]).unwrap();
    assert_eq!(read_all(&mut reader).0.offsets, [EVENTS + 1]);
}

#[test]
fn a_pattern_reader_can_start_with_the_newest_events() {
    let log = log();
    let mut reader = open(&log, Start::Last(3));
    begin(&mut reader);
    assert_eq!(read_all(&mut reader).0.offsets, rare()[17..]);
    let mut all = open(&log, Start::Last(1_000));
    begin(&mut all);
    assert_eq!(read_all(&mut all).0.offsets, rare());
}

/// The log ends the reader before the first read. The reader must still get its history, which
/// takes several reads.
#[test]
fn a_reader_gets_its_history_before_it_ends() {
    for start in [Start::Earliest, Start::After("70000000-0".into())] {
        let log = log();
        let selectors = ["t/rare/*", "t/{n}/none", "t/{n}/{m}/none"];
        let mut reader = log.open(ms(0), &selection(&selectors), &start).unwrap();
        log.end_all(EndReason::Drained);
        let (seen, _) = read_all(&mut reader);
        assert_eq!((seen.offsets, seen.end), (rare(), Some(EndReason::Drained)), "{start:?}");
    }
}

/// A reader with `Start::Last` begins with exactly the requested number of newest events. To find
/// them, the log sorts offsets if the number is small, and otherwise searches in several steps.
/// This test requests small and large numbers.
#[test]
fn a_reader_can_start_with_many_of_the_newest_events() {
    let mut long = options();
    long.retention.default = Retention { events_max: 10_000, ..Retention::DEFAULT };
    let log: Log<Load> = Log::new(long);
    for number in 1..=6_000 {
        append(&log, 0, &[["a", "b", "c"][number % 3]]).unwrap();
    }
    let of_both: Vec<u64> = (1..=6_000).filter(|number| number % 3 < 2).collect();
    for count in [0, 1, 4_000, 4_001, 100_000] {
        for (selectors, all) in [(["a", "b"], &of_both), (["a", "*"], &(1..=6_000).collect())] {
            let mut reader = log.open(ms(0), &selection(&selectors), &Start::Last(count)).unwrap();
            begin(&mut reader);
            let first = all.len().saturating_sub(count);
            assert_eq!(read_all(&mut reader).0.offsets, all[first..], "{count}");
        }
    }
    let mut reader = log.open(ms(0), &selection(&["*"]), &Start::Last(5_000)).unwrap();
    begin(&mut reader);
    assert_eq!(reader.cursor().next.get(), 1_001);
}

#[test]
fn a_reconnecting_pattern_reader_gets_a_gap_for_evicted_events() {
    let mut one = options();
    one.retention.default = Retention { events_max: 1, ..Retention::DEFAULT };
    let log: Log<Load> = Log::new(one);
    for number in 0..200 {
        append(&log, 0, &[&format!("t/{number}/x")]).unwrap();
    }
    append(&log, 0, &["t/7/x"]).unwrap();
    append(&log, 0, &["other"]).unwrap();
    let mut reader =
        log.open(ms(0), &selection(&["t/{n}/x"]), &Start::After("70000000-5".into())).unwrap();
    begin(&mut reader);
    let (seen, _) = read_all(&mut reader);
    assert_eq!(seen.gaps, [(5, 8)]);
    assert_eq!(seen.offsets, (6..=201).filter(|offset| *offset != 8).collect::<Vec<_>>());
}

/// A pattern keeps a row for each of its newest events, up to a limit. In this test, more events
/// than this limit arrive between two reads.
#[test]
fn no_event_is_lost_in_a_burst_of_more_events_than_a_pattern_has_rows() {
    let log: Log<Load> = Log::new(options());
    let mut reader = log.open(ms(0), &selection(&["*"]), &Start::Live).unwrap();
    for burst in [1, 63, 64, 65, 66, 500] {
        let from = log.tail().next.get();
        for number in 0..burst {
            append(&log, 0, &[&format!("t/{number}")]).unwrap();
        }
        assert_eq!(read_all(&mut reader).0.offsets, (from..from + burst).collect::<Vec<_>>());
    }
}
