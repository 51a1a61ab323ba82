//! Loom runs small programs (models) in all interleavings of their threads, up to a number of
//! preemptions. A preemption stops a thread that could go on, and runs another thread. In each
//! interleaving, no event may be lost, and no reader may wait forever.
//!
//! If the log does not wake a waiting reader, loom reports a deadlock. With two threads, a run has
//! up to three preemptions. With three threads, it has up to two preemptions. More preemptions take
//! much longer and have found no further errors.
//!
//! The index is a list of all events of all topics. Normally, only readers of many topics read
//! through the index. In these models, readers of two topics read through the index too (see
//! `MERGE_ALWAYS`).
#![cfg(downlink_loom)]

#[path = "loom/replica.rs"]
mod replica;
#[allow(dead_code, reason = "each test binary uses only a part of this module")]
#[path = "stored/shelf.rs"]
mod shelf;
mod support;
#[path = "loom/writer.rs"]
mod writer;

use std::{
    cell::Cell,
    future::poll_fn,
    sync::{Arc, OnceLock},
    task::{Poll, Waker},
    time::Duration,
};

use downlink_log::{
    Address, AppendError, Batch, EndReason, Log, LogOptions, Read, Reader, Retention,
    RetentionRules, Start, WakeMany,
};
use loom::{future::block_on, thread};
use support::{
    ALL, EVENT_COST_BYTES, Load, SINGLY, Seen, append, append_all, client, draft, ms, options,
    selection, topic,
};

fn model(preemptions: usize, program: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(program);
}

fn log_with(change: impl FnOnce(&mut LogOptions)) -> Log<Load> {
    let mut options = options();
    change(&mut options);
    Log::new(options)
}

fn open(log: &Log<Load>, selectors: &[&str], start: Start) -> Reader<Load> {
    log.open(ms(0), &selection(selectors), &start).expect("room for a reader")
}

/// Reads until `enough` returns true or the log ends the reader. Waits if there is nothing to read.
fn follow(reader: &mut Reader<Load>, enough: impl Fn(&Seen) -> bool) -> Seen {
    follow_by(ALL, reader, enough)
}

/// Like [`follow`], but with batches of this size.
fn follow_by(batch: Batch, reader: &mut Reader<Load>, enough: impl Fn(&Seen) -> bool) -> Seen {
    follow_as(|reader, waker| reader.register(waker), batch, reader, enough)
}

/// Like [`follow_by`], but `register` decides how the reader is registered for its next wake-up.
fn follow_as(
    register: impl Fn(&Reader<Load>, &Waker),
    batch: Batch,
    reader: &mut Reader<Load>,
    enough: impl Fn(&Seen) -> bool,
) -> Seen {
    let mut seen = Seen::default();
    block_on(poll_fn(|task| {
        for _ in 0..2 {
            let _ = seen.read_by(reader, 0, batch);
            if seen.end.is_some() || enough(&seen) {
                return Poll::Ready(());
            }
            register(reader, task.waker());
        }
        Poll::Pending
    }));
    seen
}

#[test]
fn an_append_wakes_a_waiting_reader() {
    model(3, || {
        let log = log_with(|_| {});
        let mut reader = open(&log, &["a"], Start::Live);
        let publisher = thread::spawn(move || append(&log, 0, &["a"]).unwrap());
        let seen = follow(&mut reader, |seen| !seen.offsets.is_empty());
        assert_eq!(seen.offsets, [1]);
        publisher.join().unwrap();
    });
}

#[test]
fn a_waiting_reader_reads_events_one_by_one() {
    model(3, || {
        let log = log_with(|_| {});
        let mut reader = open(&log, &["a"], Start::Live);
        let publisher = thread::spawn(move || {
            append(&log, 0, &["a"]).unwrap();
            append(&log, 0, &["a"]).unwrap();
        });
        let seen = follow_by(SINGLY, &mut reader, |seen| seen.offsets.len() == 2);
        assert_eq!((seen.offsets, seen.gaps), (vec![1, 2], vec![]));
        publisher.join().unwrap();
    });
}

/// A server that wakes its readers by their keys. A key is a number that the server has chosen for
/// a reader. This server has one reader, with the key 7.
#[derive(Default)]
struct Server(OnceLock<Waker>);

impl WakeMany for Server {
    fn wake_many(&self, keys: &[u32]) {
        assert_eq!(keys, [7]);
        self.0.get().expect("the reader has registered before").wake_by_ref();
    }
}

#[test]
fn each_append_wakes_a_reader_that_registered_with_a_key() {
    model(3, || {
        let log = log_with(|_| {});
        let mut reader = open(&log, &["a"], Start::Live);
        let publisher = thread::spawn(move || {
            append(&log, 0, &["a"]).unwrap();
            append(&log, 0, &["a"]).unwrap();
        });
        let server = Arc::new(Server::default());
        let many: Arc<dyn WakeMany> = server.clone();
        let register = |reader: &Reader<Load>, waker: &Waker| {
            server.0.get_or_init(|| waker.clone());
            assert!(reader.register_with(&many, 7));
        };
        let seen = follow_as(register, ALL, &mut reader, |seen| seen.offsets.len() == 2);
        assert_eq!(seen.offsets, [1, 2]);
        publisher.join().unwrap();
    });
}

/// The reader registers sometimes with a key and sometimes with a waker. The log must use the last
/// registration.
#[test]
fn each_append_wakes_a_reader_that_alternates_between_key_and_waker() {
    model(2, || {
        let log = log_with(|_| {});
        let mut reader = open(&log, &["a"], Start::Live);
        let publishers = [(); 2].map(|()| {
            let log = log.clone();
            thread::spawn(move || append(&log, 0, &["a"]).unwrap())
        });
        let server = Arc::new(Server::default());
        let many: Arc<dyn WakeMany> = server.clone();
        // Of every three registrations, two use the key and one uses the waker.
        let registered = Cell::new(0);
        let register = |reader: &Reader<Load>, waker: &Waker| {
            server.0.get_or_init(|| waker.clone());
            if registered.replace(registered.get() + 1) % 3 > 0 {
                assert!(reader.register_with(&many, 7));
            } else {
                reader.register(waker);
            }
        };
        let seen = follow_as(register, ALL, &mut reader, |seen| seen.offsets.len() == 2);
        assert_eq!(seen.offsets, [1, 2]);
        for publisher in publishers {
            publisher.join().unwrap();
        }
    });
}

/// Each topic has a ring, which is the list of its newest events. Events that are published to
/// everyone are in a separate ring. One read may find events in both rings.
#[test]
fn a_reader_that_reads_one_event_at_a_time_skips_no_event_of_two_rings() {
    model(2, || {
        let log = log_with(|_| {});
        let mut reader = open(&log, &["a"], Start::Live);
        let publishers = [topic("a"), Address::Everyone].map(|to| {
            let log = log.clone();
            thread::spawn(move || append_all(&log, 0, [draft(&[to])]).unwrap())
        });
        let seen = follow_by(SINGLY, &mut reader, |seen| seen.offsets.len() == 2);
        assert_eq!((seen.offsets, seen.gaps), (vec![1, 2], vec![]));
        for publisher in publishers {
            publisher.join().unwrap();
        }
    });
}

#[test]
fn a_slow_reader_that_reads_one_event_at_a_time_gets_each_event_or_a_gap() {
    model(3, || {
        let log =
            log_with(|o| o.retention.default = Retention { events_max: 1, ..Retention::DEFAULT });
        let mut reader = open(&log, &["a"], Start::Live);
        let publisher = thread::spawn(move || {
            append(&log, 0, &["a"]).unwrap();
            append_all(&log, 0, [draft(&[topic("a"), Address::Everyone])]).unwrap();
        });
        let seen = follow_by(SINGLY, &mut reader, |seen| seen.covers(1..3));
        assert_eq!(seen.offsets.last(), Some(&2));
        publisher.join().unwrap();
    });
}

#[test]
fn a_reader_of_two_topics_skips_no_event() {
    model(2, || {
        let log = log_with(|_| {});
        let mut reader = open(&log, &["a", "b"], Start::Live);
        let publishers = ["a", "b"].map(|name| {
            let log = log.clone();
            thread::spawn(move || append(&log, 0, &[name]).unwrap())
        });
        let seen = follow(&mut reader, |seen| seen.offsets.len() == 2);
        assert_eq!((seen.offsets, seen.gaps), (vec![1, 2], vec![]));
        for publisher in publishers {
            publisher.join().unwrap();
        }
    });
}

#[test]
fn a_reader_of_two_topics_gets_their_common_event_once() {
    model(3, || {
        let log = log_with(|_| {});
        let mut reader = open(&log, &["a", "b"], Start::Live);
        let publisher = thread::spawn(move || {
            append(&log, 0, &["a", "b"]).unwrap();
            append(&log, 0, &["b"]).unwrap();
        });
        let seen = follow(&mut reader, |seen| seen.offsets.len() == 2);
        assert_eq!((seen.offsets, seen.gaps), (vec![1, 2], vec![]));
        publisher.join().unwrap();
    });
}

#[test]
fn a_pattern_reader_gets_the_event_of_a_topic_that_is_created_while_the_reader_opens() {
    for start in [Start::Live, Start::Earliest] {
        model(3, move || {
            let log = log_with(|_| {});
            let publisher = {
                let log = log.clone();
                thread::spawn(move || append(&log, 0, &["a/x"]).unwrap())
            };
            let mut reader = open(&log, &["a/*"], start.clone());
            let next = reader.cursor().next.get();
            publisher.join().unwrap();
            let mut seen = Seen::default();
            assert_eq!(seen.read_all(&mut reader, 0), Read::CaughtUp);
            assert_eq!(seen.offsets, (next..2).collect::<Vec<_>>());
            assert!(start == Start::Live || next == 1);
        });
    }
}

#[test]
fn dropping_a_reader_removes_no_event() {
    model(3, || {
        let log = log_with(|_| {});
        let reader = open(&log, &["a/x", "a/*"], Start::Live);
        let publisher = {
            let log = log.clone();
            thread::spawn(move || append(&log, 0, &["a/x"]).unwrap())
        };
        drop(reader);
        publisher.join().unwrap();
        let totals = log.totals(ms(0));
        assert_eq!((totals.subscribers, totals.topics, totals.events), (0, 1, 1));
        let mut reader = open(&log, &["a/*"], Start::Earliest);
        let mut seen = Seen::default();
        let _ = seen.read_all(&mut reader, 0);
        assert_eq!(seen.offsets, [1]);
    });
}

/// The first event expires at 10 ms. Only one reader names the event's topic. This reader is
/// dropped while another thread publishes a second event. When the topic has no events and no
/// readers, the log may remove (collect) it.
#[test]
fn no_event_is_lost_when_its_topic_is_collected_during_the_append() {
    model(2, || {
        let age_max = Some(Duration::from_millis(10));
        let log = log_with(|o| o.retention.default = Retention { age_max, ..Retention::DEFAULT });
        append(&log, 0, &["a"]).unwrap();
        let named = open(&log, &["a"], Start::Live);
        let mut by_pattern = open(&log, &["*"], Start::Earliest);
        let collector = {
            let log = log.clone();
            thread::spawn(move || {
                drop(named);
                log.totals(ms(12));
            })
        };
        assert_eq!(append(&log, 9, &["a"]), Ok(2));
        collector.join().unwrap();
        let mut seen = Seen::default();
        let _ = seen.read_all(&mut by_pattern, 12);
        assert!(seen.offsets == [2] && seen.covers(1..3), "{seen:?}");
        let mut late = open(&log, &["a"], Start::Earliest);
        let mut seen = Seen::default();
        let _ = seen.read_all(&mut late, 12);
        assert_eq!(seen.offsets, [2]);
        assert_eq!(log.totals(ms(12)).events, 1);
    });
}

#[test]
fn a_slow_reader_gets_each_event_or_a_gap() {
    model(3, || {
        let log =
            log_with(|o| o.retention.default = Retention { events_max: 1, ..Retention::DEFAULT });
        let mut reader = open(&log, &["a"], Start::Live);
        let publisher = thread::spawn(move || {
            append(&log, 0, &["a"]).unwrap();
            append(&log, 0, &["a"]).unwrap();
        });
        let seen = follow(&mut reader, |seen| seen.covers(1..3));
        assert_eq!(seen.offsets.last(), Some(&2));
        publisher.join().unwrap();
    });
}

/// To stay within its byte limit, the log evicts the oldest event. The log finds this event through
/// the index, which the reader reads at the same time.
#[test]
fn a_reader_of_many_topics_gets_a_gap_for_events_evicted_by_the_byte_limit() {
    model(3, || {
        let log = log_with(|o| o.limits.bytes_max = EVENT_COST_BYTES);
        let mut reader = open(&log, &["a", "b", "c"], Start::Live);
        append(&log, 0, &["a"]).unwrap();
        let publisher = thread::spawn(move || append(&log, 0, &["b"]).unwrap());
        let seen = follow(&mut reader, |seen| seen.offsets.last() == Some(&2));
        assert!(seen.covers(1..3), "{seen:?}");
        publisher.join().unwrap();
    });
}

#[test]
fn a_reader_that_opens_during_appends_gets_each_event_or_a_gap() {
    for start in [Start::Live, Start::Last(1), Start::Earliest, Start::After("70000000-0".into())] {
        model(2, move || {
            let log = log_with(|o| {
                o.retention.default = Retention { events_max: 1, ..Retention::DEFAULT }
            });
            let publisher = {
                let log = log.clone();
                thread::spawn(move || {
                    append(&log, 0, &["a"]).unwrap();
                    append(&log, 0, &["a"]).unwrap();
                })
            };
            let mut reader = open(&log, &["a"], start.clone());
            let next = reader.cursor().next.get();
            publisher.join().unwrap();
            let mut seen = Seen::default();
            let _ = seen.read_all(&mut reader, 0);
            assert!(seen.covers(next..3), "an event from offset {next} on is missing: {seen:?}");
        });
    }
}

#[test]
fn a_reader_gets_all_acknowledged_events_before_it_ends() {
    model(2, || {
        let log = log_with(|_| {});
        let mut reader = open(&log, &["a"], Start::Live);
        let publisher = {
            let log = log.clone();
            thread::spawn(move || append(&log, 0, &["a"]))
        };
        let closer = thread::spawn(move || log.close());
        let seen = follow(&mut reader, |_| false);
        assert_eq!(seen.end, Some(EndReason::Closed));
        match publisher.join().unwrap() {
            Ok(offset) => assert_eq!(seen.offsets, [offset]),
            Err(error) => assert_eq!((error, seen.offsets), (AppendError::Closed, vec![])),
        }
        closer.join().unwrap();
    });
}

#[test]
fn a_reader_opened_while_the_log_closes_is_ended() {
    model(3, || {
        let log = log_with(|_| {});
        let closer = {
            let log = log.clone();
            thread::spawn(move || log.close())
        };
        if let Ok(mut reader) = log.open(ms(0), &selection(&["a"]), &Start::Live) {
            assert_eq!(follow(&mut reader, |_| false).end, Some(EndReason::Closed));
        }
        closer.join().unwrap();
    });
}

#[test]
fn a_disconnect_ends_a_waiting_reader() {
    model(3, || {
        let log = log_with(|_| {});
        let alice = client("alice");
        let wanted = downlink_log::Selection { selectors: vec![], client: Some(alice.clone()) };
        let mut reader = log.open(ms(0), &wanted, &Start::Live).unwrap();
        let other = thread::spawn(move || assert_eq!(log.disconnect(&alice), 1));
        assert_eq!(follow(&mut reader, |_| false).end, Some(EndReason::Disconnected));
        other.join().unwrap();
    });
}

#[test]
fn a_waiting_reader_ends_after_the_last_event_of_its_topic() {
    model(3, || {
        let log = log_with(|_| {});
        let mut reader = open(&log, &["a"], Start::Live);
        let publisher = thread::spawn(move || {
            let mut last = draft(&[topic("a")]);
            last.finish = true;
            append_all(&log, 0, [last]).unwrap();
        });
        let seen = follow(&mut reader, |_| false);
        assert_eq!((seen.offsets, seen.end), (vec![1], Some(EndReason::Finished)));
        publisher.join().unwrap();
    });
}

#[test]
fn all_waiting_readers_get_an_event_to_everyone() {
    model(2, || {
        let log = log_with(|_| {});
        let mut reader = open(&log, &[], Start::Live);
        let mut other = open(&log, &["a"], Start::Live);
        let waiting = thread::spawn(move || follow(&mut other, |seen| !seen.offsets.is_empty()));
        let publisher = thread::spawn(move || append_all(&log, 0, [draft(&[Address::Everyone])]));
        assert_eq!(follow(&mut reader, |seen| !seen.offsets.is_empty()).offsets, [1]);
        assert_eq!(waiting.join().unwrap().offsets, [1]);
        assert!(publisher.join().unwrap().is_ok());
    });
}

#[test]
fn a_pattern_reader_that_opens_during_an_eviction_gets_each_event_or_a_gap() {
    for start in [Start::Live, Start::Last(1), Start::Earliest, Start::After("70000000-0".into())] {
        model(2, move || {
            let log = log_with(|o| {
                o.retention.default = Retention { events_max: 1, ..Retention::DEFAULT }
            });
            let publisher = {
                let log = log.clone();
                thread::spawn(move || {
                    append(&log, 0, &["a/x"]).unwrap();
                    append(&log, 0, &["a/x"]).unwrap();
                })
            };
            let mut reader = open(&log, &["a/*"], start.clone());
            let next = reader.cursor().next.get();
            publisher.join().unwrap();
            let mut seen = Seen::default();
            assert_eq!(seen.read_all(&mut reader, 0), Read::CaughtUp);
            assert!(seen.covers(next..3), "an event from offset {next} on is missing: {seen:?}");
        });
    }
}

#[test]
fn a_slow_reader_of_a_pattern_gets_each_event_or_a_gap() {
    for batch in [ALL, SINGLY] {
        model(3, move || {
            let log = log_with(|o| {
                o.retention.default = Retention { events_max: 1, ..Retention::DEFAULT }
            });
            let mut reader = open(&log, &["a/*"], Start::Live);
            let publisher = thread::spawn(move || {
                append(&log, 0, &["a/x"]).unwrap();
                append(&log, 0, &["a/x"]).unwrap();
            });
            let seen = follow_by(batch, &mut reader, |seen| seen.covers(1..3));
            assert_eq!(seen.offsets.last(), Some(&2));
            publisher.join().unwrap();
        });
    }
}

/// A pattern keeps a row for each of the newest events that it matches. In these models, a pattern
/// keeps only two rows. If the reader reads after the third publish, event 1 no longer has a row,
/// so the reader has to search the topics.
#[test]
fn a_pattern_reader_misses_no_event_that_no_longer_has_a_row() {
    model(2, || {
        let log = log_with(|_| {});
        let mut reader = open(&log, &["a/*"], Start::Live);
        append(&log, 0, &["a/x"]).unwrap();
        append(&log, 0, &["a/y"]).unwrap();
        let publisher = thread::spawn(move || append(&log, 0, &["a/x"]).unwrap());
        let mut seen = Seen::default();
        let _ = seen.read_all(&mut reader, 0);
        publisher.join().unwrap();
        assert_eq!(seen.read_all(&mut reader, 0), Read::CaughtUp);
        assert_eq!((seen.offsets, seen.gaps), (vec![1, 2, 3], vec![]));
    });
}

#[test]
fn two_readers_with_new_patterns_get_the_events_after_their_cursors() {
    model(2, || {
        let log = log_with(|_| {});
        let publisher = {
            let log = log.clone();
            thread::spawn(move || append(&log, 0, &["a/x"]).unwrap())
        };
        let other = {
            let log = log.clone();
            thread::spawn(move || open(&log, &["a/*"], Start::Live))
        };
        let mine = open(&log, &["a/{n}"], Start::Live);
        let readers = [mine, other.join().unwrap()];
        publisher.join().unwrap();
        for mut reader in readers {
            let next = reader.cursor().next.get();
            let mut seen = Seen::default();
            assert_eq!(seen.read_all(&mut reader, 0), Read::CaughtUp);
            assert_eq!(seen.offsets, (next..2).collect::<Vec<_>>());
        }
    });
}

#[test]
fn dropping_a_reader_keeps_its_pattern_for_other_readers() {
    model(3, || {
        let log = log_with(|_| {});
        let leaving = open(&log, &["a/*"], Start::Live);
        let mut staying = open(&log, &["a/*"], Start::Live);
        let publisher = thread::spawn(move || append(&log, 0, &["a/x"]).unwrap());
        drop(leaving);
        assert_eq!(follow(&mut staying, |seen| !seen.offsets.is_empty()).offsets, [1]);
        publisher.join().unwrap();
    });
}

#[test]
fn a_pattern_reader_that_reconnects_gets_each_event_or_a_gap() {
    model(3, || {
        let log =
            log_with(|o| o.retention.default = Retention { events_max: 1, ..Retention::DEFAULT });
        let leaving = open(&log, &["a/*"], Start::Live);
        let publisher = {
            let log = log.clone();
            thread::spawn(move || {
                append(&log, 0, &["a/x"]).unwrap();
                append(&log, 0, &["a/x"]).unwrap();
            })
        };
        let last_id = leaving.cursor().to_string();
        drop(leaving);
        let mut reader = open(&log, &["a/*"], Start::After(last_id.into()));
        publisher.join().unwrap();
        let mut seen = Seen::default();
        assert_eq!(seen.read_all(&mut reader, 0), Read::CaughtUp);
        assert!(seen.covers(1..3), "{seen:?}");
    });
}

/// The first event expires at 10 ms. The log then removes (collects) the event's topic while the
/// reader searches for the event.
#[test]
fn a_topic_collected_during_a_pattern_search_leaves_a_gap() {
    for start in [Start::Earliest, Start::After("70000000-0".into())] {
        model(2, move || {
            let age_max = Some(Duration::from_millis(10));
            let log =
                log_with(|o| o.retention.default = Retention { age_max, ..Retention::DEFAULT });
            append(&log, 0, &["a/x"]).unwrap();
            let collector = {
                let log = log.clone();
                thread::spawn(move || log.totals(ms(12)))
            };
            let mut reader = open(&log, &["a/*"], start.clone());
            let next = reader.cursor().next.get();
            let mut seen = Seen::default();
            assert_eq!(seen.read_all(&mut reader, 0), Read::CaughtUp);
            assert!(seen.covers(next..2), "an event from offset {next} on is missing: {seen:?}");
            assert!(next == 1 || start == Start::Earliest);
            collector.join().unwrap();
        });
    }
}

/// Like the test above, but another event is published to the collected topic, which creates the
/// topic again.
#[test]
fn a_topic_recreated_during_a_pattern_search_hides_no_event() {
    for start in [Start::Earliest, Start::After("70000000-0".into())] {
        model(2, move || {
            let age_max = Some(Duration::from_millis(10));
            let log =
                log_with(|o| o.retention.default = Retention { age_max, ..Retention::DEFAULT });
            append(&log, 0, &["a/x"]).unwrap();
            let publisher = {
                let log = log.clone();
                thread::spawn(move || append(&log, 12, &["a/x"]).unwrap())
            };
            let mut reader = open(&log, &["a/*"], start.clone());
            let next = reader.cursor().next.get();
            assert_eq!(publisher.join().unwrap(), 2);
            let mut seen = Seen::default();
            assert_eq!(seen.read_all(&mut reader, 0), Read::CaughtUp);
            assert!(seen.covers(next..3), "an event from offset {next} on is missing: {seen:?}");
        });
    }
}

/// Rules with which each topic keeps at most this many events.
fn keeping(events_max: usize) -> RetentionRules {
    let default = Retention { events_max, age_max: None, ..Retention::DEFAULT };
    RetentionRules { default, ..RetentionRules::default() }
}

#[test]
fn a_reader_gets_each_event_or_a_gap_while_retention_becomes_smaller() {
    model(3, || {
        let log = log_with(|options| options.retention = keeping(10));
        let mut reader = open(&log, &["a"], Start::Live);
        for _ in 0..3 {
            append(&log, 0, &["a"]).unwrap();
        }
        let setter = {
            let log = log.clone();
            thread::spawn(move || log.set_retention(ms(0), keeping(1)))
        };
        let mut seen = Seen::default();
        assert_eq!(seen.read_by(&mut reader, 0, SINGLY), Read::CaughtUp);
        assert!(seen.covers(1..4) && seen.offsets.last() == Some(&3), "{seen:?}");
        setter.join().unwrap();
        assert_eq!(log.totals(ms(0)).events, 1);
    });
}

/// A topic gets its rule together with its first event. If the topic then has the old rule, the
/// change of the rules must visit the topic.
#[test]
fn a_topic_created_during_a_change_of_retention_follows_the_new_rules() {
    model(3, || {
        let log = log_with(|options| options.retention = keeping(10));
        let setter = {
            let log = log.clone();
            thread::spawn(move || log.set_retention(ms(0), keeping(1)))
        };
        for _ in 0..2 {
            append(&log, 0, &["a"]).unwrap();
        }
        setter.join().unwrap();
        assert_eq!(log.totals(ms(0)).events, 1);
    });
}

#[test]
fn after_two_changes_of_retention_at_once_all_topics_follow_the_same_rules() {
    model(2, || {
        let log = log_with(|options| options.retention = keeping(10));
        for name in ["a", "b"] {
            append(&log, 0, &[name]).unwrap();
        }
        let setter = {
            let log = log.clone();
            thread::spawn(move || log.set_retention(ms(0), keeping(2)))
        };
        log.set_retention(ms(0), keeping(1));
        setter.join().unwrap();
        let kept = ["a", "b", "c"].map(|name| {
            for _ in 0..3 {
                append(&log, 0, &[name]).unwrap();
            }
            log.topic(ms(0), &topic(name)).unwrap().events
        });
        assert!(kept == [1; 3] || kept == [2; 3], "{kept:?}");
    });
}
