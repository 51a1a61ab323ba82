//! The list of the readers of one topic or pattern. An append wakes these readers.
//!
//! An open reader is on several lists: the lists of its topics and patterns, of its client's inbox,
//! and of everyone's topic (`Address::Everyone`). For each list, the reader keeps a key, which is
//! the index of its place in the list. So the list can remove the reader without a search, however
//! many other readers it has.

use std::{hint::black_box, sync::Arc};

use crate::readers::{ReaderState, WAKE_BATCH, WakeBatch};
use crate::sync::Mutex;
use crate::types::EndReason;

/// The readers of one topic or pattern.
#[derive(Debug)]
pub(crate) struct ReaderList {
    places: ReaderSlots,
    /// The number of readers on this list for which `has_several` is true. Such a reader is also on
    /// another list. The list of everyone's topic does not count, because every reader is on it.
    several: u32,
}

/// A place in a list. `None` if the place is free.
pub(crate) type ReaderSlot = Option<Arc<ReaderState>>;

#[derive(Debug)]
enum ReaderSlots {
    /// A list of at most one reader. Most lists are of this kind, because most lists belong to
    /// clients' inboxes.
    One(ReaderSlot),
    Many(Box<Many>),
}

/// Invariant: the last place is taken, and the number of taken places is `count`. `free` holds the
/// index of each free place once. It may also hold indexes of places that were removed.
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

    /// Whether any reader on this list is also on another list. The list of everyone's topic does
    /// not count.
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

    /// Removes the reader with this key from the list.
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

    /// All readers on the list.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<ReaderState>> {
        self.places().iter().flatten()
    }

    /// At most [`WAKE_BATCH`] places from index `from` on, and the index where the next batch
    /// begins; `None` if this is the last batch.
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
                debug_assert!(place.is_none(), "a place in `free` has no reader");
                *place = Some(reader);
                return key;
            }
        }
        self.places.push(Some(reader));
        (self.places.len() - 1) as u32
    }

    /// Notes that a place became free, and removes all free places at the end of the list. So a
    /// list that once had many readers does not keep their memory after they have left.
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

/// Wakes the readers of a list in batches. No lock is held while a waker runs. `newest` is the
/// offset of the event for which the readers are woken.
///
/// Readers that join the list during the call need no wake-up, because they read the log after they
/// have joined.
pub(crate) fn wake_all(readers: &Mutex<ReaderList>, newest: u64) {
    wake_each(readers, |reader| reader.note_newest(newest));
}

/// Tells every reader of a list to end, and wakes it. Returns the number of readers.
pub(crate) fn end_each(readers: &Mutex<ReaderList>, reason: EndReason) -> usize {
    let mut ended = 0;
    wake_each(readers, |reader| {
        reader.slot.end(reason);
        ended += 1;
    });
    ended
}

/// Tells the reader with this number to end, and wakes it. Returns `false` if the list does not
/// have this reader. A reader never moves to another place, so the list can be unlocked between two
/// batches.
pub(crate) fn end_one(readers: &Mutex<ReaderList>, number: u64, reason: EndReason) -> bool {
    let mut from = Some(0);
    while let Some(start) = from {
        let mut waiting;
        {
            let readers = readers.lock();
            let (batch, next) = readers.batch(start);
            from = next;
            let found = batch.iter().flatten().find(|reader| reader.number == number);
            let Some(reader) = found else { continue };
            waiting = WakeBatch::default();
            reader.slot.end(reason);
            reader.slot.take(&mut waiting);
        }
        waiting.wake();
        return true;
    }
    false
}

fn wake_each(readers: &Mutex<ReaderList>, mut before: impl FnMut(&ReaderState)) {
    let mut from = Some(0);
    while let Some(start) = from {
        let mut waiting;
        {
            let readers = readers.lock();
            // Return before a `WakeBatch` is made: most lists are empty, and a `WakeBatch` is
            // large.
            if readers.is_empty() {
                return;
            }
            let (batch, next) = readers.batch(start);
            from = next;
            waiting = WakeBatch::default();
            // Ten thousand readers do not fit into a processor's cache, so they are loaded from
            // memory. The first pass only reads, so the processor loads several readers at the same
            // time. The second pass makes atomic swaps. Without the first pass, these swaps would
            // load the readers one after another. The first pass saves a tenth of the user CPU
            // time, measured with `cargo xtask bench --only rate`.
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
        let state = Arc::new(ReaderState::new(
            number,
            None,
            1 + usize::from(number == 1),
            Default::default(),
        ));
        state.next.store(5, crate::sync::Ordering::Relaxed);
        state
    }

    fn numbers(readers: &ReaderList) -> Vec<u64> {
        readers.iter().map(|reader| reader.number).collect()
    }

    #[test]
    fn free_places_are_used_again() {
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

    /// Three readers stay on the list. In each of three rounds, a thousand other readers join the
    /// list and leave it. The order in which they leave differs from round to round.
    #[test]
    fn a_list_shrinks_to_the_place_of_its_last_reader() {
        let mut readers = ReaderList::new();
        let stay: Vec<u32> = (0..3).map(|number| readers.insert(reader(number))).collect();
        for storm in 0..3 {
            let mut keys: Vec<u32> =
                (10..1_010).map(|number| readers.insert(reader(number))).collect();
            assert_eq!(readers.places().len(), 1_003);
            keys.sort_by_key(|key| (key % (storm + 2), std::cmp::Reverse(*key)));
            keys.into_iter().for_each(|key| readers.remove(key));
            assert_eq!((readers.len(), readers.places().len()), (3, 3));
            let ReaderSlots::Many(many) = &readers.places else { panic!("three readers are left") };
            assert!(many.places.capacity() < 64 && many.free.capacity() < 64, "{many:?}");
        }
        assert_eq!(numbers(&readers), [0, 1, 2]);
        readers.remove(stay[0]);
        readers.remove(stay[2]);
        assert_eq!((readers.insert(reader(3)), readers.insert(reader(4))), (0, 2));
    }

    #[test]
    fn one_reader_of_a_list_can_be_ended() {
        let list = Mutex::new(ReaderList::new());
        let all: Vec<_> = (0..3).map(reader).collect();
        all.iter().for_each(|reader| _ = list.lock().insert(Arc::clone(reader)));
        assert!(end_one(&list, 1, EndReason::Disconnected));
        assert!(!end_one(&list, 7, EndReason::Disconnected));
        let ended: Vec<_> = all.iter().map(|reader| reader.slot.ended()).collect();
        assert_eq!(ended, [None, Some(EndReason::Disconnected), None]);
    }

    /// The search locks the list for one batch at a time, so this list needs several batches.
    #[test]
    fn a_reader_in_a_later_batch_of_a_long_list_can_be_ended() {
        let list = Mutex::new(ReaderList::new());
        let all: Vec<_> = (0..3 * WAKE_BATCH as u64).map(reader).collect();
        all.iter().for_each(|reader| _ = list.lock().insert(Arc::clone(reader)));
        let last = all.len() as u64 - 1;
        assert!(end_one(&list, last, EndReason::Disconnected));
        assert!(!end_one(&list, last + 1, EndReason::Disconnected));
        let ended = all.iter().filter(|reader| reader.slot.ended().is_some());
        assert_eq!(ended.map(|reader| reader.number).collect::<Vec<_>>(), [last]);
    }

    #[test]
    fn every_reader_of_a_long_list_is_woken() {
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
        assert!(all.iter().all(|reader| reader.lag() == 3));
    }
}
