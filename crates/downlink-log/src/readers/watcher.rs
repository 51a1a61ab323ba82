//! What the log knows of one reader, and the list of readers that each topic keeps.
//!
//! A watcher is in the list of every topic it reads, from subscribe to drop; it remembers its place
//! in each, so that leaving costs the same however many others there are.

use std::{hint::black_box, sync::Arc};

use smallvec::SmallVec;

use crate::{
    address::{Address, ClientId},
    forgotten::Floor,
    gathered::Pace,
    reader::EndReason,
    selector::TopicSelector,
    sync::{AtomicU64, Mutex, Ordering},
    topic::TopicLog,
    wake::{WAKE_BATCH, Wake, Woken},
};

/// One reader, as its topics see it.
///
/// In this order, so that what an event needs of it lies in two cache lines, and what a wake-up needs
/// in the second of them.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Watcher<P> {
    /// The topics it reads. Held while it reads, and while a topic is added or collected.
    pub(crate) attached: Mutex<Attached<P>>,
    /// The next offset to read. Written by the reader alone, and ordered with nothing (Relaxed):
    /// others only show it.
    pub(crate) next: AtomicU64,
    pub(crate) wake: Wake,
    /// Unique among the readers of a log, in the order of their coming.
    pub(crate) number: u64,
    /// The client's, if it has one: where its id is kept, once for all its readers.
    inbox: Option<Arc<TopicLog<P>>>,
    /// `None` in most: they name topics only.
    patterns: Option<Box<Wanted>>,
    /// The newest offset whose publisher counted this reader, so that none counts it twice.
    /// Relaxed: publishers take turns by the sequence lock.
    counted: AtomicU64,
}

/// What precedes a watcher: the counts of its `Arc`, which allocators put at the beginning of a cache
/// line.
#[cfg(all(target_pointer_width = "64", not(any(test, downlink_loom))))]
const COUNTS_BYTES: usize = 16;
#[cfg(all(target_pointer_width = "64", not(any(test, downlink_loom))))]
const _: () = assert!(
    COUNTS_BYTES + std::mem::offset_of!(Watcher<u8>, wake) + Wake::HOT_BYTES <= 128,
    "what nearly every event needs is in two cache lines"
);

/// The patterns of a reader that has some.
#[derive(Debug)]
struct Wanted {
    patterns: Box<[TopicSelector]>,
}

/// The topics of one reader.
///
/// Invariant: `seats` is sorted by the topics' identity and holds each once.
#[derive(Debug)]
pub(crate) struct Attached<P> {
    /// Three are usual: a topic, the client's inbox, and what is for everyone.
    seats: SmallVec<[Seat<P>; 3]>,
    /// What collection has taken from a reader with patterns; `None` while that is nothing.
    lost: Option<Box<Lost>>,
}

/// Topics that were collected under a reader.
#[derive(Debug)]
struct Lost {
    /// Seats given up and still there: at most half.
    gone: usize,
    /// The highest floor of these topics.
    floor: Floor,
}

/// A topic, and the reader's place in its list.
#[derive(Debug)]
pub(crate) struct Seat<P> {
    pub(crate) topic: Arc<TopicLog<P>>,
    /// `GONE` when given up.
    pub(crate) key: u32,
    /// Whether the reader named the topic.
    pub(crate) exact: bool,
    /// Whether it is the reader's inbox; known here too, so that the topic need not be visited.
    pub(crate) inbox: bool,
}

/// No place in any list.
const GONE: u32 = u32::MAX;

impl<P> Seat<P> {
    /// Puts a reader on the list of a topic.
    pub(crate) fn take(topic: &Arc<TopicLog<P>>, watcher: &Arc<Watcher<P>>, exact: bool) -> Self {
        let key = topic.watchers.lock().insert(Arc::clone(watcher), exact);
        Self { topic: Arc::clone(topic), key, exact, inbox: topic.is_inbox() }
    }

    /// Takes the reader off the list again.
    pub(crate) fn leave(&self) {
        self.topic.watchers.lock().remove(self.key, self.exact);
    }
}

impl<P> Watcher<P> {
    pub(crate) fn new(
        number: u64,
        inbox: Option<Arc<TopicLog<P>>>,
        patterns: Box<[TopicSelector]>,
    ) -> Self {
        Self {
            number,
            inbox,
            patterns: (!patterns.is_empty()).then(|| Box::new(Wanted { patterns })),
            wake: Wake::new(),
            attached: Mutex::new(Attached::new()),
            next: AtomicU64::new(u64::MAX),
            counted: AtomicU64::new(0),
        }
    }

    pub(crate) fn client(&self) -> Option<&ClientId> {
        match &self.inbox.as_ref()?.address {
            Address::Client(client) => Some(client),
            _ => None,
        }
    }

    pub(crate) fn patterns(&self) -> &[TopicSelector] {
        self.patterns.as_ref().map_or(&[], |wanted| &wanted.patterns)
    }

    /// Whether this is the first time that the publisher of `offset` meets the reader.
    pub(crate) fn count_once(&self, offset: u64) -> bool {
        self.counted.swap(offset, Ordering::Relaxed) != offset
    }
}

impl<P> Attached<P> {
    fn new() -> Self {
        Self { seats: SmallVec::new(), lost: None }
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
        self.seats.len() - self.lost.as_ref().map_or(0, |lost| lost.gone)
    }

    /// Adds the seat of a topic that is not there yet.
    pub(crate) fn insert(&mut self, seat: Seat<P>) {
        if let Err(at) = self.position(&seat.topic) {
            self.seats.insert(at, seat);
        }
    }

    /// Adds seats of topics that are not there yet.
    pub(crate) fn extend(&mut self, seats: impl IntoIterator<Item = Seat<P>>) {
        self.seats.extend(seats);
        // What was there is in order: this is a merge.
        self.seats.sort_by_key(|seat| seat.topic.identity());
    }

    /// Gives up the seat in a topic and says which it was.
    ///
    /// A reader of a hundred thousand topics would move them all for each: so half of the seats are
    /// given up before any is moved.
    pub(crate) fn remove(&mut self, topic: &TopicLog<P>) -> Option<u32> {
        let at = self.position(topic).ok()?;
        let seat = self.seats.get_mut(at).filter(|seat| seat.key != GONE)?;
        let key = std::mem::replace(&mut seat.key, GONE);
        let seats = self.seats.len();
        let lost = self.lost();
        lost.gone += 1;
        if 2 * lost.gone > seats {
            lost.gone = 0;
            self.seats.retain(|seat| seat.key != GONE);
        }
        Some(key)
    }

    /// Gives up all seats.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Seat<P>> + use<P> {
        self.lost = None;
        std::mem::take(&mut self.seats).into_iter().filter(|seat| seat.key != GONE)
    }

    pub(crate) fn contains(&self, topic: &TopicLog<P>) -> bool {
        self.position(topic).is_ok()
    }

    /// The highest floor of the topics that were collected under this reader.
    pub(crate) fn detached(&self) -> Floor {
        self.lost.as_ref().map_or(Floor::NONE, |lost| lost.floor)
    }

    /// Notes that topics with history up to this floor are not, or no longer, attached.
    pub(crate) fn note_detached(&mut self, floor: Floor) {
        if floor.offset > Floor::NONE.offset {
            let lost = self.lost();
            lost.floor = lost.floor.max(floor);
        }
    }

    fn lost(&mut self) -> &mut Lost {
        self.lost.get_or_insert_with(|| Box::new(Lost { gone: 0, floor: Floor::NONE }))
    }

    /// Where a topic's seat is, or would be.
    ///
    /// The identity of a topic is not used again while it has a seat, given up or not.
    fn position(&self, topic: &TopicLog<P>) -> Result<usize, usize> {
        self.seats.binary_search_by_key(&topic.identity(), |seat| seat.topic.identity())
    }
}

/// The readers of one topic.
#[derive(Debug)]
pub(crate) struct Watchers<P> {
    places: Places<P>,
    /// How many of them named the topic itself. Patterns do not keep a topic alive.
    exact: u32,
    /// Of a topic whose wake-ups linger. Stays when the last reader leaves.
    pub(crate) pace: Pace,
}

/// Free when it is `None`.
type Place<P> = Option<Arc<Watcher<P>>>;

#[derive(Debug)]
enum Places<P> {
    /// Most topics with readers have one: a client's inbox.
    One(Place<P>),
    Many(Box<Many<P>>),
}

/// Invariant: the last place is taken, and `count` in all; `free` holds the number of each free place
/// once, and numbers of places that are no more.
#[derive(Debug)]
struct Many<P> {
    places: Vec<Place<P>>,
    free: Vec<u32>,
    count: usize,
}

impl<P> Watchers<P> {
    pub(crate) fn new() -> Self {
        Self { places: Places::One(None), exact: 0, pace: Pace::default() }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.places {
            Places::One(place) => usize::from(place.is_some()),
            Places::Many(many) => many.count,
        }
    }

    pub(crate) fn has_exact(&self) -> bool {
        self.exact > 0
    }

    pub(crate) fn insert(&mut self, watcher: Arc<Watcher<P>>, exact: bool) -> u32 {
        self.exact += u32::from(exact);
        match &mut self.places {
            Places::One(place @ None) => {
                *place = Some(watcher);
                0
            }
            Places::One(first) => {
                let places = vec![first.take(), Some(watcher)];
                self.places = Places::Many(Box::new(Many { places, free: Vec::new(), count: 2 }));
                1
            }
            Places::Many(many) => many.insert(watcher),
        }
    }

    /// Takes a reader off the list. `exact` is what it came with.
    pub(crate) fn remove(&mut self, key: u32, exact: bool) {
        let place = match &mut self.places {
            Places::One(place) => Some(place),
            Places::Many(many) => many.places.get_mut(key as usize),
        };
        if place.and_then(Option::take).is_none() {
            return;
        }
        self.exact -= u32::from(exact);
        if let Places::Many(many) = &mut self.places {
            many.count -= 1;
            if many.count == 0 {
                self.places = Places::One(None);
            } else {
                many.note_free(key);
            }
        }
    }

    /// Every reader.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Watcher<P>>> {
        self.places().iter().flatten()
    }

    /// The readers from place `from` on, up to a batch of places, and where to go on.
    fn batch(&self, from: usize) -> (&[Place<P>], Option<usize>) {
        let rest = self.places().get(from..).unwrap_or_default();
        let batch = rest.get(..WAKE_BATCH).unwrap_or(rest);
        let next = (rest.len() > WAKE_BATCH).then_some(from + WAKE_BATCH);
        (batch, next)
    }

    fn places(&self) -> &[Place<P>] {
        match &self.places {
            Places::One(place) => std::slice::from_ref(place),
            Places::Many(many) => &many.places,
        }
    }
}

impl<P> Many<P> {
    fn insert(&mut self, watcher: Arc<Watcher<P>>) -> u32 {
        self.count += 1;
        while let Some(key) = self.free.pop() {
            if let Some(place) = self.places.get_mut(key as usize) {
                debug_assert!(place.is_none(), "what is noted is free");
                *place = Some(watcher);
                return key;
            }
        }
        self.places.push(Some(watcher));
        (self.places.len() - 1) as u32
    }

    /// Notes that a place became free, and gives back what lies behind the last that is taken: ten
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

/// Wakes the readers of a list in batches, with no lock held while a waker runs.
///
/// Readers that come while this goes on look at the log by themselves.
pub(crate) fn wake_all<P>(watchers: &Mutex<Watchers<P>>) {
    wake_each(watchers, |_| {});
}

/// Tells every reader of a list to end and wakes it; says how many there were.
pub(crate) fn end_each<P>(watchers: &Mutex<Watchers<P>>, reason: EndReason) -> usize {
    let mut ended = 0;
    wake_each(watchers, |watcher| {
        watcher.wake.end(reason);
        ended += 1;
    });
    ended
}

fn wake_each<P>(watchers: &Mutex<Watchers<P>>, mut before: impl FnMut(&Watcher<P>)) {
    let mut from = Some(0);
    while let Some(start) = from {
        let mut woken = Woken::default();
        {
            let watchers = watchers.lock();
            let (batch, next) = watchers.batch(start);
            from = next;
            // Ten thousand readers are in no cache. Looked at first, they are fetched side by side,
            // which the swaps that follow would not be.
            black_box(batch.iter().flatten().filter(|watcher| watcher.wake.is_awake()).count());
            for watcher in batch.iter().flatten() {
                before(watcher);
                watcher.wake.take(&mut woken);
            }
        }
        woken.wake();
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use std::task::Waker;

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
        watchers.remove(keys[1], false);
        watchers.remove(keys[1], false);
        assert_eq!((watchers.len(), watchers.has_exact()), (2, true));
        assert_eq!(watchers.insert(watcher(9), false), keys[1]);
        assert_eq!(numbers(&watchers), [0, 9, 2]);
        watchers.remove(keys[0], true);
        watchers.remove(keys[2], true);
        assert_eq!((watchers.len(), watchers.has_exact()), (1, false));
        watchers.remove(keys[1], false);
        assert_eq!(watchers.len(), 0);
        assert_eq!(watchers.insert(watcher(5), true), 0);
    }

    /// Storms of readers over a few that stay, each storm leaving in another order.
    #[test]
    fn a_list_is_as_long_as_its_last_reader_needs() {
        let mut watchers = Watchers::new();
        let stay: Vec<u32> = (0..3).map(|number| watchers.insert(watcher(number), true)).collect();
        for storm in 0..3 {
            let mut keys: Vec<u32> =
                (10..1_010).map(|number| watchers.insert(watcher(number), true)).collect();
            assert_eq!(watchers.places().len(), 1_003);
            keys.sort_by_key(|key| (key % (storm + 2), std::cmp::Reverse(*key)));
            keys.into_iter().for_each(|key| watchers.remove(key, true));
            assert_eq!((watchers.len(), watchers.places().len()), (3, 3));
            let Places::Many(many) = &watchers.places else { panic!("three readers") };
            assert!(many.places.capacity() < 64 && many.free.capacity() < 64, "{many:?}");
        }
        assert_eq!(numbers(&watchers), [0, 1, 2]);
        watchers.remove(stay[0], true);
        watchers.remove(stay[2], true);
        assert_eq!((watchers.insert(watcher(3), true), watchers.insert(watcher(4), true)), (0, 2));
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
        let mut left = Woken::default();
        all.iter().for_each(|watcher| watcher.wake.take(&mut left));
        assert!(left.is_empty());
    }
}
