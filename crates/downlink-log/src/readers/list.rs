//! The readers of a topic or pattern, which an append wakes.
//!
//! A reader is on the list of each selector that it subscribed to, from open to drop. It remembers
//! its key in each list, so leaving costs the same however many other readers there are.

use std::{hint::black_box, sync::Arc};

use crate::readers::{ReaderState, WAKE_BATCH, WakeBatch};
use crate::sync::Mutex;
use crate::types::EndReason;

/// The readers of one topic or pattern.
#[derive(Debug)]
pub(crate) struct ReaderList {
    places: ReaderSlots,
    /// Readers among them that are on other lists too.
    several: u32,
}

/// Free when it is `None`.
pub(crate) type ReaderSlot = Option<Arc<ReaderState>>;

#[derive(Debug)]
enum ReaderSlots {
    /// Most topics with readers have one: a client's inbox.
    One(ReaderSlot),
    Many(Box<Many>),
}

/// Invariant: the last place is taken, and `count` in all; `free` holds the number of each free
/// place once, and numbers of places that are no more.
#[derive(Debug)]
struct Many {
    places: Vec<ReaderSlot>,
    free: Vec<u32>,
    count: usize,
}

impl ReaderList {
    pub(crate) fn new() -> Self {
        Self { places: ReaderSlots::One(None), several: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.places {
            ReaderSlots::One(place) => usize::from(place.is_some()),
            ReaderSlots::Many(many) => many.count,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a reader is on this list and on another one.
    pub(crate) fn has_several(&self) -> bool {
        self.several > 0
    }

    pub(crate) fn insert(&mut self, reader: Arc<ReaderState>) -> u32 {
        self.several += u32::from(reader.has_several);
        match &mut self.places {
            ReaderSlots::One(place @ None) => {
                *place = Some(reader);
                0
            }
            ReaderSlots::One(first) => {
                let places = vec![first.take(), Some(reader)];
                self.places =
                    ReaderSlots::Many(Box::new(Many { places, free: Vec::new(), count: 2 }));
                1
            }
            ReaderSlots::Many(many) => many.insert(reader),
        }
    }

    /// Takes a reader off the list.
    pub(crate) fn remove(&mut self, key: u32) {
        let place = match &mut self.places {
            ReaderSlots::One(place) => Some(place),
            ReaderSlots::Many(many) => many.places.get_mut(key as usize),
        };
        let Some(reader) = place.and_then(Option::take) else { return };
        self.several -= u32::from(reader.has_several);
        if let ReaderSlots::Many(many) = &mut self.places {
            many.count -= 1;
            if many.count == 0 {
                self.places = ReaderSlots::One(None);
            } else {
                many.note_free(key);
            }
        }
    }

    /// Every reader.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ReaderState>> {
        self.places().iter().flatten()
    }

    /// The readers from place `from` on, up to a batch of places, and where to go on.
    pub(crate) fn batch(&self, from: usize) -> (&[ReaderSlot], Option<usize>) {
        let rest = self.places().get(from..).unwrap_or_default();
        let batch = rest.get(..WAKE_BATCH).unwrap_or(rest);
        let next = (rest.len() > WAKE_BATCH).then_some(from + WAKE_BATCH);
        (batch, next)
    }

    fn places(&self) -> &[ReaderSlot] {
        match &self.places {
            ReaderSlots::One(place) => std::slice::from_ref(place),
            ReaderSlots::Many(many) => &many.places,
        }
    }
}

impl Many {
    fn insert(&mut self, reader: Arc<ReaderState>) -> u32 {
        self.count += 1;
        while let Some(key) = self.free.pop() {
            if let Some(place) = self.places.get_mut(key as usize) {
                debug_assert!(place.is_none(), "what is noted is free");
                *place = Some(reader);
                return key;
            }
        }
        self.places.push(Some(reader));
        (self.places.len() - 1) as u32
    }

    /// Notes that a place became free, and frees the memory behind the last taken place. So ten
    /// thousand readers that came and went leave nothing.
    fn note_free(&mut self, key: u32) {
        if (key as usize) + 1 < self.places.len() {
            self.free.push(key);
            return;
        }
        while self.places.last().is_some_and(Option::is_none) {
            self.places.pop();
        }
        let places = self.places.len();
        if places < self.places.capacity() / 4 {
            self.places.shrink_to(2 * places);
            self.free.retain(|&free| (free as usize) < places);
            self.free.shrink_to_fit();
        }
    }
}

/// Wakes the readers of a list in batches, with no lock held while a waker runs. `newest` is the
/// offset of the event that they are woken for.
///
/// Readers that join the list meanwhile look at the log themselves.
pub(crate) fn wake_all(readers: &Mutex<ReaderList>, newest: u64) {
    wake_each(readers, |reader| reader.note_newest(newest));
}

/// Asks every reader of a list to end and wakes it. Gives their number.
pub(crate) fn end_each(readers: &Mutex<ReaderList>, reason: EndReason) -> usize {
    let mut ended = 0;
    wake_each(readers, |reader| {
        reader.slot.end(reason);
        ended += 1;
    });
    ended
}

fn wake_each(readers: &Mutex<ReaderList>, mut before: impl FnMut(&ReaderState)) {
    let mut from = Some(0);
    while let Some(start) = from {
        let mut waiting;
        {
            let readers = readers.lock();
            // Of the lists of a topic and its patterns most are empty, and a batch is large.
            if readers.is_empty() {
                return;
            }
            let (batch, next) = readers.batch(start);
            from = next;
            waiting = WakeBatch::default();
            // Ten thousand readers are in no cache. A first look fetches them in parallel, which
            // the swaps that follow would not. It saves a tenth of the user time (bench cell
            // `rate`).
            black_box(batch.iter().flatten().filter(|reader| reader.slot.is_awake()).count());
            for reader in batch.iter().flatten() {
                before(reader);
                reader.slot.take(&mut waiting);
            }
        }
        waiting.wake();
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use std::task::Waker;

    use super::*;

    fn reader(number: u64) -> Arc<ReaderState> {
        let state = Arc::new(ReaderState::new(number, None, 1 + usize::from(number == 1)));
        state.next.store(5, crate::sync::Ordering::Relaxed);
        state
    }

    fn numbers(readers: &ReaderList) -> Vec<u64> {
        readers.iter().map(|reader| reader.number).collect()
    }

    #[test]
    fn places_are_used_again() {
        let mut readers = ReaderList::new();
        let keys: Vec<u32> = (0..3).map(|number| readers.insert(reader(number))).collect();
        readers.remove(keys[1]);
        readers.remove(keys[1]);
        assert_eq!((readers.len(), readers.has_several()), (2, false));
        assert_eq!(readers.insert(reader(9)), keys[1]);
        assert_eq!(numbers(&readers), [0, 9, 2]);
        readers.remove(keys[0]);
        readers.remove(keys[2]);
        assert_eq!((readers.len(), readers.has_several()), (1, false));
        readers.remove(keys[1]);
        assert_eq!(readers.len(), 0);
        assert_eq!(readers.insert(reader(5)), 0);
    }

    /// Storms of readers over a few that stay, each storm leaving in another order.
    #[test]
    fn a_list_is_as_long_as_its_last_reader_needs() {
        let mut readers = ReaderList::new();
        let stay: Vec<u32> = (0..3).map(|number| readers.insert(reader(number))).collect();
        for storm in 0..3 {
            let mut keys: Vec<u32> =
                (10..1_010).map(|number| readers.insert(reader(number))).collect();
            assert_eq!(readers.places().len(), 1_003);
            keys.sort_by_key(|key| (key % (storm + 2), std::cmp::Reverse(*key)));
            keys.into_iter().for_each(|key| readers.remove(key));
            assert_eq!((readers.len(), readers.places().len()), (3, 3));
            let ReaderSlots::Many(many) = &readers.places else { panic!("three readers") };
            assert!(many.places.capacity() < 64 && many.free.capacity() < 64, "{many:?}");
        }
        assert_eq!(numbers(&readers), [0, 1, 2]);
        readers.remove(stay[0]);
        readers.remove(stay[2]);
        assert_eq!((readers.insert(reader(3)), readers.insert(reader(4))), (0, 2));
    }

    #[test]
    fn every_reader_of_a_long_list_is_woken_once() {
        let list = Mutex::new(ReaderList::new());
        let all: Vec<_> = (0..200).map(reader).collect();
        for reader in &all {
            list.lock().insert(Arc::clone(reader));
            reader.slot.register(Waker::noop());
        }
        wake_all(&list, 7);
        let mut left = WakeBatch::default();
        all.iter().for_each(|reader| reader.slot.take(&mut left));
        assert!(left.is_empty());
        assert!(all.iter().all(|reader| reader.lag(5) == 3));
    }
}
