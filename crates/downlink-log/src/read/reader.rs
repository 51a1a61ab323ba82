//! A reader: a cursor, the topics it reads, and the wake-up it waits for.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    task::Waker,
};

use crate::{
    address::ClientId,
    log::{Payload, Shared},
    merge::{Batch, Entry, Found, Gap, GapReason, Position, Read},
    next::Next,
    offset::{Cursor, Offset, Timestamp},
    reader_over_store::OverStore,
    start::{Beginning, all_finished, floor_max},
    sync::Ordering,
    wake::WakeMany,
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
    /// The store could not be read. The reader may come back.
    Unreadable = 5,
}

impl EndReason {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Closed, Self::Drained, Self::Disconnected, Self::Finished, Self::Unreadable]
            .into_iter()
            .find(|reason| *reason as u8 == number)
    }
}

/// Reads a log from a cursor on. Dropping it is leaving. It does not keep a log with a store going: the
/// log's handles do.
///
/// The order of calls: [`read`](Self::read) until it says [`Read::CaughtUp`], then
/// [`register`](Self::register), then `read` once more, and only then wait. A wake-up says no more
/// than *look again*.
pub struct Reader<P: Payload> {
    pub(crate) log: Arc<Shared<P>>,
    /// Its `next` is the reader's cursor.
    pub(crate) watcher: Arc<Watcher<P>>,
    /// Holes below this have been told.
    pub(crate) told: u64,
    /// Said before anything is read.
    pub(crate) gap: Option<Box<Gap>>,
    /// Why a hole that is found now is there.
    pub(crate) reason: GapReason,
    asked: bool,
    /// What it is about with the store, if there is one.
    pub(crate) over: Option<Box<OverStore<P>>>,
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
    pub(crate) fn new(log: Arc<Shared<P>>, watcher: Arc<Watcher<P>>, beginning: Beginning) -> Self {
        let over = log.durable.is_some().then(|| Box::new(OverStore::rings()));
        let reason = GapReason::Evicted;
        let mut reader = Self { log, watcher, told: 0, gap: None, reason, asked: true, over };
        reader.begin(beginning);
        reader
    }

    /// Stands where it is known to begin.
    pub(crate) fn begin(&mut self, beginning: Beginning) {
        let Beginning { next, told, gap, asked, at_end } = beginning;
        self.watcher.next.store(next, Ordering::Relaxed);
        // What a reader of live events misses, it misses while it is here.
        self.reason = if asked { GapReason::Evicted } else { GapReason::Lagged };
        (self.told, self.gap, self.asked) = (told, gap.map(Box::new), asked);
        if let Some(over) = &mut self.over {
            over.at_end = at_end;
        }
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
        Cursor { epoch: self.log.options.epoch, next: Offset::new(next) }
    }

    /// A number that readers of the same topics share, and others hardly do: so that who serves many
    /// can let those of different topics take turns.
    pub fn lane(&self) -> u32 {
        let mut hasher = DefaultHasher::new();
        Arc::as_ptr(&self.log).hash(&mut hasher);
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

    /// Looks at what the next read will look at first, so that it is in the processor's cache by
    /// then; what it says means nothing. For who serves many readers, and is about to poll some.
    pub fn warm(&self) -> bool {
        let Watcher { attached, wake, .. } = &*self.watcher;
        attached.is_locked() | wake.is_awake()
    }

    /// Whether all its topics are finished and it has nothing of them left to read.
    pub fn is_at_end(&self) -> bool {
        if let Some(at_end) = self.over.as_ref().and_then(|over| over.at_end) {
            return at_end;
        }
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
        self.log.expire(now);
        loop {
            let waits = match self.take_answer() {
                Ok(answered) => !answered,
                Err(_) => return Read::Ended(EndReason::Unreadable),
            };
            // A long replay is not waited for at the end: whoever comes back goes on here.
            if waits {
                return end.map_or(Read::Fetching, Read::Ended);
            }
            if let Some(gap) = self.gap.take() {
                return Read::Gap(*gap);
            }
            if let Some(read) = self.read_page(batch, out) {
                return read;
            }
            if let Some(read) = self.read_rings(batch, out, end) {
                return read;
            }
        }
    }

    /// Reads what the rings have. `None`: look again.
    fn read_rings(
        &mut self,
        batch: Batch,
        out: &mut Vec<Entry<P>>,
        end: Option<EndReason>,
    ) -> Option<Read> {
        let found =
            self.look(|shared, position, attached| shared.read(position, attached, batch, out));
        match found {
            Found::Hole(gap) => Some(Read::Gap(gap)),
            Found::Taken { .. } if !out.is_empty() => Some(Read::Events),
            // Something was evicted under the reader, or there is more of the index to walk.
            Found::Taken { caught_up: false } => None,
            Found::Taken { caught_up: true } => {
                let end = end.or_else(|| self.finished());
                Some(end.map_or(Read::CaughtUp, Read::Ended))
            }
            Found::Behind => {
                self.ask_for_page(batch);
                None
            }
        }
    }

    /// Whether something was appended, to whatever topic, that it has not passed.
    pub fn is_behind(&self) -> bool {
        self.next() < self.log.tail()
    }

    /// Whether a [`read_next`](Self::read_next) would find nothing, as far as can be seen without a look
    /// at the topics: after [`register`](Self::register) a reader that keeps up may wait, instead of
    /// reading once more, if this is true. It knows nothing of what was read and not used yet.
    pub fn is_idle(&self) -> bool {
        let elsewhere = self.over.as_ref().is_some_and(|over| !over.is_at_rings());
        let others = self.watcher.wake.ended().is_some() || self.gap.is_some() || elsewhere;
        !others && !self.is_behind() && self.log.finished.load(Ordering::Relaxed) == 0
    }

    /// Reads the next event by itself, for a reader of few topics that keeps up. Never waits, and
    /// allocates nothing.
    ///
    /// The time is asked for only if there is something to read and something has an age to reach.
    pub fn read_next(&mut self, now: impl FnOnce() -> Timestamp) -> Next<P> {
        self.read_next_as(now, P::clone)
    }

    /// The same for who needs only a part of what was appended, or another form of it: the entry's
    /// payload is what `take` makes of it. The topic's history and the reader's list of topics are
    /// locked meanwhile: it is to be quick, and not to call the log.
    pub fn read_next_as<Q>(
        &mut self,
        now: impl FnOnce() -> Timestamp,
        take: impl Fn(&P) -> Q,
    ) -> Next<Q> {
        // Before the tail: what was appended before the end is read before the end.
        let elsewhere = self.over.as_ref().is_some_and(|over| !over.is_at_rings());
        if self.watcher.wake.ended().is_some() || self.gap.is_some() || elsewhere {
            return Next::Other;
        }
        if self.is_behind() {
            self.log.expire_by(now);
            let read = |shared: &Shared<P>, position: &mut Position, attached: &Attached<P>| {
                shared.read_next(position, attached, take)
            };
            match self.look(read) {
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
        let stored = self.over.as_ref().is_some_and(|over| over.reachable);
        let mut position = Position { next: self.next(), told, reason, stored };
        let found = read(&self.log, &mut position, &self.watcher.attached.lock());
        self.watcher.next.store(position.next, Ordering::Relaxed);
        (self.told, self.reason) = (position.told, position.reason);
        found
    }

    pub(crate) fn next(&self) -> u64 {
        self.watcher.next.load(Ordering::Relaxed)
    }

    /// Whether it names topics only: such a reader ends when all are finished.
    fn is_exact(&self) -> bool {
        self.watcher.patterns().is_empty()
    }

    /// The end, if all topics are finished and read up to their marks.
    fn finished(&self) -> Option<EndReason> {
        // Nearly always none is, and the topics need not be visited.
        let any = self.log.finished.load(Ordering::Relaxed) > 0 && self.is_exact();
        let finished = any && has_finished(&self.watcher.attached.lock(), self.next());
        finished.then_some(EndReason::Finished)
    }

    /// Leaves a waker for the next append to one of its topics, or its end.
    ///
    /// It is used once; one that is left later replaces it. Being woken for nothing is possible.
    /// Whoever registers, in this or the other way, is the only one who does so at that time.
    pub fn register(&self, waker: &Waker) {
        self.watcher.wake.register(waker);
    }

    /// The same for who serves many readers and knows this one by a key: that is told, and no waker is
    /// needed. False if the reader was served under another key before, or by somebody else; it has to
    /// [`register`](Self::register) a waker then.
    ///
    /// As with wakers, the last registration counts. The reader keeps whoever served it first.
    #[must_use = "whoever is refused has to leave a waker"]
    pub fn register_with(&self, many: &Arc<dyn WakeMany>, key: u32) -> bool {
        self.watcher.wake.register_with(many, key)
    }
}

impl<P: Payload> Reader<P> {
    /// Leaves now; nothing is read or counted any more. Dropping the reader is no less.
    pub fn leave(&mut self) {
        // Every reader has a seat, for what is for everyone, until it leaves.
        if self.watcher.attached.lock().len() > 0 {
            self.log.detach(&self.watcher);
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
