//! The shelf is a store in memory, for tests. A shelf keeps its contents when its log is closed, as
//! a file would. A test can make the shelf fail, wait or lose events. The shelf records every
//! eviction, so it knows exactly which events are missing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use downlink_log::{
    Address, Batch, ClockState, Epoch, EvictionNumber, Fingerprint, Floor, IdempotencyKey, Offset,
    RetentionRules, Timestamp,
    store::{
        Durability, FeedChunk, Finished, Marks, Opened, Page, Range, Step, Store, StoreError,
        StoreReader, StoreReplay, StoredEntry, StoredEvent, Trimmed, Wanted,
    },
};

/// The contents and the behaviour of the store, which all clones share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    /// The kept events by offset. Each event here has only the addresses that have not evicted the
    /// event.
    events: BTreeMap<u64, StoredEvent>,
    /// The offsets of the events whose payload cannot be read.
    damaged: BTreeSet<u64>,
    /// All evictions, in order. The number of an eviction is its position in this list, counted
    /// from 1.
    evictions: Vec<Eviction>,
    keys: BTreeMap<(Box<str>, Box<str>), (Fingerprint, Offset)>,
    finished: BTreeMap<Address, Finished>,
    epochs: Vec<(Epoch, Offset)>,
    next: u64,
    clock: Option<ClockState>,
    /// Everything below this offset survives a power cut.
    flushed_below: u64,
    /// The outcomes of the next commits, in order. Commits after these succeed.
    outcomes: VecDeque<Result<(), StoreError>>,
    /// Whether the next commit panics.
    panics: bool,
    /// The error with which the next step of trimming fails.
    trim_error: Option<StoreError>,
    /// While this is true, commits and flushes wait.
    held: bool,
    /// Whether a commit or a flush is waiting.
    waiting: bool,
    commits: usize,
    pages: usize,
    unreadable: bool,
    /// The retention rules that the log has given the store since it was opened.
    rules: Option<RetentionRules>,
}

/// The eviction of one event from one topic.
#[derive(Clone, Debug)]
struct Eviction {
    /// `None` if `forget` has removed the address. The eviction then counts for every address of
    /// which the shelf has no event and no eviction.
    address: Option<Address>,
    offset: u64,
    at: Timestamp,
}

impl Shelf {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().expect("no panic under the lock")
    }

    /// Opens the store for a new epoch of the log.
    pub(crate) fn open(&self, epoch: Epoch) -> ShelfStore {
        let mut state = self.state();
        state.next = state.next.max(1);
        let next_offset = Offset::new(state.next);
        state.epochs.push((epoch, next_offset));
        let refuses = state.outcomes.front().cloned().and_then(Result::err);
        let (epochs, clock) = (state.epochs.clone(), state.clock);
        let opened = Opened { epochs, next_offset, clock, fingerprint_key: [7; 16], refuses };
        ShelfStore { shelf: self.clone(), opened, clock_delta: 0, is_stopped: false }
    }

    /// Makes the next commit fail.
    pub(crate) fn fail_with(&self, error: StoreError) {
        self.state().outcomes.push_back(Err(error));
    }

    /// Lets the next commit succeed, and makes the commit after it fail.
    pub(crate) fn succeed_then_fail_with(&self, error: StoreError) {
        self.state().outcomes.extend([Ok(()), Err(error)]);
    }

    pub(crate) fn panic_at_commit(&self) {
        self.state().panics = true;
    }

    /// Makes the next step of trimming fail.
    pub(crate) fn fail_trim_with(&self, error: StoreError) {
        self.state().trim_error = Some(error);
    }

    /// Makes commits and flushes wait until `let_go` is called.
    pub(crate) fn hold(&self) {
        self.state().held = true;
    }

    /// Blocks until a commit or a flush is waiting.
    pub(crate) fn await_held(&self) {
        self.await_until(|state| state.waiting);
    }

    pub(crate) fn let_go(&self) {
        self.state().held = false;
        self.0.1.notify_all();
    }

    /// Blocks until everything below an offset survives a power cut.
    pub(crate) fn await_flushed(&self, below: u64) {
        self.await_until(|state| state.flushed_below >= below);
    }

    /// Blocks until the log has given the store new retention rules, and returns these rules.
    pub(crate) fn await_rules(&self) -> RetentionRules {
        self.await_until(|state| state.rules.is_some());
        self.state().rules.take().expect("the rules are there")
    }

    /// Begins a commit or a flush. After a call of `hold`, this waits until `let_go` is called.
    fn begin(&self, is_stopped: bool) -> Result<MutexGuard<'_, State>, StoreError> {
        let mut state = self.state();
        while state.held {
            state.waiting = true;
            self.0.1.notify_all();
            state = self.0.1.wait(state).expect("no panic under the lock");
        }
        state.waiting = false;
        if is_stopped { Err(StoreError::Stopped) } else { Ok(state) }
    }

    fn await_until(&self, is_so: impl Fn(&State) -> bool) {
        let wait = self.0.1.wait_while(self.state(), |state| !is_so(state));
        drop(wait.expect("no panic under the lock"));
    }

    /// The offsets of the kept events.
    pub(crate) fn offsets(&self) -> Vec<u64> {
        self.state().events.keys().copied().collect()
    }

    /// The number of commits, including failed ones.
    pub(crate) fn commits(&self) -> usize {
        self.state().commits
    }

    pub(crate) fn flushed_below(&self) -> u64 {
        self.state().flushed_below
    }

    /// The number of pages read.
    pub(crate) fn pages(&self) -> usize {
        self.state().pages
    }

    pub(crate) fn clock(&self) -> Option<ClockState> {
        self.state().clock
    }

    pub(crate) fn be_unreadable(&self) {
        self.state().unreadable = true;
    }

    /// Damages the payload of an event.
    pub(crate) fn damage(&self, offset: u64) {
        self.state().damaged.insert(offset);
    }

    /// Evicts the events of one address that are below an offset, as retention would.
    pub(crate) fn evict(&self, address: &Address, below: u64) {
        let state = &mut *self.state();
        for (&offset, event) in state.events.range_mut(..below) {
            if event.to.contains(address) {
                event.to.retain(|to| to != address);
                let address = Some(address.clone());
                state.evictions.push(Eviction { address, offset, at: event.at });
            }
        }
        state.events.retain(|_, event| !event.to.is_empty());
    }

    /// Removes an address from the list of evictions. A store may do this for an address without
    /// events if the store has too many addresses.
    pub(crate) fn forget(&self, address: &Address) {
        let mut state = self.state();
        assert!(!state.keeps(address), "the address still keeps events");
        for eviction in &mut state.evictions {
            eviction.address.take_if(|evicted| evicted == address);
        }
    }

    /// Removes all events from an offset on, as if an older backup had replaced the store.
    pub(crate) fn lose_from(&self, offset: u64) {
        let mut state = self.state();
        state.events.retain(|&kept, _| kept < offset);
        state.next = offset;
    }
}

impl State {
    fn keeps(&self, address: &Address) -> bool {
        self.events.values().any(|event| event.to.contains(address))
    }

    /// Whether the shelf has events of an address, or knows evictions from the address.
    fn knows(&self, address: &Address) -> bool {
        let is_evicted = |eviction: &Eviction| eviction.address.as_ref() == Some(address);
        self.keeps(address) || self.evictions.iter().any(is_evicted)
    }

    fn wanted<'a>(
        &'a self,
        wanted: &'a Wanted,
    ) -> impl DoubleEndedIterator<Item = &'a StoredEvent> {
        self.events.values().filter(|event| event.to.iter().any(|to| is_wanted(wanted, to)))
    }

    /// The evictions that concern a reader of `wanted` and have a number above `after`.
    fn evicted<'a>(
        &'a self,
        wanted: &'a Wanted,
        after: EvictionNumber,
    ) -> impl Iterator<Item = &'a Eviction> {
        let any_unknown = !wanted.patterns.is_empty()
            || wanted.addresses.iter().any(|address| !self.knows(address));
        let later = self.evictions.iter().zip(1..).filter(move |&(_, number)| number > after.get());
        later.map(|(eviction, _)| eviction).filter(move |eviction| match &eviction.address {
            Some(address) => is_wanted(wanted, address),
            None => any_unknown,
        })
    }

    fn hole(&self, wanted: &Wanted, from: u64, after: EvictionNumber) -> Option<Offset> {
        let kept: BTreeSet<u64> = self.wanted(wanted).map(|event| event.offset.get()).collect();
        let lost = self.evicted(wanted, after).map(|eviction| eviction.offset);
        let highest = lost.filter(|offset| *offset >= from && !kept.contains(offset)).max()?;
        Some(Offset::new(highest))
    }

    fn is_damaged(&self, event: &StoredEvent) -> bool {
        self.damaged.contains(&event.offset.get())
    }

    fn read(&mut self) -> Result<&mut Self, StoreError> {
        if self.unreadable {
            Err(StoreError::Io { reason: "a test made the shelf fail".into() })
        } else {
            Ok(self)
        }
    }
}

fn is_wanted(wanted: &Wanted, address: &Address) -> bool {
    let by_pattern = address.topic().is_some_and(|topic| wanted.patterns.matches(topic.as_str()));
    by_pattern || wanted.addresses.contains(address)
}

/// The floor that these evictions leave: the offset after the newest evicted event, and the time of
/// this event.
fn floor<'a>(evictions: impl Iterator<Item = &'a Eviction>) -> Floor {
    evictions.fold(Floor::NONE, |floor, eviction| {
        floor.max(Floor { offset: Offset::new(eviction.offset + 1), at: eviction.at })
    })
}

/// The writing side of a shelf, which a log owns.
#[derive(Debug)]
pub(crate) struct ShelfStore {
    shelf: Shelf,
    opened: Opened,
    clock_delta: i64,
    is_stopped: bool,
}

impl Store for ShelfStore {
    fn opened(&self) -> &Opened {
        &self.opened
    }

    fn reader(&self) -> Arc<dyn StoreReader> {
        Arc::new(self.shelf.clone())
    }

    fn publisher_id(&mut self, id: &str) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        let state = self.shelf.state();
        let found = state.events.values().find(|event| event.id.as_deref() == Some(id));
        Ok(found.map(|event| (event.fingerprint, event.offset)))
    }

    fn idempotency_key(
        &mut self,
        key: &IdempotencyKey,
    ) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        Ok(self.shelf.state().keys.get(&(key.credential.clone(), key.key.clone())).copied())
    }

    fn set_clock_delta(&mut self, delta_ms: i64) {
        self.clock_delta = delta_ms;
    }

    fn commit(&mut self, batch: &[StoredEvent], durability: Durability) -> Result<(), StoreError> {
        let mut state = self.shelf.begin(self.is_stopped)?;
        if state.panics {
            drop(state);
            panic!("a test made the shelf fail");
        }
        let state = &mut *state;
        state.commits += 1;
        if let Err(error) = state.outcomes.pop_front().unwrap_or(Ok(())) {
            self.is_stopped = error.is_final();
            return Err(error);
        }
        for event in batch {
            let offset = event.offset.get();
            assert!(offset >= state.next, "offset {offset} must not be below {}", state.next);
            state.next = offset + 1;
            state.clock = Some(ClockState { at: event.at, delta_ms: self.clock_delta });
            if let Some(IdempotencyKey { credential, key }) = event.key.clone() {
                state.keys.insert((credential, key), (event.fingerprint, event.offset));
            }
            for address in event.to.iter().filter(|_| event.finish) {
                let mark = Finished { offset: event.offset, at: event.at };
                state.finished.insert(address.clone(), mark);
            }
            if event.payload.is_some() && !event.to.is_empty() {
                state.events.insert(offset, StoredEvent { key: None, ..event.clone() });
            }
        }
        if durability == Durability::Commit {
            state.flushed_below = state.next;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let mut state = self.shelf.begin(self.is_stopped)?;
        state.flushed_below = state.next;
        self.shelf.0.1.notify_all();
        Ok(())
    }

    fn set_retention(&mut self, rules: RetentionRules) {
        self.shelf.state().rules = Some(rules);
        self.shelf.0.1.notify_all();
    }

    fn probe(&mut self, _: usize) -> Result<(), StoreError> {
        self.commit(&[], Durability::Commit)
    }

    fn trim(&mut self, _: Timestamp) -> Result<Trimmed, StoreError> {
        match self.shelf.state().trim_error.take() {
            Some(error) => {
                self.is_stopped = error.is_final();
                Err(error)
            }
            None => Ok(Trimmed::Until(None)),
        }
    }
}

impl StoreReader for Shelf {
    fn close(&self) {}

    fn replay(&self, wanted: Wanted) -> Box<dyn StoreReplay> {
        Box::new(ShelfReplay { shelf: self.clone(), wanted, is_going: false })
    }

    fn newest_eviction(&self) -> Result<EvictionNumber, StoreError> {
        Ok(EvictionNumber::new(self.state().read()?.evictions.len() as u64))
    }

    fn highest_floor(&self) -> Result<Offset, StoreError> {
        Ok(floor(self.state().read()?.evictions.iter()).offset)
    }

    fn floor_of(&self, address: &Address) -> Result<Floor, StoreError> {
        let mut state = self.state();
        let state = state.read()?;
        let own = state.knows(address).then_some(address);
        Ok(floor(state.evictions.iter().filter(|eviction| eviction.address.as_ref() == own)))
    }

    fn floors_above(
        &self,
        from: Offset,
        each: &mut dyn FnMut(Address, Floor),
    ) -> Result<(), StoreError> {
        let mut floors = BTreeMap::new();
        for Eviction { address, offset, at, .. } in self.state().read()?.evictions.clone() {
            if let Some(address) = address {
                let floor = floors.entry(address).or_insert(Floor::NONE);
                *floor = Floor { offset: Offset::new(offset + 1), at }.max(*floor);
            }
        }
        let above = floors.into_iter().filter(|(_, floor)| floor.offset > from);
        above.for_each(|(address, floor)| each(address, floor));
        Ok(())
    }

    fn first_since(&self, since: Timestamp) -> Result<Option<Offset>, StoreError> {
        let mut state = self.state();
        let first = state.read()?.events.values().find(|event| event.at >= since);
        Ok(first.map(|event| event.offset))
    }

    fn newest(&self, batch: Batch) -> Result<Vec<StoredEvent>, StoreError> {
        let mut state = self.state();
        let state = state.read()?;
        let readable = |event: &&StoredEvent| !state.is_damaged(event);
        let newest = state.events.values().rev().take_while(readable).take(batch.events_max);
        Ok(newest.cloned().collect::<Vec<_>>().into_iter().rev().collect())
    }

    fn feed(&self, range: Range, batch: Batch) -> Result<FeedChunk, StoreError> {
        let mut state = self.state();
        let state = state.read()?;
        let read = |event: &StoredEvent| {
            let payload =
                if state.is_damaged(event) { Some(Vec::new()) } else { event.payload.clone() };
            StoredEvent { payload, ..event.clone() }
        };
        let in_range = state.events.range(range.from.get()..range.until.get());
        let events: Vec<_> =
            in_range.map(|(_, event)| read(event)).take(batch.events_max.max(1)).collect();
        let is_full = events.len() == batch.events_max.max(1);
        let last = events.last().filter(|_| is_full);
        let next = last.map_or(range.until, |event| Offset::new(event.offset.get() + 1));
        let forgotten = state.evictions.iter().filter(|eviction| eviction.address.is_none());
        let others = floor(forgotten);
        let mut floors = BTreeMap::new();
        for Eviction { address, offset, at, .. } in state.evictions.clone() {
            if let Some(address) = address {
                let floor = floors.entry(address).or_insert(Floor::NONE);
                *floor = Floor { offset: Offset::new(offset + 1), at }.max(*floor);
            }
        }
        let lists_all = others.offset > range.from;
        if lists_all {
            let known = state.events.values().flat_map(|event| event.to.iter().cloned());
            known.for_each(|address| _ = floors.entry(address).or_insert(Floor::NONE));
        }
        let others = if lists_all { others } else { Floor::NONE };
        floors.retain(|_, floor| lists_all || floor.offset > range.from);
        let marks = state.finished.clone().into_iter();
        let marks = marks.filter(|(_, mark)| (range.from..next).contains(&mark.offset)).collect();
        let floors = floors.into_iter().collect();
        let mut chunk = FeedChunk {
            floors,
            others,
            events,
            next,
            clock: ClockState::default(),
            marks: Marks::default(),
            node: None,
        };
        chunk.add_finish_marks(marks);
        Ok(chunk)
    }

    fn publisher_id(&self, id: &str) -> Result<Option<Offset>, StoreError> {
        let mut state = self.state();
        let events = state.read()?.events.values();
        let found = events.rev().find(|event| event.id.as_deref() == Some(id));
        Ok(found.map(|event| event.offset))
    }

    fn finished_topics(&self, topics_max: usize) -> Result<Vec<(Address, Finished)>, StoreError> {
        let marks = self.state().read()?.finished.clone();
        let mut marks: Vec<_> = marks.into_iter().collect();
        marks.sort_by_key(|(_, mark)| std::cmp::Reverse(mark.offset));
        marks.truncate(topics_max);
        Ok(marks)
    }
}

/// A replay: the reading side of a shelf, for one reader. Before each result, it returns
/// `Step::More` once, because a real store may need several steps for a result.
#[derive(Debug)]
struct ShelfReplay {
    shelf: Shelf,
    wanted: Wanted,
    is_going: bool,
}

impl ShelfReplay {
    fn answer<T>(
        &mut self,
        answer: impl FnOnce(&mut State, &Wanted) -> T,
    ) -> Result<Step<T>, StoreError> {
        let mut state = self.shelf.state();
        let state = state.read()?;
        self.is_going = !self.is_going;
        if self.is_going {
            return Ok(Step::More);
        }
        Ok(Step::Done(answer(state, &self.wanted)))
    }
}

impl StoreReplay for ShelfReplay {
    fn page(
        &mut self,
        range: Range,
        evicted_after: EvictionNumber,
        batch: Batch,
    ) -> Result<Step<Page>, StoreError> {
        self.answer(|state, wanted| {
            state.pages += 1;
            let count = batch.events_max.max(1);
            let in_range = |event: &&StoredEvent| (range.from..range.until).contains(&event.offset);
            let found = state.wanted(wanted).filter(in_range).take(count);
            let entry = |event: &StoredEvent| StoredEntry {
                offset: event.offset,
                at: event.at,
                id: event.id.clone(),
                payload: event.payload.clone().filter(|_| !state.is_damaged(event)),
            };
            let events: Vec<StoredEntry> = found.map(entry).collect();
            let last = events.last().filter(|_| events.len() == count);
            let next = last.map_or(range.until, |last| Offset::new(last.offset.get() + 1));
            Page { events, next, hole: state.hole(wanted, range.from.get(), evicted_after) }
        })
    }

    fn floor(&mut self) -> Result<Step<Floor>, StoreError> {
        self.answer(|state, wanted| floor(state.evicted(wanted, EvictionNumber::NONE)))
    }

    fn nth_newest(
        &mut self,
        count: usize,
        until: Offset,
    ) -> Result<Step<Option<Offset>>, StoreError> {
        self.answer(|state, wanted| {
            let newest = state.wanted(wanted).rev().filter(|event| event.offset < until);
            newest.take(count).last().map(|event| event.offset)
        })
    }
}
