//! Real threads use one replica, which is a log that copies another log, its upstream. One thread
//! feeds the replica. In this feed, the upstream evicts events, some of them before the replica
//! gets them. The feed is also begun again at random, either where it stopped or from the first
//! offset. Another thread answers the replica when it asks where its upstream ends. The other
//! threads open readers, read and reconnect.
//!
//! Each client must get every event of its topics once and in order, or a gap that has the event.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use downlink_log::{
    Applier, Batch, Cursor, Follower, FollowerTask, Log, Offset, Read, Retention, RetentionRules,
    Start, store::FeedChunk,
};

use crate::feed::{Text, after, chunk, epoch, event, floor, start, unfed};
use crate::support::{Seen, block_on, ms, selection, topic};

const EVENTS: u64 = 20_000;
const TOPICS: u64 = 5;
const CLIENTS: u64 = 4;

/// The end of the upstream: the events below it are published.
struct Upstream {
    end: AtomicU64,
}

fn name(number: u64) -> String {
    format!("t/{}", number % TOPICS)
}

/// The part of the feed in `from..until`. `floors` are the floors of the topics at the upstream.
fn part(from: u64, until: u64, floors: &[u64; TOPICS as usize]) -> FeedChunk {
    let is_kept = |at: &u64| floors[(at % TOPICS) as usize] <= *at;
    let events = (from..until).filter(is_kept).map(|at| event(at, &[&name(at)]));
    let mut part = chunk(events, until);
    let raised = (0..TOPICS).zip(floors).filter(|(_, floor)| **floor > 1);
    part.floors = raised.map(|(number, at)| (topic(&name(number)), floor(*at))).collect();
    part
}

fn feed(applier: &mut Applier<Text>, upstream: &Upstream) {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut floors = [1; TOPICS as usize];
    let mut from = 1;
    applier.begin(start(&[(1, 1)], 1, false));
    while from <= EVENTS {
        let end = upstream.end.load(Ordering::SeqCst).max(from + rng.u64(1..40)).min(EVENTS + 1);
        upstream.end.store(end, Ordering::SeqCst);
        match rng.u8(0..60) {
            0 => {
                from = 1;
                applier.begin(start(&[(1, 1)], 1, false));
            }
            1 => assert!(applier.begin(start(&[(1, 1)], from, true))),
            // The upstream evicts events before they are fed.
            2..10 => {
                let number = rng.usize(0..floors.len());
                let offset = rng.u64(1..=end) / TOPICS * TOPICS + number as u64;
                floors[number] = floors[number].max((offset + 1).min(end));
            }
            _ => {
                let until = (from + rng.u64(1..400)).min(end);
                let _ = applier.apply(part(from, until, &floors));
                from = until;
            }
        }
        let _ = applier.idle(ms(0));
    }
}

/// Answers questions until the log is closed.
fn answer(follower: &Follower<Text>, upstream: &Upstream) {
    while let FollowerTask::AskForEnd(question) =
        block_on(poll_fn(|task| follower.poll_task(task.waker())))
    {
        let end = Offset::new(upstream.end.load(Ordering::SeqCst));
        follower.confirm(question, Cursor { epoch: epoch(1), next: end });
    }
}

/// Reads as one client, over one connection after another, until the client has the last event.
fn follow(log: &Log<Text>, number: u64) -> Seen {
    let selectors: &[&str] =
        [&["t/1"][..], &["t/*"], &["t/1", "t/2"], &["{x}/3", "t/4"]][(number % CLIENTS) as usize];
    let mut rng = fastrand::Rng::with_seed(number);
    let (mut seen, mut last) = (Seen::default(), 0);
    let batch = Batch { events_max: 7, bytes_max: usize::MAX };
    while last < EVENTS {
        let mut reader =
            log.open(ms(0), &selection(selectors), &after(1, last)).expect("room for a reader");
        block_on(poll_fn(|task| reader.poll_begun(task.waker()))).expect("there is no store");
        seen.end = None;
        for _ in 0..rng.u8(1..50) {
            match seen.read(&mut reader, 0, batch) {
                Read::Ended(_) => break,
                Read::CaughtUp | Read::Fetching => thread::yield_now(),
                _ => {}
            }
        }
        if reader.has_begun() {
            last = last.max(reader.cursor().next.get() - 1);
        }
    }
    for offset in 1..=EVENTS {
        let wanted = selectors.iter().any(|selector| match *selector {
            "t/*" => true,
            "{x}/3" => offset % TOPICS == 3,
            exact => exact == name(offset),
        });
        assert!(!wanted || seen.covers(offset..=offset), "client {number} misses {offset}");
    }
    seen
}

#[test]
fn clients_of_a_busy_replica_get_every_event_or_a_gap() {
    let (log, mut applier) = unfed(|options| {
        let default = Retention { events_max: 300, ..Retention::DEFAULT };
        options.retention = RetentionRules { default, ..RetentionRules::default() };
    });
    let (follower, upstream) = (applier.follower(), Upstream { end: AtomicU64::new(1) });
    let upstream = &upstream;
    thread::scope(|threads| {
        threads.spawn(move || answer(&follower, upstream));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let log = log.clone();
                threads.spawn(move || follow(&log, number))
            })
            .collect();
        feed(&mut applier, upstream);
        let seen: Vec<Seen> =
            clients.into_iter().map(|client| client.join().expect("no client panics")).collect();
        assert!(seen.iter().all(|seen| !seen.offsets.is_empty()));
        assert!(seen.iter().any(|seen| !seen.gaps.is_empty()), "no event was missing");
        log.close();
    });
    assert_eq!(log.totals(ms(0)).subscribers, 0);
    let opened = log.open(ms(0), &selection(&["a"]), &Start::Live);
    assert!(opened.is_err(), "the log is closed");
}
