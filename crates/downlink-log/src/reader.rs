//! A reader: a cursor, the topics it reads, and the wake-up it waits for.

use std::{sync::Arc, task::Waker};

use crate::{
    address::ClientId,
    log::{Log, Payload},
    offset::{Cursor, Offset, Timestamp},
    read::{Batch, Entry, Found, Gap, GapReason, Position, Read},
    start::{Beginning, all_finished, floor_max},
    sync::Ordering,
    watcher::{Attached, Seat, Watcher},
};

/// Why a reader gets nothing any more.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
#[repr(u8)]
pub enum EndReason {
    /// The log was closed.
    Closed = 1,
    /// The server is going away; the reader may come back elsewhere.
    Drained = 2,
    /// Somebody disconnected this client.
    Disconnected = 3,
    /// Every topic it reads is finished and read.
    Finished = 4,
}

impl EndReason {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Closed, Self::Drained, Self::Disconnected, Self::Finished]
            .into_iter()
            .find(|reason| *reason as u8 == number)
    }
}

/// Reads a log from a cursor on. Dropping it is leaving.
///
/// The order of calls: [`read`](Self::read) until it says [`Read::CaughtUp`], then
/// [`register`](Self::register), then `read` once more, and only then wait. A wake-up says no more
/// than *look again*.
pub struct Reader<P: Payload> {
    log: Log<P>,
    watcher: Arc<Watcher<P>>,
    position: Position,
    /// Said before anything is read.
    gap: Option<Gap>,
    /// Whether the reader names topics only: such a reader ends when all are finished.
    exact: bool,
    asked: bool,
}

impl<P: Payload> std::fmt::Debug for Reader<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("number", &self.watcher.number)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl<P: Payload> Reader<P> {
    pub(crate) fn new(log: Log<P>, watcher: Arc<Watcher<P>>, beginning: Beginning) -> Self {
        let Beginning { next, told, gap, asked } = beginning;
        watcher.next.store(next, Ordering::Relaxed);
        let exact = watcher.patterns.is_empty();
        // What a reader of live events misses, it misses while it is here.
        let reason = if asked { GapReason::Evicted } else { GapReason::Lagged };
        let position = Position { next, told, reason };
        Self { log, watcher, position, gap, exact, asked }
    }

    /// Unique among the readers of this log.
    pub fn number(&self) -> u64 {
        self.watcher.number
    }

    /// Whose inbox it reads.
    pub fn client(&self) -> Option<&ClientId> {
        self.watcher.client.as_ref()
    }

    /// The next offset to read.
    pub fn cursor(&self) -> Cursor {
        let next =
            self.gap.map_or(self.position.next, |gap| self.position.next.min(gap.next.get()));
        Cursor { epoch: self.log.options().epoch, next: Offset::new(next) }
    }

    /// Whether it began with an id or a position rather than with what comes.
    pub fn has_asked(&self) -> bool {
        self.asked
    }

    /// How far it is behind: newest offset of its topics less the last it has read.
    pub fn lag(&self) -> u64 {
        lag(&self.watcher.attached.lock(), self.position.next)
    }

    /// Whether all its topics are finished and it has nothing of them left to read.
    pub fn is_at_end(&self) -> bool {
        let attached = self.watcher.attached.lock();
        self.exact && self.gap.is_none() && all_finished(&attached) && {
            let Position { next, told, .. } = self.position;
            let left = |seat: &Seat<P>| seat.topic.ring.read().next_from(next);
            floor_max(&attached) <= next.max(told)
                && attached.iter().all(|seat| left(seat).is_none())
        }
    }

    /// Reads what there is, at most a batch, into an empty buffer. Never waits.
    ///
    /// # Limits
    ///
    /// Publishers that create a topic this reader wants wait for the batch to be copied: thousands
    /// of events are no problem, millions are.
    pub fn read(&mut self, now: Timestamp, batch: Batch, out: &mut Vec<Entry<P>>) -> Read {
        // Before the tail: what was appended before the end is read before the end.
        let end = EndReason::from_number(self.watcher.end.load(Ordering::Acquire));
        if end == Some(EndReason::Disconnected) {
            return Read::Ended(EndReason::Disconnected);
        }
        let Self { log, watcher, position, gap, exact, .. } = self;
        let shared = &*log.0;
        shared.expire(now);
        if let Some(gap) = gap.take() {
            return Read::Gap(gap);
        }
        loop {
            let attached = watcher.attached.lock();
            let found = shared.read(position, &attached, batch, out);
            watcher.next.store(position.next, Ordering::Relaxed);
            match found {
                Found::Hole(gap) => return Read::Gap(gap),
                Found::Taken { .. } if !out.is_empty() => return Read::Events,
                // Something was evicted under the reader, or there is more of the index to walk.
                Found::Taken { caught_up: false } => {}
                Found::Taken { caught_up: true } => {
                    let finished = *exact && has_finished(&attached, position.next);
                    let end = end.or(finished.then_some(EndReason::Finished));
                    return end.map_or(Read::CaughtUp, Read::Ended);
                }
            }
        }
    }

    /// Leaves a waker for the next append to one of its topics, or its end.
    ///
    /// It is used once; one that is left later replaces it. Being woken for nothing is possible.
    pub fn register(&self, waker: &Waker) {
        self.watcher.wake.register(waker);
    }
}

impl<P: Payload> Drop for Reader<P> {
    fn drop(&mut self) {
        self.log.0.detach(&self.watcher);
    }
}

impl<P> Watcher<P> {
    /// Asks the reader to end. The first reason counts. The caller wakes it.
    pub(crate) fn end(&self, reason: EndReason) {
        let _ = self.end.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// Whether all topics are finished, and read up to their marks.
fn has_finished<P: Payload>(attached: &Attached<P>, next: u64) -> bool {
    let read = |seat: &Seat<P>| seat.topic.finished().is_none_or(|offset| offset < next);
    all_finished(attached) && attached.iter().all(read)
}

/// Newest offset of all topics less the last one read.
pub(crate) fn lag<P: Payload>(attached: &Attached<P>, next: u64) -> u64 {
    let newest = attached.iter().map(|seat| seat.topic.newest()).max().unwrap_or(0);
    (newest + 1).saturating_sub(next)
}
