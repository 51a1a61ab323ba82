//! What the log knows of one reader, and the list of readers that each topic keeps.
//!
//! A watcher is in the list of every topic it reads, from subscribe to drop; it remembers its place
//! in each, so that leaving costs the same however many others there are.

use std::{sync::Arc, task::Waker};

use smallvec::SmallVec;

use crate::{
    address::ClientId,
    forgotten::Floor,
    reader::EndReason,
    selector::TopicSelector,
    sync::{AtomicU8, AtomicU64, Mutex},
    topic::TopicLog,
    wake::Wake,
};

/// How many readers are looked at under one hold of a topic's list, and woken after it.
///
/// A hold then lasts a few microseconds; with twice as many the array of wakers costs a page of
/// stack, with half as many the lock is taken needlessly often.
const WAKE_BATCH: usize = 64;

/// One reader, as its topics see it.
#[derive(Debug)]
pub(crate) struct Watcher<P> {
    /// Unique among the readers of a log, in the order of their coming.
    pub(crate) number: u64,
    pub(crate) client: Option<ClientId>,
    pub(crate) patterns: Box<[TopicSelector]>,
    pub(crate) wake: Wake,
    /// The topics it reads. Held while it reads, and while a topic is added or collected.
    pub(crate) attached: Mutex<Attached<P>>,
    /// The next offset to read, for those who look from outside. Written by the reader alone, and
    /// ordered with nothing (Relaxed).
    pub(crate) next: AtomicU64,
    /// The newest offset whose publisher counted this reader, so that none counts it twice.
    /// Relaxed: publishers take turns by the sequence lock.
    counted: AtomicU64,
    /// Why the reader is to end; 0 while it is not. Set (AcqRel) after the log's last append, loaded
    /// (Acquire) before the tail: what was acknowledged is read before the end.
    pub(crate) end: AtomicU8,
}

/// The topics of one reader.
///
/// Invariant: `seats` is sorted by topic number and holds each once; `gone` of them are given up,
/// at most half.
#[derive(Debug)]
pub(crate) struct Attached<P> {
    seats: SmallVec<[Seat<P>; 2]>,
    gone: usize,
    /// The highest floor of the topics that were collected under this reader.
    pub(crate) detached: Floor,
}

/// A topic, and the reader's place in its list.
#[derive(Debug)]
pub(crate) struct Seat<P> {
    /// The topic's, here as well so that a search need not visit the topics.
    number: u64,
    pub(crate) topic: Arc<TopicLog<P>>,
    /// `GONE` when given up.
    pub(crate) key: u32,
    /// Whether the reader named the topic.
    pub(crate) exact: bool,
}

/// No place in any list.
const GONE: u32 = u32::MAX;

impl<P> Seat<P> {
    /// Puts a reader on the list of a topic.
    pub(crate) fn take(topic: &Arc<TopicLog<P>>, watcher: &Arc<Watcher<P>>, exact: bool) -> Self {
        let key = topic.watchers.lock().insert(Arc::clone(watcher), exact);
        Self { number: topic.number, topic: Arc::clone(topic), key, exact }
    }
}

impl<P> Watcher<P> {
    pub(crate) fn new(
        number: u64,
        client: Option<ClientId>,
        patterns: Box<[TopicSelector]>,
    ) -> Self {
        Self {
            number,
            client,
            patterns,
            wake: Wake::new(),
            attached: Mutex::new(Attached::new()),
            next: AtomicU64::new(u64::MAX),
            counted: AtomicU64::new(0),
            end: AtomicU8::new(0),
        }
    }

    /// Whether this is the first time that the publisher of `offset` meets the reader.
    pub(crate) fn count_once(&self, offset: u64) -> bool {
        self.counted.swap(offset, crate::sync::Ordering::Relaxed) != offset
    }
}

impl<P> Attached<P> {
    fn new() -> Self {
        Self { seats: SmallVec::new(), gone: 0, detached: Floor::NONE }
    }

    /// The seats of the topics there are.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Seat<P>> {
        self.numbered().map(|(_, seat)| seat)
    }

    /// The seats, each with its place among them.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &Seat<P>)> {
        self.seats.iter().enumerate().filter(|(_, seat)| seat.key != GONE)
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Seat<P>> {
        self.seats.get(at)
    }

    pub(crate) fn len(&self) -> usize {
        self.seats.len() - self.gone
    }

    /// Adds seats of topics that are not there yet.
    pub(crate) fn extend(&mut self, seats: impl IntoIterator<Item = Seat<P>>) {
        self.seats.extend(seats);
        // What was there and most of what comes is in order: this is a merge.
        self.seats.sort_by_key(|seat| seat.number);
    }

    /// Gives up the seat in a topic and says which it was.
    ///
    /// A reader of a hundred thousand topics would move them all for each: so half of the seats are
    /// given up before any is moved.
    pub(crate) fn remove(&mut self, number: u64) -> Option<u32> {
        let at = self.position(number)?;
        let key = std::mem::replace(&mut self.seats.get_mut(at)?.key, GONE);
        self.gone += 1;
        if 2 * self.gone > self.seats.len() {
            self.seats.retain(|seat| seat.key != GONE);
            self.gone = 0;
        }
        Some(key)
    }

    /// Gives up all seats.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Seat<P>> + use<P> {
        self.gone = 0;
        std::mem::take(&mut self.seats).into_iter().filter(|seat| seat.key != GONE)
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.position(number).is_some()
    }

    fn position(&self, number: u64) -> Option<usize> {
        let at = self.seats.binary_search_by_key(&number, |seat| seat.number).ok()?;
        self.seats.get(at).filter(|seat| seat.key != GONE).map(|_| at)
    }
}

/// The readers of one topic.
#[derive(Debug)]
pub(crate) struct Watchers<P> {
    places: Vec<Place<P>>,
    /// First place of the chain of free ones; `u32::MAX` ends it.
    free: u32,
    count: u32,
    /// How many of them named the topic itself. Patterns do not keep a topic alive.
    exact: u32,
}

#[derive(Debug)]
enum Place<P> {
    Taken { watcher: Arc<Watcher<P>>, exact: bool },
    Free { next: u32 },
}

impl<P> Watchers<P> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), free: u32::MAX, count: 0, exact: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.count as usize
    }

    pub(crate) fn has_exact(&self) -> bool {
        self.exact > 0
    }

    pub(crate) fn insert(&mut self, watcher: Arc<Watcher<P>>, exact: bool) -> u32 {
        self.count += 1;
        self.exact += u32::from(exact);
        let taken = Place::Taken { watcher, exact };
        let key = self.free;
        if let Some(place) = self.places.get_mut(key as usize) {
            if let Place::Free { next } = std::mem::replace(place, taken) {
                self.free = next;
            }
            return key;
        }
        if self.places.is_empty() {
            // Most topics with readers have one: a client's inbox.
            self.places.reserve_exact(1);
        }
        self.places.push(taken);
        (self.places.len() - 1) as u32
    }

    pub(crate) fn remove(&mut self, key: u32) {
        let Some(place) = self.places.get_mut(key as usize) else { return };
        let freed = Place::Free { next: self.free };
        if let Place::Taken { exact, .. } = std::mem::replace(place, freed) {
            self.free = key;
            self.count -= 1;
            self.exact -= u32::from(exact);
        }
        if self.count == 0 {
            *self = Self::new();
        }
    }

    /// Every reader.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Watcher<P>>> {
        self.places.iter().filter_map(|place| match place {
            Place::Taken { watcher, .. } => Some(watcher),
            Place::Free { .. } => None,
        })
    }

    /// The readers from place `from` on, up to a batch of places, and where to go on.
    fn batch(&self, from: usize) -> (&[Place<P>], Option<usize>) {
        let rest = self.places.get(from..).unwrap_or_default();
        let batch = rest.get(..WAKE_BATCH).unwrap_or(rest);
        let next = (rest.len() > WAKE_BATCH).then_some(from + WAKE_BATCH);
        (batch, next)
    }
}

/// Wakes the readers of a list in batches, with no lock held while a waker runs.
///
/// Readers that come while this goes on look at the log by themselves. A waker that panics takes the
/// wake-ups after it with it; the wakers of runtimes do not.
pub(crate) fn wake_all<P>(watchers: &Mutex<Watchers<P>>) {
    wake_each(watchers, |_| {});
}

/// Tells every reader of a list to end and wakes it; says how many there were.
pub(crate) fn end_each<P>(watchers: &Mutex<Watchers<P>>, reason: EndReason) -> usize {
    let mut ended = 0;
    wake_each(watchers, |watcher| {
        watcher.end(reason);
        ended += 1;
    });
    ended
}

fn wake_each<P>(watchers: &Mutex<Watchers<P>>, mut before: impl FnMut(&Watcher<P>)) {
    let mut from = Some(0);
    while let Some(start) = from {
        let mut wakers: SmallVec<[Waker; WAKE_BATCH]> = SmallVec::new();
        {
            let watchers = watchers.lock();
            let (batch, next) = watchers.batch(start);
            from = next;
            wakers.extend(batch.iter().filter_map(|place| match place {
                Place::Taken { watcher, .. } => {
                    before(watcher);
                    watcher.wake.take()
                }
                Place::Free { .. } => None,
            }));
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;

    fn watcher(number: u64) -> Arc<Watcher<&'static str>> {
        Arc::new(Watcher::new(number, None, Box::default()))
    }

    fn numbers(watchers: &Watchers<&'static str>) -> Vec<u64> {
        watchers.iter().map(|watcher| watcher.number).collect()
    }

    #[test]
    fn places_are_used_again() {
        let mut watchers = Watchers::new();
        let keys: Vec<u32> =
            (0..3).map(|number| watchers.insert(watcher(number), number != 1)).collect();
        watchers.remove(keys[1]);
        watchers.remove(keys[1]);
        assert_eq!((watchers.len(), watchers.has_exact()), (2, true));
        assert_eq!(watchers.insert(watcher(9), false), keys[1]);
        assert_eq!(numbers(&watchers), [0, 9, 2]);
        watchers.remove(keys[0]);
        watchers.remove(keys[2]);
        assert_eq!((watchers.len(), watchers.has_exact()), (1, false));
        watchers.remove(keys[1]);
        assert_eq!(watchers.len(), 0);
        assert_eq!(watchers.insert(watcher(5), true), 0);
    }

    #[test]
    fn every_reader_of_a_long_list_is_woken_once() {
        let list = Mutex::new(Watchers::new());
        let all: Vec<_> = (0..200).map(watcher).collect();
        for watcher in &all {
            list.lock().insert(Arc::clone(watcher), true);
            watcher.wake.register(Waker::noop());
        }
        wake_all(&list);
        assert!(all.iter().all(|watcher| watcher.wake.take().is_none()));
    }
}
