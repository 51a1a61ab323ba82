//! A reader: a cursor, the topics it reads, and the wake-up it waits for.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    task::Waker,
};

use crate::{
    address::ClientId,
    log::{Log, Payload, Shared},
    offset::{Cursor, Offset, Timestamp},
    read::{Batch, Entry, Found, Gap, GapReason, Next, Position, Read},
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
    pub(crate) fn from_number(number: u8) -> Option<Self> {
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
    /// Its `next` is the reader's cursor.
    watcher: Arc<Watcher<P>>,
    /// Holes below this have been told.
    told: u64,
    /// Said before anything is read.
    gap: Option<Box<Gap>>,
    /// Why a hole that is found now is there.
    reason: GapReason,
    asked: bool,
}

impl<P: Payload> std::fmt::Debug for Reader<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("number", &self.watcher.number)
            .field("cursor", &self.cursor())
            .finish_non_exhaustive()
    }
}

impl<P: Payload> Reader<P> {
    pub(crate) fn new(log: Log<P>, watcher: Arc<Watcher<P>>, beginning: Beginning) -> Self {
        let Beginning { next, told, gap, asked } = beginning;
        watcher.next.store(next, Ordering::Relaxed);
        // What a reader of live events misses, it misses while it is here.
        let reason = if asked { GapReason::Evicted } else { GapReason::Lagged };
        Self { log, watcher, told, gap: gap.map(Box::new), reason, asked }
    }

    /// Unique among the readers of this log.
    pub fn number(&self) -> u64 {
        self.watcher.number
    }

    /// Whose inbox it reads.
    pub fn client(&self) -> Option<&ClientId> {
        self.watcher.client()
    }

    /// The next offset to read.
    pub fn cursor(&self) -> Cursor {
        let next = self.next();
        let next = self.gap.as_ref().map_or(next, |gap| next.min(gap.next.get()));
        Cursor { epoch: self.log.options().epoch, next: Offset::new(next) }
    }

    /// A number that readers of the same topics share, and others hardly do: so that who serves many
    /// can let those of different topics take turns.
    pub fn lane(&self) -> u32 {
        let mut hasher = DefaultHasher::new();
        Arc::as_ptr(&self.log.0).hash(&mut hasher);
        if self.watcher.patterns().is_empty() {
            let attached = self.watcher.attached.lock();
            let named = attached.iter().filter(|seat| seat.topic.address.topic().is_some());
            named.map(|seat| Arc::as_ptr(&seat.topic).addr()).min().hash(&mut hasher);
        } else {
            self.watcher.patterns().hash(&mut hasher);
        }
        // The upper half would do as well.
        hasher.finish() as u32
    }

    /// Whether it began with an id or a position rather than with what comes.
    pub fn has_asked(&self) -> bool {
        self.asked
    }

    /// How far it is behind: newest offset of its topics less the last it has read.
    pub fn lag(&self) -> u64 {
        lag(&self.watcher.attached.lock(), self.next())
    }

    /// Whether all its topics are finished and it has nothing of them left to read.
    pub fn is_at_end(&self) -> bool {
        let attached = self.watcher.attached.lock();
        self.is_exact() && self.gap.is_none() && all_finished(&attached) && {
            let next = self.next();
            let left = |seat: &Seat<P>| seat.topic.ring.read().next_from(next);
            floor_max(&attached) <= next.max(self.told)
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
        let end = self.watcher.wake.ended();
        if end == Some(EndReason::Disconnected) {
            return Read::Ended(EndReason::Disconnected);
        }
        self.log.0.expire(now);
        if let Some(gap) = self.gap.take() {
            return Read::Gap(*gap);
        }
        loop {
            let found =
                self.look(|shared, position, attached| shared.read(position, attached, batch, out));
            match found {
                Found::Hole(gap) => return Read::Gap(gap),
                Found::Taken { .. } if !out.is_empty() => return Read::Events,
                // Something was evicted under the reader, or there is more of the index to walk.
                Found::Taken { caught_up: false } => {}
                Found::Taken { caught_up: true } => {
                    let end = end.or_else(|| self.finished());
                    return end.map_or(Read::CaughtUp, Read::Ended);
                }
            }
        }
    }

    /// Reads the next event by itself, for a reader of few topics that keeps up. Never waits, and
    /// allocates nothing.
    ///
    /// The time is asked for only if there is something to read.
    pub fn read_next(&mut self, now: impl FnOnce() -> Timestamp) -> Next<P> {
        // Before the tail: what was appended before the end is read before the end.
        if self.watcher.wake.ended().is_some() || self.gap.is_some() {
            return Next::Other;
        }
        if self.next() < self.log.0.tail() {
            self.log.0.expire(now());
            match self.look(Shared::read_next) {
                Next::CaughtUp => {}
                other => return other,
            }
        }
        self.reason = GapReason::Lagged;
        if self.finished().is_some() { Next::Other } else { Next::CaughtUp }
    }

    /// Looks at the log from where the reader stands, and notes where it stands then.
    fn look<R>(&mut self, read: impl FnOnce(&Shared<P>, &mut Position, &Attached<P>) -> R) -> R {
        let Self { told, reason, .. } = *self;
        let mut position = Position { next: self.next(), told, reason };
        let found = read(&self.log.0, &mut position, &self.watcher.attached.lock());
        self.watcher.next.store(position.next, Ordering::Relaxed);
        (self.told, self.reason) = (position.told, position.reason);
        found
    }

    fn next(&self) -> u64 {
        self.watcher.next.load(Ordering::Relaxed)
    }

    /// Whether it names topics only: such a reader ends when all are finished.
    fn is_exact(&self) -> bool {
        self.watcher.patterns().is_empty()
    }

    /// The end, if all topics are finished and read up to their marks.
    fn finished(&self) -> Option<EndReason> {
        // Nearly always none is, and the topics need not be visited.
        let any = self.log.0.finished.load(Ordering::Relaxed) > 0 && self.is_exact();
        let finished = any && has_finished(&self.watcher.attached.lock(), self.next());
        finished.then_some(EndReason::Finished)
    }

    /// Leaves a waker for the next append to one of its topics, or its end.
    ///
    /// It is used once; one that is left later replaces it. Being woken for nothing is possible.
    pub fn register(&self, waker: &Waker) {
        self.watcher.wake.register(waker);
    }
}

impl<P: Payload> Reader<P> {
    /// Leaves now; nothing is read or counted any more. Dropping the reader is no less.
    pub fn leave(&mut self) {
        // Every reader has a seat, for what is for everyone, until it leaves.
        if self.watcher.attached.lock().len() > 0 {
            self.log.0.detach(&self.watcher);
        }
    }
}

impl<P: Payload> Drop for Reader<P> {
    fn drop(&mut self) {
        self.leave();
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
