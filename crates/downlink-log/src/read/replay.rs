//! The threads that read from the store for readers that are behind.
//!
//! The threads share a queue of requests. A thread takes the oldest request and does one bounded
//! step of it. A request that needs more steps goes to the end of the queue. No thread waits for a
//! reader: the answer to a request stays in a slot until the reader takes it. If the reader leaves,
//! it drops the slot, and the request is given up.

use std::{collections::VecDeque, fmt, sync::Arc};

use crate::readers::{ReaderState, WakeBatch};
use crate::sequence::PayloadDecoder;
use crate::store::{StoreError, StoreReader};
#[cfg(not(downlink_loom))]
use crate::sync::Condvar;
use crate::sync::Mutex;

/// The number of threads that read. More threads would rarely get data from a disk faster.
#[cfg(not(downlink_loom))]
const READERS: usize = 4;

/// A request in the queue. Each call does one step, and returns `true` when the request is done.
type Job = Box<dyn FnMut() -> bool + Send>;

/// The read side of a log's store.
pub(crate) struct StoreReplays<P> {
    pub(crate) reader: Arc<dyn StoreReader>,
    pub(crate) decoder: Arc<PayloadDecoder<P>>,
    requests: Arc<ReplayRequests>,
}

struct ReplayRequests {
    /// No other lock is taken while this lock is held.
    queue: Mutex<JobQueue>,
    #[cfg(not(downlink_loom))]
    came: Condvar,
}

struct JobQueue {
    /// The waiting requests, oldest first. Each reader has at most one.
    jobs: VecDeque<Job>,
    stopped: bool,
}

impl<P> fmt::Debug for StoreReplays<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreReplays").finish_non_exhaustive()
    }
}

impl<P> StoreReplays<P> {
    pub(crate) fn start(
        reader: Arc<dyn StoreReader>,
        decoder: Arc<PayloadDecoder<P>>,
        begin: fn(),
    ) -> Result<Self, StoreError> {
        let queue = Mutex::new(JobQueue { jobs: VecDeque::new(), stopped: false });
        let requests = Arc::new(ReplayRequests {
            queue,
            #[cfg(not(downlink_loom))]
            came: Condvar::new(),
        });
        #[cfg(not(downlink_loom))]
        for number in 0..READERS {
            let requests = Arc::clone(&requests);
            let thread = std::thread::Builder::new().name(format!("downlink-read-{number}"));
            let started = thread.spawn(move || {
                begin();
                requests.answer_all();
            });
            started.map_err(|error| StoreError::Io { reason: error.to_string().into() })?;
        }
        #[cfg(downlink_loom)]
        let _ = begin;
        Ok(Self { reader, decoder, requests })
    }

    /// Puts a request into the queue. The threads call `step` again and again, until it returns an
    /// answer instead of `None`. The answer is put into the returned slot, and then the reader is
    /// woken. Every request gets an answer, which is an error if the request cannot be completed.
    pub(crate) fn ask<A: Send + 'static>(
        &self,
        reader: &Arc<ReaderState>,
        mut step: impl FnMut() -> Result<Option<A>, StoreError> + Send + 'static,
    ) -> Arc<Slot<A>> {
        let slot = Arc::new(Slot::new(None));
        let promise = Promise { slot: Arc::clone(&slot), reader: Arc::clone(reader) };
        self.requests.push(Box::new(move || {
            // If only the promise still holds the slot, the reader has left.
            if Arc::strong_count(&promise.slot) == 1 {
                return true;
            }
            let Some(answer) = step().transpose() else { return false };
            *promise.slot.lock() = Some(answer);
            true
        }));
        slot
    }

    /// Whether [`stop`](Self::stop) was called, because the last handle of the log was dropped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.requests.queue.lock().stopped
    }

    /// Ends the threads and closes the store for reading. All waiting requests, and all later ones,
    /// get [`StoreError::Stopped`].
    pub(crate) fn stop(&self) {
        let jobs = {
            let mut queue = self.requests.queue.lock();
            queue.stopped = true;
            std::mem::take(&mut queue.jobs)
        };
        drop(jobs);
        self.reader.close();
        #[cfg(not(downlink_loom))]
        self.requests.came.notify_all();
    }
}

impl ReplayRequests {
    fn push(&self, job: Job) {
        {
            let mut queue = self.queue.lock();
            if !queue.stopped {
                queue.jobs.push_back(job);
            }
        }
        #[cfg(not(downlink_loom))]
        self.came.notify_one();
    }

    #[cfg(not(downlink_loom))]
    fn answer_all(&self) {
        while let Some(mut job) = self.next() {
            // If the step panics, the request gets an error, and the thread goes on.
            let step = std::panic::AssertUnwindSafe(&mut job);
            let done = std::panic::catch_unwind(|| { step }.0()).unwrap_or(true);
            if !done {
                self.push(job);
            }
        }
    }

    #[cfg(not(downlink_loom))]
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            self.came.wait(&mut queue);
        }
    }
}

/// Holds the answer to a request until the reader takes it.
pub(crate) type Slot<A> = Mutex<Option<Result<A, StoreError>>>;

/// The promise to answer a request. When it is dropped, the reader is woken. If there is no answer
/// by then, the drop puts an error into the slot.
struct Promise<A> {
    slot: Arc<Slot<A>>,
    reader: Arc<ReaderState>,
}

impl<A> Drop for Promise<A> {
    fn drop(&mut self) {
        // If the slot has an answer, this changes nothing. If the reader has already taken the
        // answer, this error does no harm, because the reader does not look at the slot again.
        self.slot.lock().get_or_insert(Err(StoreError::Stopped));
        let mut batch = WakeBatch::default();
        self.reader.slot.take(&mut batch);
        batch.wake();
    }
}
