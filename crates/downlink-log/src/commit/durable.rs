//! A log over a store: what it knows of the store, and how it begins from one.
//!
//! The rings hold the newest part of what the store holds. A ring's floor then says from where on the
//! ring is enough; what lies below is asked of the store (see `replay`), which knows the exact floors.

use std::{collections::HashSet, fmt, sync::Arc};

use smallvec::SmallVec;

use crate::{
    address::Address,
    evict::Evicted,
    forgotten::Floor,
    given::GivenId,
    index::Topics,
    install::Fresh,
    log::{Log, LogOptions, Payload, Shared},
    merge::Batch,
    offset::{Cursor, Epoch, Offset, Timestamp},
    replay::Replay,
    ring::Finish,
    store::{Durability, Opened, Store, StoreError, StoreReader, StoredEvent, Wanted},
    sync::{AtomicU64, Condvar, Ordering},
    ticket::Ticket,
    wakes::Wakes,
    watcher::end_each,
    writer::Writer,
};

/// Events that wait for their commit. At a thousand commits a second and a publisher for each event,
/// more than a machine has tasks for; with half as many a short stall of the disk refuses publishers.
pub const QUEUE_EVENTS_MAX: usize = 65_536;

/// Bytes that wait for their commit: four of the largest batches.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Threads that read from the store for readers that are behind. A disk answers few better than many.
pub const REPLAY_READERS_MAX: usize = 4;

/// What the rings are warmed with at most: what a reconnecting crowd asks for after a deploy, read in
/// well under a second.
const WARM: Batch = Batch { events_max: 100_000, bytes_max: 64 << 20 };

/// Makes a payload of what a store kept; `None` if it can not. Runs on the threads of the store.
pub type Decode<P> = dyn Fn(Stored) -> Option<P> + Send + Sync;

/// Takes the wake-ups that a commit makes due, and sees to it that they are told some time.
pub type WakeCommitted<P> = dyn Fn(Wakes<P>) + Send + Sync;

/// An event as a store gives it back.
#[derive(Debug)]
pub struct Stored {
    /// The id of the event, as a cursor: of the life of the log that it was published in.
    pub id: Cursor,
    /// When it was published.
    pub at: Timestamp,
    /// The id that its publisher gave.
    pub given: Option<Box<str>>,
    /// What was kept.
    pub payload: Vec<u8>,
}

/// How a log uses its store.
pub struct StoreOptions<P> {
    /// Whether events are visible when they are committed, or before.
    pub durability: Durability,
    /// Makes payloads of what the store kept.
    pub decode: Arc<Decode<P>>,
    /// What time it is, for retention while nobody publishes.
    pub clock: Box<dyn Fn() -> Timestamp + Send>,
    /// Events that wait for their commit; beyond, publishers are refused.
    pub queue_events_max: usize,
    /// Bytes that wait for their commit; beyond, publishers are refused.
    pub queue_bytes_max: usize,
    /// Threads that read for those who are behind.
    pub replay_readers_max: usize,
    /// What each of these threads does first, such as lower its priority. Nothing by default.
    pub begin_reading: fn(),
    /// Who wakes the readers of what was committed, on the thread that writes; `None`: it does so
    /// itself, at once. Must not wait.
    pub wake: Option<Box<WakeCommitted<P>>>,
}

impl<P> StoreOptions<P> {
    /// Defaults with this decoder and clock.
    pub fn new(
        decode: impl Fn(Stored) -> Option<P> + Send + Sync + 'static,
        clock: impl Fn() -> Timestamp + Send + 'static,
    ) -> Self {
        Self {
            durability: Durability::default(),
            decode: Arc::new(decode),
            clock: Box::new(clock),
            queue_events_max: QUEUE_EVENTS_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
            replay_readers_max: REPLAY_READERS_MAX,
            begin_reading: || {},
            wake: None,
        }
    }
}

impl<P> fmt::Debug for StoreOptions<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions").field("durability", &self.durability).finish_non_exhaustive()
    }
}

/// What a log knows of its store.
pub(crate) struct Durable<P> {
    pub(crate) durability: Durability,
    pub(crate) epochs: Epochs,
    /// Everything below is in the store. Stored (Release) after the commit, before the tail moves
    /// there; loaded (Acquire) by those who are about to read the store.
    pub(crate) committed: AtomicU64,
    /// Notified with the sequence lock: of something to commit, and of a commit.
    pub(crate) to_commit: Condvar,
    pub(crate) has_committed: Condvar,
    pub(crate) reader: Arc<dyn StoreReader>,
    pub(crate) decode: Arc<Decode<P>>,
    pub(crate) replay: Replay,
    pub(crate) wake: Option<Box<WakeCommitted<P>>>,
    /// Resolved when the writer has let go of the store.
    pub(crate) ended: Arc<Ticket>,
}

/// The lives of a log, oldest first, each with its first offset. It ends where the next begins.
#[derive(Clone, Debug)]
pub(crate) struct Epochs(Arc<[(Epoch, Offset)]>);

/// Where a cursor stands among the lives of a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Located {
    /// Reading goes on here.
    At(u64),
    /// Its life of the log ended before it; the next begins here.
    Beyond(u64),
    /// Its life of the log is not known.
    Unknown,
}

impl Epochs {
    pub(crate) fn new(epochs: &[(Epoch, Offset)]) -> Self {
        Self(epochs.into())
    }

    /// The life of the log that an offset was assigned in.
    pub(crate) fn of(&self, offset: u64) -> Option<Epoch> {
        let after = self.0.partition_point(|(_, first)| first.get() <= offset);
        let at = after.saturating_sub(1);
        self.0.get(at).map(|(epoch, _)| *epoch)
    }

    pub(crate) fn locate(&self, cursor: Cursor, tail: u64) -> Located {
        let Some(at) = self.0.iter().position(|(epoch, _)| *epoch == cursor.epoch) else {
            return Located::Unknown;
        };
        let end = self.0.get(at + 1).map_or(tail, |(_, first)| first.get());
        if cursor.next.get() <= end {
            return Located::At(cursor.next.get());
        }
        Located::Beyond(end)
    }
}

impl<P: Payload> Log<P> {
    /// A log that goes on where a store ended. The epoch of the options is the one that the store's
    /// opening began, whatever was set.
    ///
    /// Starts a thread that writes, and some that read; they end with the last handle.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub fn with_store(
        mut options: LogOptions,
        store: impl Store,
        side: StoreOptions<P>,
    ) -> Result<Self, StoreError> {
        let Opened { epochs, next_offset, at, .. } = store.opened().clone();
        if let Some((epoch, _)) = epochs.last() {
            options.epoch = *epoch;
        }
        let reader = store.reader();
        let durable = Durable {
            durability: side.durability,
            epochs: Epochs::new(&epochs),
            committed: AtomicU64::new(next_offset.get()),
            to_commit: Condvar::new(),
            has_committed: Condvar::new(),
            reader: Arc::clone(&reader),
            decode: side.decode,
            replay: Replay::start(side.replay_readers_max, side.begin_reading)?,
            wake: side.wake,
            ended: Ticket::new(),
        };
        let queue_max = (side.queue_events_max, side.queue_bytes_max);
        let log = Self::begin_at(options, next_offset, at, Some(durable), queue_max);
        log.0.warm(&*reader, next_offset)?;
        log.0.take_finished(&*reader)?;
        let writer = Writer::new(Arc::clone(&log.0), Box::new(store), side.clock);
        writer.start()?;
        Ok(log)
    }

    /// The id of what was or will be published at an offset, as a cursor: of its life of the log.
    pub fn cursor_after(&self, offset: Offset) -> Cursor {
        Cursor { epoch: self.0.epoch_of(offset.get()), next: Offset::new(offset.get() + 1) }
    }
}

impl<P> Shared<P> {
    /// The life of the log that an offset was assigned in.
    pub(crate) fn epoch_of(&self, offset: u64) -> Epoch {
        let current = self.options.epoch;
        self.durable.as_ref().and_then(|durable| durable.epochs.of(offset)).unwrap_or(current)
    }
}

impl<P: Payload> Shared<P> {
    /// Fills the rings with the newest events. Whatever is below the oldest of them is the store's.
    ///
    /// An event that can not be decoded ends the rings before it: a reader meets it in the store.
    fn warm(&self, reader: &dyn StoreReader, next_offset: Offset) -> Result<(), StoreError> {
        let mut addresses = HashSet::from([Address::Everyone]);
        let mut decoded = Vec::new();
        for event in reader.newest(WARM)?.into_iter().rev() {
            addresses.extend(event.to.iter().cloned());
            if addresses.len() > self.options.limits.topics_max {
                break;
            }
            let Some(fresh) = self.decode_event(event) else { break };
            decoded.push(fresh);
        }
        let from = decoded.last().map_or(next_offset.get(), |(_, event, _)| event.offset);
        self.raise_floors(from);
        self.raise_to_stored(reader, from, &addresses)?;
        let mut evicted = Evicted::new();
        for (at, mut event, to) in decoded.into_iter().rev() {
            event.topics = self.reserve_all(&to);
            self.warm_one(at, event, &mut evicted);
        }
        self.trim_all(std::iter::empty(), next_offset.get(), &mut evicted);
        self.tidy_index();
        self.settle(&mut evicted);
        // A name that has no ring may have lost events above the oldest in memory. Its readers ask
        // the store, which knows; without this they would pass over what it has lost.
        self.raise_unknown(reader.highest_floor()?.get().max(from));
        Ok(())
    }

    /// Tells the rings to be what the store has evicted above `from`: retention may have taken an event
    /// of one topic that is younger than what another one keeps.
    fn raise_to_stored(
        &self,
        reader: &dyn StoreReader,
        from: u64,
        addresses: &HashSet<Address>,
    ) -> Result<(), StoreError> {
        // The one address that may be without a row: its floor is then that of what was forgotten.
        let everyone = Wanted { addresses: vec![Address::Everyone], patterns: Vec::new() };
        let floor = reader.floor(&everyone)?;
        self.everyone.raise_floor(Floor { offset: floor.offset.get(), at: Timestamp::default() });
        self.floor_max.fetch_max(floor.offset.get(), Ordering::AcqRel);
        reader.floors_above(Offset::new(from), &mut |address, floor| {
            if !addresses.contains(&address) {
                return;
            }
            let Ok(topic) = self.find_or_create(&address) else { return };
            topic.raise_floor(Floor { offset: floor.get(), at: Timestamp::default() });
            self.floor_max.fetch_max(floor.get(), Ordering::AcqRel);
        })
    }

    /// Makes this the floor of every topic that is not in memory.
    fn raise_unknown(&self, from: u64) {
        let floor = Floor { offset: from, at: Timestamp::default() };
        self.floor_max.fetch_max(from, Ordering::AcqRel);
        self.registry.write().forgotten.raise(floor);
    }

    fn decode_event(
        &self,
        event: StoredEvent,
    ) -> Option<(Timestamp, Fresh<P>, SmallVec<[Address; 1]>)> {
        let durable = self.durable.as_ref()?;
        let StoredEvent { offset, at, to, id, fingerprint, payload, .. } = event;
        let payload = match payload {
            Some(payload) => {
                let epoch = durable.epochs.of(offset.get())?;
                let cursor = Cursor { epoch, next: Offset::new(offset.get() + 1) };
                let stored = Stored { id: cursor, at, given: id.clone(), payload };
                Some((durable.decode)(stored)?)
            }
            None => None,
        };
        let fresh = Fresh {
            offset: offset.get(),
            payload,
            topics: Topics::new(),
            id,
            key: None,
            fingerprint,
            // Marks come from the store's list of them, which also has those of older events.
            finish: false,
            body: None,
        };
        Some((at, fresh, to))
    }

    /// Makes this the floor of every topic there is or will be.
    fn raise_floors(&self, from: u64) {
        self.everyone.raise_floor(Floor { offset: from, at: Timestamp::default() });
        self.raise_unknown(from);
    }

    fn reserve_all(&self, to: &[Address]) -> Topics<P> {
        let topics = to.iter().filter_map(|address| self.find_or_create(address).ok());
        topics.filter(|topic| topic.ring.write().reserve()).collect()
    }

    fn warm_one(&self, at: Timestamp, mut event: Fresh<P>, evicted: &mut Evicted<P>) {
        let offset = Offset::new(event.offset);
        let answer = crate::draft::Appended { offset, matched: 0, repeated: false };
        if let Some(id) = event.id.take().filter(|_| event.is_kept()) {
            let (fingerprint, rings) = (event.fingerprint, event.topics.len());
            self.given.lock().insert(id, GivenId { fingerprint, answer, rings });
        }
        let payload = if event.is_kept() { event.payload.take() } else { None };
        self.push(&event, at, payload, evicted);
    }

    /// Takes the marks of finished topics, so that publishing to one is refused as before.
    fn take_finished(&self, reader: &dyn StoreReader) -> Result<(), StoreError> {
        for (address, mark) in reader.finished_topics(self.options.limits.topics_max)? {
            let Ok(topic) = self.find_or_create(&address) else { break };
            let mut ring = topic.ring.write();
            ring.set_finish(Some(Finish { offset: mark.offset.get(), at: mark.at }));
            topic.set_finished(true);
            self.finished.fetch_add(1, Ordering::Relaxed);
            self.queue_expiry(&topic, &ring);
        }
        Ok(())
    }

    /// Ends every reader, when the store is let go of.
    pub(crate) fn end_readers(&self) {
        end_each(&self.everyone.watchers, crate::EndReason::Closed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u64) -> Epoch {
        Epoch::from_random(number)
    }

    fn cursor(of: u64, next: u64) -> Cursor {
        Cursor { epoch: epoch(of), next: Offset::new(next) }
    }

    /// Three lives: offsets 1 to 4, none, and from 5 on.
    fn epochs() -> Epochs {
        let lives = [(1, 1), (2, 5), (3, 5)];
        Epochs::new(&lives.map(|(number, first)| (epoch(number), Offset::new(first))))
    }

    #[test]
    fn an_id_below_the_end_of_its_life_resumes_exactly() {
        let epochs = epochs();
        assert_eq!(epochs.locate(cursor(1, 1), 9), Located::At(1));
        assert_eq!(epochs.locate(cursor(1, 5), 9), Located::At(5));
        assert_eq!(epochs.locate(cursor(2, 5), 9), Located::At(5));
        assert_eq!(epochs.locate(cursor(3, 9), 9), Located::At(9));
        assert_eq!(epochs.locate(cursor(3, 2), 9), Located::At(2));
    }

    #[test]
    fn an_id_at_or_past_the_end_is_beyond() {
        let epochs = epochs();
        assert_eq!(epochs.locate(cursor(1, 6), 9), Located::Beyond(5));
        assert_eq!(epochs.locate(cursor(2, 6), 9), Located::Beyond(5));
        assert_eq!(epochs.locate(cursor(3, 10), 9), Located::Beyond(9));
        assert_eq!(epochs.locate(cursor(4, 1), 9), Located::Unknown);
    }

    #[test]
    fn an_offset_belongs_to_the_life_that_assigned_it() {
        let epochs = epochs();
        assert_eq!(epochs.of(1), Some(epoch(1)));
        assert_eq!(epochs.of(4), Some(epoch(1)));
        assert_eq!(epochs.of(5), Some(epoch(3)));
    }
}
