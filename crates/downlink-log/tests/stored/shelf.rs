//! A store in memory that can be told to fail: what a log over a store is tested with, besides the
//! real one. It survives its log, as a file would.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use downlink_log::{
    Address, Batch, Epoch, Fingerprint, IdempotencyKey, Offset, Timestamp,
    store::{
        Durability, Finished, Opened, Page, Store, StoreError, StoreReader, StoredEntry,
        StoredEvent, StoredFloor, Trimmed, Wanted,
    },
};

/// What is on the disk, and how the disk behaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    events: BTreeMap<u64, StoredEvent>,
    floors: BTreeMap<Address, StoredFloor>,
    /// The floor of addresses that keep nothing and have none of their own.
    forgotten: Option<StoredFloor>,
    epochs: Vec<(Epoch, Offset)>,
    next: u64,
    at: Timestamp,
    /// The commits to come fail like this, the first first; `None` is one that does not.
    failures: Vec<Option<StoreError>>,
    /// Whether the commits after these wait.
    holds_after_failures: bool,
    /// While set, commits wait.
    held: bool,
    /// A commit waits.
    waiting: bool,
    pub(crate) commits: usize,
    pages: usize,
    unreadable: bool,
}

impl Shelf {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().expect("no test panics with the shelf")
    }

    /// Begins a life of the log.
    pub(crate) fn open(&self, epoch: Epoch) -> ShelfStore {
        let mut state = self.state();
        state.next = state.next.max(1);
        let next_offset = Offset::new(state.next);
        state.epochs.push((epoch, next_offset));
        let (epochs, at) = (state.epochs.clone(), state.at);
        let opened = Opened { epochs, next_offset, at, fingerprint_key: [7; 16] };
        ShelfStore { shelf: self.clone(), opened, stopped: false }
    }

    pub(crate) fn fail_with(&self, failures: impl IntoIterator<Item = Option<StoreError>>) {
        self.state().failures.extend(failures);
    }

    /// Lets commits wait, until they are let go.
    pub(crate) fn hold(&self) {
        self.state().held = true;
    }

    /// Fails one commit, and lets those after it wait.
    pub(crate) fn fail_once_and_hold(&self, failure: StoreError) {
        let mut state = self.state();
        state.failures.push(Some(failure));
        state.holds_after_failures = true;
    }

    /// Waits until a commit is being held up.
    pub(crate) fn await_held(&self) {
        let state = self.state();
        drop(self.0.1.wait_while(state, |state| !state.waiting).expect("no panic with the shelf"));
    }

    pub(crate) fn let_go(&self) {
        (self.state().held, self.state().waiting) = (false, false);
        self.0.1.notify_all();
    }

    pub(crate) fn offsets(&self) -> Vec<u64> {
        self.state().events.keys().copied().collect()
    }

    pub(crate) fn commits(&self) -> usize {
        self.state().commits
    }

    pub(crate) fn pages(&self) -> usize {
        self.state().pages
    }

    pub(crate) fn be_unreadable(&self) {
        self.state().unreadable = true;
    }

    /// Evicts the events of one topic below an offset, as retention would.
    pub(crate) fn evict(&self, address: &Address, below: u64) {
        let mut state = self.state();
        state.events.retain(|&offset, event| offset >= below || !event.to.contains(address));
        let floor = StoredFloor { offset: Offset::new(below), at: state.at };
        state.floors.insert(address.clone(), floor);
    }

    /// Forgets an address that keeps nothing, as a store does when there are too many of these.
    pub(crate) fn forget(&self, address: &Address) {
        let mut state = self.state();
        assert!(!state.is_kept(address), "something is kept");
        let floor = state.floors.remove(address).unwrap_or(StoredFloor::NONE);
        state.forgotten = Some(state.forgotten.map_or(floor, |highest| highest.max(floor)));
    }

    /// Loses what was committed last, as a backup that is older would.
    pub(crate) fn lose_from(&self, offset: u64) {
        let mut state = self.state();
        state.events.retain(|&kept, _| kept < offset);
        state.next = offset;
    }
}

impl State {
    fn wants(wanted: &Wanted, event: &StoredEvent) -> bool {
        event.to.iter().any(|address| Self::wants_address(wanted, address))
    }

    fn wants_address(wanted: &Wanted, address: &Address) -> bool {
        let by_pattern = |topic| wanted.patterns.iter().any(|pattern| pattern.matches(topic));
        wanted.addresses.contains(address) || address.topic().is_some_and(by_pattern)
    }

    fn floor(&self, wanted: &Wanted) -> StoredFloor {
        let floors = self.floors.iter().filter(|(address, _)| Self::wants_address(wanted, address));
        let own = floors.fold(StoredFloor::NONE, |highest, (_, floor)| highest.max(*floor));
        let is_known = |address| self.floors.contains_key(address) || self.is_kept(address);
        if wanted.addresses.iter().all(is_known) {
            own
        } else {
            own.max(self.forgotten.unwrap_or(own))
        }
    }

    fn is_kept(&self, address: &Address) -> bool {
        self.events.values().any(|event| event.to.contains(address))
    }

    fn wanted<'a>(
        &'a self,
        wanted: &'a Wanted,
    ) -> impl DoubleEndedIterator<Item = &'a StoredEvent> {
        let events = self.events.values().filter(|event| event.payload.is_some());
        events.filter(|event| Self::wants(wanted, event))
    }
}

#[derive(Debug)]
pub(crate) struct ShelfStore {
    shelf: Shelf,
    opened: Opened,
    stopped: bool,
}

impl Store for ShelfStore {
    fn opened(&self) -> &Opened {
        &self.opened
    }

    fn reader(&self) -> Arc<dyn StoreReader> {
        Arc::new(self.shelf.clone())
    }

    fn commit(&mut self, batch: &[StoredEvent], _: Durability) -> Result<(), StoreError> {
        let (mut state, changed) = (self.shelf.state(), &self.shelf.0.1);
        while state.held {
            state.waiting = true;
            changed.notify_all();
            state = changed.wait(state).expect("no test panics with the shelf");
        }
        if self.stopped {
            return Err(StoreError::Stopped);
        }
        state.commits += 1;
        let failure = if state.failures.is_empty() { None } else { state.failures.remove(0) };
        if let Some(error) = failure {
            state.held |= state.holds_after_failures && state.failures.is_empty();
            self.stopped = error.is_final();
            return Err(error);
        }
        for event in batch {
            let offset = event.offset.get();
            assert!(offset >= state.next, "offsets rise: {offset} after {}", state.next);
            state.next = offset + 1;
            state.at = event.at;
            state.events.insert(offset, event.clone());
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn trim(&mut self, _: Timestamp) -> Result<Trimmed, StoreError> {
        Ok(Trimmed::Until(None))
    }
}

impl StoreReader for Shelf {
    fn page(
        &self,
        wanted: &Wanted,
        from: Offset,
        until: Offset,
        batch: Batch,
    ) -> Result<Page, StoreError> {
        let mut state = self.state();
        state.pages += 1;
        if state.unreadable {
            return Err(StoreError::Io { reason: "told to".into() });
        }
        let found = state.wanted(wanted).filter(|event| (from..until).contains(&event.offset));
        let events: Vec<StoredEntry> = found
            .take(batch.events_max.max(1))
            .map(|event| StoredEntry {
                offset: event.offset,
                at: event.at,
                id: event.id.clone(),
                payload: event.payload.clone().unwrap_or_default(),
            })
            .collect();
        let full = events.len() == batch.events_max.max(1);
        let last = events.last().filter(|_| full).map(|last| Offset::new(last.offset.get() + 1));
        Ok(Page { events, next: last.unwrap_or(until), floor: state.floor(wanted) })
    }

    fn floor(&self, wanted: &Wanted) -> Result<StoredFloor, StoreError> {
        Ok(self.state().floor(wanted))
    }

    fn highest_floor(&self) -> Result<Offset, StoreError> {
        let highest = self.state().floors.values().map(|floor| floor.offset).max();
        let forgotten = self.state().forgotten.map(|floor| floor.offset);
        Ok(highest.max(forgotten).unwrap_or(Offset::FIRST))
    }

    fn floors_above(
        &self,
        from: Offset,
        each: &mut dyn FnMut(Address, Offset),
    ) -> Result<(), StoreError> {
        let floors = self.state().floors.clone();
        let above = floors.into_iter().filter(|(_, floor)| floor.offset > from);
        above.for_each(|(address, floor)| each(address, floor.offset));
        Ok(())
    }

    fn nth_newest(
        &self,
        wanted: &Wanted,
        count: usize,
        until: Offset,
    ) -> Result<Option<Offset>, StoreError> {
        let state = self.state();
        let newest = state.wanted(wanted).rev().filter(|event| event.offset < until);
        Ok(newest.take(count).last().map(|event| event.offset))
    }

    fn first_since(&self, since: Timestamp) -> Result<Option<Offset>, StoreError> {
        let state = self.state();
        Ok(state.events.values().find(|event| event.at >= since).map(|event| event.offset))
    }

    fn newest(&self, batch: Batch) -> Result<Vec<StoredEvent>, StoreError> {
        let state = self.state();
        let skipped = state.events.len().saturating_sub(batch.events_max);
        Ok(state.events.values().skip(skipped).cloned().collect())
    }

    fn given(&self, id: &str) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        let state = self.state();
        let found = state.events.values().find(|event| event.id.as_deref() == Some(id));
        Ok(found.map(|event| (event.fingerprint, event.offset)))
    }

    fn key(&self, key: &IdempotencyKey) -> Result<Option<(Fingerprint, Offset)>, StoreError> {
        let state = self.state();
        let found = state.events.values().find(|event| event.key.as_ref() == Some(key));
        Ok(found.map(|event| (event.fingerprint, event.offset)))
    }

    fn finished(&self, address: &Address) -> Result<Option<Finished>, StoreError> {
        let state = self.state();
        let mut marks = state.events.values().filter(|event| event.finish);
        let mark = marks.find(|event| event.to.contains(address));
        Ok(mark.map(|event| Finished { offset: event.offset, at: event.at }))
    }

    fn finished_topics(&self, topics_max: usize) -> Result<Vec<(Address, Finished)>, StoreError> {
        let state = self.state();
        let marks = state.events.values().rev().filter(|event| event.finish);
        let marks = marks.flat_map(|event| {
            let mark = Finished { offset: event.offset, at: event.at };
            event.to.iter().map(move |address| (address.clone(), mark))
        });
        Ok(marks.take(topics_max).collect())
    }
}
