//! The backlog: the newest events of all topics, for the feeds of the log. A feed passes every
//! event on to another log.
//!
//! The events of a topic are in its ring. A ring evicts events by the rules of its topic, so a busy
//! topic may lose an event before a feed has read it. The backlog evicts an event only when the
//! backlog is full. So a feed that keeps up misses nothing, whatever the rings evict. A feed that
//! is further behind than the backlog reads the index and the rings, or the store.
//!
//! While no feed is open, the backlog is empty, and an append only reads one number.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
    task::Waker,
};

use crate::history::EventTopics;
use crate::sync::Mutex;
use crate::types::payload::ENTRY_COST_BYTES;
use crate::types::{Payload, Timestamp};

/// The maximum number of events in the backlog. A feed that is further behind reads from the rings
/// or the store, which costs more for each event. At 100,000 events a second, this is more than
/// half a second of events.
const BACKLOG_EVENTS_MAX: usize = 65_536;

/// The maximum number of bytes in the backlog. The rings usually hold the same payloads, so the
/// backlog rarely takes this much memory of its own.
const BACKLOG_BYTES_MAX: usize = 32 << 20;

/// An event in the backlog.
#[derive(Clone, Debug)]
pub(crate) struct Published<P> {
    pub(crate) offset: u64,
    pub(crate) at: Timestamp,
    pub(crate) topics: EventTopics<P>,
    /// `None` for a finish mark without an event. A finish mark says that a topic gets no more
    /// events.
    pub(crate) payload: Option<P>,
    pub(crate) finish: bool,
}

#[derive(Debug)]
pub(crate) struct Backlog<P> {
    /// The number of open feeds. It changes only under the sequence lock, which every append takes.
    /// An append that takes this lock after a feed was opened sees the feed, so Relaxed is enough.
    /// Loom, which tests the interleavings of threads, does not see this atomic. Otherwise each
    /// access to it would multiply the number of interleavings.
    feeds: AtomicUsize,
    /// While this lock is held, no other lock is taken.
    recorded: Mutex<Recorded<P>>,
}

#[derive(Debug)]
struct Recorded<P> {
    events: VecDeque<Published<P>>,
    bytes: usize,
    /// The backlog has every event at or above this offset.
    complete_from: u64,
    /// All feeds that were opened before this number changed have ended.
    generation: u64,
    /// Whether each feed ends when it has read all events.
    closed: bool,
    wakers: Vec<Waker>,
}

/// The result of a feed's read from the backlog.
#[derive(Debug)]
pub(crate) enum Backlogged<P> {
    /// The events from the feed's position on. The list is empty if there is no new event.
    Events(Vec<Published<P>>),
    /// The backlog no longer has all events from the feed's position on.
    Behind,
    /// The feed has ended.
    Ended,
}

impl<P: Payload> Published<P> {
    fn cost(&self) -> usize {
        self.payload.as_ref().map_or(0, Payload::bytes) + ENTRY_COST_BYTES
    }
}

impl<P: Payload> Backlog<P> {
    pub(crate) fn new() -> Self {
        let recorded = Recorded {
            events: VecDeque::new(),
            bytes: 0,
            complete_from: 0,
            generation: 0,
            closed: false,
            wakers: Vec::new(),
        };
        Self { feeds: AtomicUsize::new(0), recorded: Mutex::new(recorded) }
    }

    /// Whether a feed is open. The caller holds the sequence lock.
    pub(crate) fn is_open(&self) -> bool {
        self.feeds.load(Ordering::Relaxed) > 0
    }

    /// Opens a feed. The caller holds the sequence lock. `tail` is the next offset. Returns the
    /// generation of the feed.
    pub(crate) fn open(&self, tail: u64) -> u64 {
        let mut recorded = self.recorded.lock();
        if self.feeds.fetch_add(1, Ordering::Relaxed) == 0 {
            recorded.complete_from = tail;
        }
        recorded.generation
    }

    /// Closes a feed. The caller holds the sequence lock. Returns the events that are no longer
    /// needed. The caller drops them after it has released the lock.
    pub(crate) fn leave(&self) -> VecDeque<Published<P>> {
        let mut recorded = self.recorded.lock();
        if self.feeds.fetch_sub(1, Ordering::Relaxed) > 1 {
            return VecDeque::new();
        }
        recorded.bytes = 0;
        std::mem::take(&mut recorded.events)
    }

    /// Ends every feed, also one that is opened later, as soon as it has read all events. The
    /// caller holds no lock.
    pub(crate) fn close(&self) {
        self.recorded.lock().closed = true;
        self.wake();
    }

    /// Ends all open feeds at once, because the epochs that they announced when they began are no
    /// longer right. Their followers connect again. The caller holds no lock.
    pub(crate) fn end_open(&self) {
        self.recorded.lock().generation += 1;
        self.wake();
    }

    /// Adds an event. The caller holds the sequence lock, and a feed is open. Returns the events
    /// that the backlog no longer keeps. The caller drops them after it has released the lock.
    #[must_use = "the events must be dropped while no lock is held"]
    pub(crate) fn push(&self, event: Published<P>) -> Vec<Published<P>> {
        let mut recorded = self.recorded.lock();
        recorded.bytes += event.cost();
        recorded.events.push_back(event);
        let mut dropped = Vec::new();
        while recorded.events.len() > BACKLOG_EVENTS_MAX || recorded.bytes > BACKLOG_BYTES_MAX {
            let Some(oldest) = recorded.events.pop_front() else { break };
            recorded.bytes -= oldest.cost();
            recorded.complete_from = oldest.offset + 1;
            dropped.push(oldest);
        }
        dropped
    }

    /// Begins again at `next`, because events below it are missing. The feeds then read the rings
    /// or the store, and get the floors of the topics. The floor of a topic is the offset below
    /// which its events may be missing. The caller holds the sequence lock. Returns the events that
    /// are no longer needed. The caller drops them after it has released the lock.
    #[must_use = "the events must be dropped while no lock is held"]
    pub(crate) fn begin_again(&self, next: u64) -> VecDeque<Published<P>> {
        let mut recorded = self.recorded.lock();
        recorded.complete_from = next;
        recorded.bytes = 0;
        std::mem::take(&mut recorded.events)
    }

    /// Wakes the feeds that wait. The caller holds no lock.
    pub(crate) fn wake(&self) {
        if self.feeds.load(Ordering::Relaxed) == 0 {
            return;
        }
        let wakers = std::mem::take(&mut self.recorded.lock().wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The events from `next` on and below `tail`: at most `events_max`, and at least one even if
    /// it has more than `bytes_max` bytes.
    pub(crate) fn read(
        &self,
        generation: u64,
        (next, tail): (u64, u64),
        (events_max, bytes_max): (usize, usize),
    ) -> Backlogged<P> {
        let recorded = self.recorded.lock();
        if recorded.generation != generation {
            return Backlogged::Ended;
        }
        if next < recorded.complete_from {
            return Backlogged::Behind;
        }
        let first = recorded.events.partition_point(|event| event.offset < next);
        let mut bytes = 0;
        let mut new =
            recorded.events.range(first..).take_while(|event| event.offset < tail).peekable();
        if new.peek().is_none() && recorded.closed {
            return Backlogged::Ended;
        }
        let within = |event: &&Published<P>| {
            let fits = bytes == 0 || bytes + event.cost() <= bytes_max;
            bytes += event.cost();
            fits
        };
        Backlogged::Events(new.take(events_max).take_while(within).cloned().collect())
    }

    /// Registers a waker for the next append, or for the end of the feeds.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut recorded = self.recorded.lock();
        if !recorded.wakers.iter().any(|known| known.will_wake(waker)) {
            recorded.wakers.push(waker.clone());
        }
    }
}
