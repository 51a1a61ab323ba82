//! A replica is a log that copies another log, its upstream. The applier of a replica, which adds
//! the copied events, runs at the same time as readers that open, wait and read.

use std::{future::poll_fn, task::Poll};

use downlink_log::{
    Applied, Applier, ClockState, Cursor, EndReason, Epoch, Fingerprint, Floor, Follower,
    FollowerTask, Log, Offset, Read, Reader, Start, StoreOptions,
    store::{FeedChunk, FeedStart, Marks, StoredEvent},
};
use loom::{future::block_on, thread};

use crate::support::{ALL, Load, Seen, append, ms, options, topic};
use crate::{follow, log_with, model, open};

fn start(number: u64, resumed: bool) -> FeedStart {
    let epochs = vec![(Epoch::from_random(number), Offset::FIRST)];
    FeedStart { epochs, from: Offset::FIRST, resumed }
}

/// A replica that has reached the end of its upstream, which has no events.
fn replica() -> (Log<Load>, Applier<Load>) {
    let side = StoreOptions::new(|_| Some(Load), ClockState::default);
    let (log, mut applier) = Log::replica(options(), side, None).expect("no thread is started");
    applier.begin(start(7, false));
    answer(&applier.follower(), 1);
    (log, applier)
}

/// Waits until the replica asks for the end of its upstream, and answers that the end is `next`.
fn answer(follower: &Follower<Load>, next: u64) {
    let task = block_on(poll_fn(|task| follower.poll_task(task.waker())));
    let FollowerTask::AskForEnd(question) = task else { panic!("{task:?} is not a question") };
    let end = Cursor { epoch: Epoch::from_random(7), next: Offset::new(next) };
    follower.confirm(question, end);
}

fn event(offset: u64, name: &str) -> StoredEvent {
    StoredEvent {
        offset: Offset::new(offset),
        at: ms(0),
        to: [topic(name)].into_iter().collect(),
        id: None,
        key: None,
        fingerprint: Fingerprint::default(),
        finish: false,
        payload: Some(Vec::new()),
    }
}

fn chunk(events: impl IntoIterator<Item = StoredEvent>, next: u64) -> FeedChunk {
    FeedChunk {
        floors: Vec::new(),
        others: Floor::NONE,
        events: events.into_iter().collect(),
        next: Offset::new(next),
        clock: ClockState::default(),
        marks: Marks::default(),
        node: None,
    }
}

/// The start after the event at an offset.
fn after(offset: u64) -> Start {
    Start::After(format!("{}-{offset}", Epoch::from_random(7)).into())
}

/// Waits until the reader knows where it begins, or must end.
fn begin(reader: &mut Reader<Load>) {
    block_on(poll_fn(|task| reader.poll_begun(task.waker()))).expect("there is no store");
}

#[test]
fn a_chunk_wakes_a_waiting_reader() {
    model(3, || {
        let (log, mut applier) = replica();
        let mut reader = open(&log, &["a"], Start::Live);
        let applying = thread::spawn(move || {
            assert_eq!(applier.apply(chunk([event(3, "a"), event(5, "a")], 6)), Applied::Next);
            applier
        });
        let seen = follow(&mut reader, |seen| seen.offsets.len() == 2);
        assert_eq!((seen.offsets, seen.gaps), (vec![3, 5], vec![]));
        drop((applying.join().expect("no panic"), log));
    });
}

/// The upstream has evicted event 2. A reader that opens while the chunk is applied must get the
/// events 1 and 3, and a gap that has event 2. The replica first raises the topic's floor (the
/// offset below which events are missing), and then moves the tail (the next offset that readers
/// will see). A pattern that is added between these two steps must not miss the floor.
fn opens_during_a_chunk_with_a_floor(selector: &'static str, start: fn() -> Start) {
    model(2, move || {
        let (log, mut applier) = replica();
        assert_eq!(applier.apply(chunk([event(1, "a")], 2)), Applied::Next);
        let applying = thread::spawn(move || {
            let mut part = chunk([event(3, "a")], 4);
            part.floors.push((topic("a"), Floor { offset: Offset::new(3), at: ms(0) }));
            assert_eq!(applier.apply(part), Applied::Next);
            applier
        });
        let mut reader = open(&log, &[selector], start());
        begin(&mut reader);
        let from = reader.cursor().next.get();
        let mut seen = follow(&mut reader, |seen| seen.offsets.last() == Some(&3));
        let _ = seen.read_by(&mut reader, 0, ALL);
        // A reader that begins at event 3 has asked for no older event.
        assert!(from == 3 || seen.covers(from.max(1)..4), "{from}: {seen:?}");
        drop((applying.join().expect("no panic"), log));
    });
}

#[test]
fn a_reader_that_resumes_during_a_chunk_gets_the_gap() {
    opens_during_a_chunk_with_a_floor("a", || after(0));
}

#[test]
fn a_pattern_reader_that_resumes_during_a_chunk_gets_the_gap() {
    opens_during_a_chunk_with_a_floor("*", || after(0));
}

#[test]
fn a_pattern_reader_that_asks_for_all_history_during_a_chunk_gets_the_gap() {
    opens_during_a_chunk_with_a_floor("*", || Start::Earliest);
}

#[test]
fn a_reader_ahead_of_the_replica_waits_for_the_confirmation() {
    model(2, || {
        let (log, mut applier) = replica();
        let follower = applier.follower();
        let asking = thread::spawn(move || answer(&follower, 3));
        let applying = thread::spawn(move || {
            assert_eq!(applier.apply(chunk([event(1, "a"), event(2, "a")], 3)), Applied::Next);
            applier
        });
        // If the chunk is applied before the first reader opens, the replica knows the id of this
        // reader, and the reader does not wait. The replica never knows the id of the second
        // reader. So the second reader always waits, and the question is asked.
        let mut reader = open(&log, &["a"], after(1));
        let mut unknown = open(&log, &["a"], after(9));
        begin(&mut reader);
        let seen = follow(&mut reader, |seen| !seen.offsets.is_empty());
        assert_eq!((seen.offsets, seen.gaps), (vec![2], vec![]));
        asking.join().expect("no panic");
        drop((applying.join().expect("no panic"), log));
        // The applier is gone, so the reader has begun or must end.
        begin(&mut unknown);
    });
}

#[test]
fn a_reader_that_opens_during_a_restart_ends_or_belongs_to_the_new_history() {
    model(2, || {
        let (log, mut applier) = replica();
        let restarting = thread::spawn(move || {
            applier.begin(start(8, false));
            applier
        });
        let mut reader = open(&log, &["a"], Start::Live);
        let mut applier = restarting.join().expect("no panic");
        assert_eq!(applier.apply(chunk([event(1, "a")], 2)), Applied::Next);
        let read = reader.read(ms(0), ALL, &mut Vec::new());
        let waits = !reader.has_begun();
        assert!(read == Read::Ended(EndReason::Drained) || (waits && read == Read::Fetching));
        let is_old = read == Read::Ended(EndReason::Drained);
        assert_eq!(log.totals(ms(0)).subscribers, usize::from(!is_old));
        drop(applier);
        let mut seen = Seen::default();
        let _ = seen.read_all(&mut reader, 0);
        assert!(seen.end.is_some());
    });
}

/// A feed is opened while another thread appends. The feed must get each event once, and the
/// appends must wake it.
#[test]
fn a_feed_that_is_opened_during_an_append_has_every_event() {
    model(3, || {
        let log = log_with(|_| {});
        let publisher = thread::spawn({
            let log = log.clone();
            move || {
                append(&log, 0, &["a"]).unwrap();
                append(&log, 0, &["a"]).unwrap();
            }
        });
        let mut feed = log.feed(None, |_| Vec::new());
        let mut offsets = Vec::new();
        block_on(poll_fn(|task| {
            while feed.poll_ready(task.waker()).is_ready() {
                let chunk = feed.read(ClockState::default()).unwrap().expect("the log is open");
                offsets.extend(chunk.events.iter().map(|event| event.offset.get()));
                if chunk.next.get() == 3 {
                    return Poll::Ready(());
                }
            }
            Poll::Pending
        }));
        assert_eq!(offsets, [1, 2]);
        publisher.join().unwrap();
    });
}
