//! Reading from the store, for readers that are behind their rings.
//!
//! A few threads take requests in the order of their coming, one page each: a reader that wants more
//! asks again and stands behind the others. No request waits for a reader: what was read lies in a
//! slot until the reader looks, and a reader that has left takes its slot along.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    durable::Stored,
    log::{Payload, Shared},
    merge::{Batch, Entry},
    offset::{Cursor, Offset},
    store::{StoreError, StoredEntry, Wanted},
    sync::{Mutex, Ordering},
    wake::Woken,
    watcher::Watcher,
};

#[cfg(not(downlink_loom))]
use crate::sync::Condvar;

/// Pages that one request may take without finding anything: then the others have their turn.
const TURN_PAGES_MAX: usize = 16;

/// How long a request waits for events that readers have seen and the store has not: many times what
/// a commit takes, and short enough that a store which does not answer holds nobody up for long.
#[cfg(not(downlink_loom))]
const COMMIT_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(1);

/// One request: reads, and tells who asked.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The threads that read, as those who ask see them.
#[derive(Clone)]
pub(crate) struct Replay(Arc<Requests>);

struct Requests {
    /// Held alone, for a push or a pop.
    state: Mutex<State>,
    #[cfg(not(downlink_loom))]
    came: Condvar,
}

struct State {
    /// At most one for each reader of the log.
    jobs: VecDeque<Job>,
    stopped: bool,
}

impl Replay {
    pub(crate) fn start(threads: usize, begin: fn()) -> Result<Self, StoreError> {
        let state = State { jobs: VecDeque::new(), stopped: false };
        let replay = Self(Arc::new(Requests {
            state: Mutex::new(state),
            #[cfg(not(downlink_loom))]
            came: Condvar::new(),
        }));
        #[cfg(not(downlink_loom))]
        for number in 0..threads.max(1) {
            let requests = Arc::clone(&replay.0);
            let thread = std::thread::Builder::new().name(format!("downlink-read-{number}"));
            let started = thread.spawn(move || {
                begin();
                requests.answer_all();
            });
            started.map_err(|error| StoreError::Io { reason: error.to_string().into() })?;
        }
        #[cfg(downlink_loom)]
        let _ = (threads, begin);
        Ok(replay)
    }

    pub(crate) fn ask(&self, job: Job) {
        self.0.state.lock().jobs.push_back(job);
        #[cfg(not(downlink_loom))]
        self.0.came.notify_one();
    }

    /// Ends the threads. Whoever asks from now on is not answered.
    pub(crate) fn stop(&self) {
        let jobs = {
            let mut state = self.0.state.lock();
            state.stopped = true;
            std::mem::take(&mut state.jobs)
        };
        drop(jobs);
        #[cfg(not(downlink_loom))]
        self.0.came.notify_all();
    }
}

#[cfg(not(downlink_loom))]
impl Requests {
    fn answer_all(&self) {
        while let Some(job) = self.next() {
            // A job that panics takes its own answer along, and not the thread.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            self.came.wait(&mut state);
        }
    }
}

/// Where an answer lies until the reader looks.
#[derive(Debug)]
pub(crate) struct Slot<A>(Mutex<Option<Result<A, StoreError>>>);

impl<A> Slot<A> {
    pub(crate) fn take(&self) -> Option<Result<A, StoreError>> {
        self.0.lock().take()
    }
}

/// An answer that somebody waits for: it comes, if only as a failure.
struct Promise<A, P: Payload> {
    slot: Arc<Slot<A>>,
    watcher: Arc<Watcher<P>>,
    kept: bool,
}

impl<A, P: Payload> Promise<A, P> {
    fn keep(mut self, answer: Result<A, StoreError>) {
        self.kept = true;
        self.slot.0.lock().replace(answer);
    }
}

impl<A, P: Payload> Drop for Promise<A, P> {
    fn drop(&mut self) {
        if !self.kept {
            self.slot.0.lock().replace(Err(StoreError::Stopped));
        }
        let mut woken = Woken::default();
        self.watcher.wake.take(&mut woken);
        woken.wake();
    }
}

/// What follows a cursor in the store.
#[derive(Debug)]
pub(crate) struct Replayed<P> {
    pub(crate) items: VecDeque<Item<P>>,
    /// Below this nothing else follows.
    pub(crate) next: u64,
    /// The highest floor of the topics: above the cursor, there is a hole.
    pub(crate) floor: u64,
}

/// One event of a page.
#[derive(Debug)]
pub(crate) enum Item<P> {
    Entry(Entry<P>),
    /// An event that is there and can not be read.
    Broken(u64),
}

impl<P> Item<P> {
    pub(crate) fn offset(&self) -> u64 {
        match self {
            Self::Entry(entry) => entry.offset.get(),
            Self::Broken(offset) => *offset,
        }
    }
}

/// The topics of a reader, as a store is asked for them.
pub(crate) fn wanted<P>(watcher: &Watcher<P>) -> Wanted {
    let attached = watcher.attached.lock();
    let exact = attached.iter().filter(|seat| seat.exact);
    let addresses = exact.map(|seat| seat.topic.address.clone()).collect();
    Wanted { addresses, patterns: watcher.patterns().to_vec() }
}

impl<P: Payload> Shared<P> {
    /// Asks the store something for a reader, which is woken when the answer is in the slot.
    pub(crate) fn ask<A: Send + 'static>(
        self: &Arc<Self>,
        watcher: &Arc<Watcher<P>>,
        answer: impl FnOnce(&Self, &Watcher<P>) -> Result<A, StoreError> + Send + 'static,
    ) -> Arc<Slot<A>> {
        let slot = Arc::new(Slot(Mutex::new(None)));
        let promise =
            Promise { slot: Arc::clone(&slot), watcher: Arc::clone(watcher), kept: false };
        if let Some(durable) = &self.durable {
            let shared = Arc::clone(self);
            durable.replay.ask(Box::new(move || {
                // The slot is all that a reader which has left still had.
                if Arc::strong_count(&promise.slot) > 1 {
                    let answer = answer(&shared, &promise.watcher);
                    promise.keep(answer);
                }
            }));
        }
        slot
    }

    /// One page of what follows a position in the store; empty and without progress if the store has
    /// nothing of it, because its writer does not get there.
    pub(crate) fn replay(
        &self,
        wanted: &Wanted,
        from: u64,
        told: u64,
        batch: Batch,
    ) -> Result<Replayed<P>, StoreError> {
        let mut page = Replayed { items: VecDeque::new(), next: from, floor: 0 };
        let Some(durable) = &self.durable else { return Ok(page) };
        let until = self.tail().min(self.await_commit(from + 1));
        let mut turns = 0;
        while page.items.is_empty() && page.next < until {
            let (next, until) = (Offset::new(page.next), Offset::new(until));
            let found = durable.reader.page(wanted, next, until, batch)?;
            page.floor = page.floor.max(found.floor.offset.get());
            page.next = found.next.get();
            page.items.extend(found.events.into_iter().map(|event| self.decode_entry(event)));
            turns += 1;
            // Before a hole is told, it is known what follows it.
            if turns >= TURN_PAGES_MAX && page.floor <= from.max(told) {
                break;
            }
        }
        Ok(page)
    }

    fn decode_entry(&self, event: StoredEntry) -> Item<P> {
        let StoredEntry { offset, at, id, payload } = event;
        let next = Offset::new(offset.get() + 1);
        let cursor = Cursor { epoch: self.epoch_of(offset.get()), next };
        let stored = Stored { id: cursor, at, given: id, payload };
        let decoded = self.durable.as_ref().and_then(|durable| (durable.decode)(stored));
        match decoded {
            Some(payload) => Item::Entry(Entry { offset, at, payload }),
            None => Item::Broken(offset.get()),
        }
    }

    /// Waits until everything below `until` is committed, not for ever, and says what is.
    pub(crate) fn await_commit(&self, until: u64) -> u64 {
        let Some(durable) = &self.durable else { return 0 };
        let committed = || durable.committed.load(Ordering::Acquire);
        #[cfg(not(downlink_loom))]
        if committed() < until {
            let deadline = std::time::Instant::now() + COMMIT_WAIT_MAX;
            let mut sequence = self.sequence.lock();
            while committed() < until && sequence.failed.is_none() {
                sequence.queue.hurry = true;
                durable.to_commit.notify_one();
                if durable.has_committed.wait_until(&mut sequence, deadline).timed_out() {
                    break;
                }
            }
        }
        let _ = until;
        committed()
    }
}
