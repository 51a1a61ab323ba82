//! Tests with unusual payloads. The user of the log chooses the type of the payloads, so the code
//! of a payload may panic. It may also call the log when the payload is dropped.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use downlink_log::{Cursor, Draft, Log, Payload, Read, Retention, Start, Timestamp};

use crate::support::{
    ALL, Count, Seen, append_all, draft, draft_of, ms, options, selection, sizes, topic,
};

/// A payload that runs a closure when its last clone is dropped.
#[derive(Clone)]
struct Loud(Arc<OnDrop>);

struct OnDrop {
    bytes: usize,
    run: Box<dyn Fn() + Send + Sync>,
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        (self.run)();
    }
}

impl Payload for Loud {
    type Draft = Self;

    fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
        draft
    }

    fn bytes(&self) -> usize {
        self.0.bytes
    }
}

fn loud(on_drop: impl Fn() + Send + Sync + 'static) -> Loud {
    Loud(Arc::new(OnDrop { bytes: 1, run: Box::new(on_drop) }))
}

fn log_of_one_event() -> Log<Loud> {
    let mut options = options();
    let age_max = Some(Duration::from_millis(10));
    options.retention.default = Retention { events_max: 1, age_max, ..Retention::DEFAULT };
    options.limits.bytes_max = 200;
    Log::new(options)
}

/// The log evicts events by count, by the byte limit and by age. In each case, it drops the
/// payloads while it holds no lock.
#[test]
fn a_dropped_payload_may_call_the_log() {
    let log = log_of_one_event();
    let calls = Arc::new(AtomicUsize::new(0));
    let event = |name: &str| {
        let (called, calls) = (log.clone(), Arc::clone(&calls));
        let payload = loud(move || {
            called.totals(ms(0));
            called.topics(ms(0), "", None, 10);
            called.readers(Timestamp::default());
            drop(called.open(ms(0), &selection(&["other", "*"]), &Start::Earliest));
            append_all(&called, 0, [draft_of(&[topic("said")], loud(|| {}))]).unwrap();
            calls.fetch_add(1, Ordering::Relaxed);
        });
        append_all(&log, 0, [draft_of(&[topic(name)], payload)]).unwrap();
    };
    event("a");
    event("a");
    assert_eq!(calls.load(Ordering::Relaxed), 1, "the limit of events must evict one event");
    event("b");
    event("c");
    assert!(calls.load(Ordering::Relaxed) > 1, "the byte limit must evict an event");
    log.totals(ms(10));
    assert_eq!(calls.load(Ordering::Relaxed), 4, "the maximum age must evict the other events");
    assert_eq!(sizes(&log, ms(20)), (0, 0, 0, 0));
}

/// If a draft repeats an earlier draft, the log drops the payload of the repetition at once.
#[test]
fn the_payload_of_a_repetition_may_call_the_log_when_dropped() {
    let log = log_of_one_event();
    let with_id = |payload| Draft { id: Some("x".into()), ..draft_of(&[topic("a")], payload) };
    append_all(&log, 0, [with_id(loud(|| {}))]).unwrap();
    let called = log.clone();
    let again = loud(move || {
        append_all(&called, 0, [draft_of(&[topic("said")], loud(|| {}))]).unwrap();
    });
    assert!(append_all(&log, 0, [with_id(again)]).unwrap()[0].repeated);
    assert_eq!(log.tail().next.get(), 3);
}

#[test]
fn an_append_is_complete_even_if_the_drop_of_an_evicted_payload_panics() {
    let log = log_of_one_event();
    let mut reader = log.open(ms(0), &selection(&["*"]), &Start::Live).unwrap();
    let angry = || loud(|| panic!("dropped"));
    append_all(&log, 0, [draft_of(&[topic("a")], angry())]).unwrap();
    let woken = Arc::new(Count::default());
    reader.register(&woken.clone().into());
    let outcome =
        catch_unwind(AssertUnwindSafe(|| append_all(&log, 0, [draft_of(&[topic("a")], angry())])));
    assert!(outcome.is_err());
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(log.totals(ms(0)).events, 1);
    let mut out = Vec::new();
    assert!(matches!(reader.read(ms(0), ALL, &mut out), Read::Gap(_)));
    assert_eq!(reader.read(ms(0), ALL, &mut out), Read::Events);
    assert_eq!(out[0].offset.get(), 2);
    // The log has dropped its clone of the payload. The only clone left is in `out`.
    assert_eq!(sizes(&log, ms(10)), (1, 0, 0, 0));
    assert!(catch_unwind(AssertUnwindSafe(|| drop(out))).is_err());
    append_all(&log, 10, [draft_of(&[topic("a")], loud(|| {}))]).unwrap();
    let mut out = Vec::new();
    assert_eq!(reader.read(ms(10), ALL, &mut out), Read::Events);
}

/// A payload whose method `stamp` may panic.
#[derive(Clone)]
struct Broken;

impl Payload for Broken {
    type Draft = bool;

    fn stamp(broken: bool, _: Cursor, _: Timestamp) -> Self {
        assert!(!broken, "the payload's bug");
        Self
    }

    fn bytes(&self) -> usize {
        1
    }
}

#[test]
fn a_batch_is_not_appended_if_the_method_stamp_panics() {
    let log: Log<Broken> = Log::new(options());
    let mut reader = log.open(ms(0), &selection(&["*"]), &Start::Live).unwrap();
    let before = (log.tail(), log.totals(ms(0)));
    let draft = |name: &str, broken| {
        let Draft { to, fingerprint, .. } = draft(&[topic(name)]);
        let (id, key, body, payload) = (None, None, None, Some(broken));
        Draft { to, id, key, fingerprint, finish: false, body, payload }
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        append_all(&log, 0, [draft("a", false), draft("b", true), draft("c", false)])
    }));
    assert!(outcome.is_err());
    assert_eq!((log.tail(), log.totals(ms(0))), before);
    assert_eq!(append_all(&log, 0, [draft("b", false)]).unwrap()[0].offset.get(), 1);
    let mut seen = Seen::default();
    let _ = seen.read_all(&mut reader, 0);
    assert_eq!((seen.offsets, seen.gaps), (vec![1], vec![]));
}
