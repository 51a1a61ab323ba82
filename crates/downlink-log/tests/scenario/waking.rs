//! Tests that check which readers an append wakes, and how often it wakes each reader.

use std::{
    sync::{Arc, atomic::Ordering},
    task::Waker,
};

use downlink_log::{Address, EndReason, Log, Read, Reader, Selection, Start};

use crate::support::{
    Count, Load, Seen, append, append_all, client, draft, ms, options, selection, topic,
};

struct Waiting {
    reader: Reader<Load>,
    count: Arc<Count>,
}

impl Waiting {
    fn open(log: &Log<Load>, selection: &Selection) -> Self {
        let reader = log.open(ms(0), selection, &Start::Live).expect("room for a reader");
        let waiting = Self { reader, count: Arc::default() };
        waiting.register();
        waiting
    }

    fn register(&self) {
        self.reader.register(&Waker::from(Arc::clone(&self.count)));
    }

    /// Returns the number of wake-ups since the last call, and registers the reader again.
    fn woken(&self) -> usize {
        self.register();
        self.count.0.swap(0, Ordering::Relaxed)
    }
}

#[test]
fn an_append_wakes_only_readers_of_its_addresses() {
    let log: Log<Load> = Log::new(options());
    let inbox = Selection { client: Some(client("alice")), ..Selection::default() };
    let readers = [
        Waiting::open(&log, &selection(&["a"])),
        Waiting::open(&log, &selection(&["a/*"])),
        Waiting::open(&log, &selection(&["a", "a/x"])),
        Waiting::open(&log, &inbox),
    ];
    let woken = || readers.each_ref().map(Waiting::woken);
    append(&log, 0, &["a"]).unwrap();
    assert_eq!(woken(), [1, 0, 1, 0]);
    append(&log, 0, &["a/x"]).unwrap();
    assert_eq!(woken(), [0, 1, 1, 0]);
    append(&log, 0, &["a", "a/x"]).unwrap();
    assert_eq!(woken(), [1, 1, 1, 0]);
    append(&log, 0, &["b"]).unwrap();
    assert_eq!(woken(), [0, 0, 0, 0]);
    append_all(&log, 0, [draft(&[Address::Client(client("alice"))])]).unwrap();
    assert_eq!(woken(), [0, 0, 0, 1]);
    append_all(&log, 0, [draft(&[Address::Everyone])]).unwrap();
    assert_eq!(woken(), [1, 1, 1, 1]);
    assert_eq!(log.disconnect(&client("alice")), 1);
    assert_eq!(log.disconnect(&client("bob")), 0);
    assert_eq!(woken(), [0, 0, 0, 1]);
    log.end_all(EndReason::Drained);
    assert_eq!(woken(), [1, 1, 1, 1]);
}

#[test]
fn many_appends_before_a_read_wake_the_reader_once() {
    let log: Log<Load> = Log::new(options());
    let waiting = Waiting::open(&log, &selection(&["a"]));
    for _ in 0..5 {
        append(&log, 0, &["a"]).unwrap();
    }
    append_all(&log, 0, [draft(&[topic("a")]), draft(&[topic("a")])]).unwrap();
    assert_eq!(waiting.woken(), 1);
}

#[test]
fn a_repeated_batch_wakes_no_reader() {
    let log: Log<Load> = Log::new(options());
    let waiting = Waiting::open(&log, &selection(&["a"]));
    let with_key = || {
        let mut event = draft(&[topic("a")]);
        event.key = Some(downlink_log::IdempotencyKey { credential: "".into(), key: "k".into() });
        event
    };
    append_all(&log, 0, [with_key()]).unwrap();
    assert_eq!(waiting.woken(), 1);
    assert!(append_all(&log, 0, [with_key()]).unwrap()[0].repeated);
    assert_eq!(waiting.woken(), 0);
}

#[test]
fn a_reader_ends_after_all_events_and_reports_the_first_end_reason() {
    let log: Log<Load> = Log::new(options());
    let mut reader = log.open(ms(0), &selection(&["a"]), &Start::Live).unwrap();
    append(&log, 0, &["a"]).unwrap();
    log.end_all(EndReason::Drained);
    log.close();
    let mut seen = Seen::default();
    assert_eq!(seen.read_all(&mut reader, 0), Read::Ended(EndReason::Drained));
    assert_eq!(seen.offsets, [1]);
}
