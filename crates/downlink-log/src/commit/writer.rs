//! The one writer of a log's store: commits what has gathered, then makes it visible.
//!
//! The disk is waited for with no lock held. Everything that follows a commit happens in the order of
//! the queue, which is the order of the offsets. Publishers and readers are woken after the locks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    crowd::{Crowd, LastCommit},
    draft::Answers,
    durable::Durable,
    evict::Evicted,
    install::{Assigned, Decided},
    log::{Payload, Sequence, Shared},
    offset::Timestamp,
    queue::{Content, Queued},
    store::{Durability, Store, StoreError, StoredEvent, Trimmed},
    sync::{MutexGuard, Ordering},
    wakes::Wakes,
};

/// How long an event in relaxed durability may wait for its commit: what a crash may lose. A tenth of
/// a second is one flush for ten in a second; half would wear the disk, twice would lose more than a
/// person notices.
pub const RELAXED_WITHIN: Duration = Duration::from_millis(100);

/// The longest sleep of a writer with nothing to do: retention by age is late by this at most.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The shortest: a disk that refuses is not asked all the time.
const IDLE_MIN: Duration = Duration::from_millis(10);

pub(crate) struct Writer<P> {
    shared: Arc<Shared<P>>,
    store: Box<dyn Store>,
    clock: Box<dyn Fn() -> Timestamp + Send>,
    last: Option<LastCommit>,
}

/// Batches that go into one transaction, and their events.
pub(crate) struct Group<P> {
    batches: Vec<Queued<P>>,
    events: Vec<StoredEvent>,
}

impl<P: Payload> Writer<P> {
    pub(crate) fn new(
        shared: Arc<Shared<P>>,
        store: Box<dyn Store>,
        clock: Box<dyn Fn() -> Timestamp + Send>,
    ) -> Self {
        Self { shared, store, clock, last: None }
    }

    /// Starts the thread that writes until the log is closed, or its last handle is gone.
    #[cfg(not(downlink_loom))]
    pub(crate) fn start(self) -> Result<(), StoreError> {
        let thread = std::thread::Builder::new().name("downlink-store".to_owned());
        let started = thread.spawn(move || self.run());
        started.map(drop).map_err(|error| StoreError::Io { reason: error.to_string().into() })
    }

    #[cfg(downlink_loom)]
    pub(crate) fn start(self) -> Result<(), StoreError> {
        loom::thread::spawn(move || self.run());
        Ok(())
    }

    fn run(self) {
        // Also if the store panics: nobody waits for ever. After the store is let go of.
        let _ended = Ended(Arc::clone(&self.shared));
        let mut writer = self;
        writer.write_all();
    }

    /// Writes until nothing more can come.
    fn write_all(&mut self) {
        let mut wait = Duration::ZERO;
        loop {
            match self.shared.next_group(wait, self.last) {
                Next::Group(group) => match self.write(group) {
                    Ok(()) => wait = self.trim(),
                    Err(_) if self.shared.is_closed() => return,
                    Err(_) => {
                        self.shared.pause();
                        wait = IDLE_MIN;
                    }
                },
                Next::Idle => wait = self.trim(),
                Next::Closed => return,
            }
        }
    }

    fn write(&mut self, group: Group<P>) -> Result<(), StoreError> {
        let (batches, started) = (group.batches.len(), Instant::now());
        let outcome = self.shared.write(&mut *self.store, group);
        let waiting = self.shared.sequence.lock().queue.waited.take();
        let ended = Instant::now();
        // After one that failed nobody is expected.
        self.last = waiting.map(|waiting| LastCommit { batches, waiting, started, ended });
        outcome
    }

    /// One step of what keeps the store within its limits, and how long until the next.
    fn trim(&mut self) -> Duration {
        let now = (self.clock)();
        match self.store.trim(now) {
            Ok(Trimmed::More) => Duration::ZERO,
            Ok(Trimmed::Until(None)) => IDLE_MAX,
            Ok(Trimmed::Until(Some(at))) => {
                let millis = at.as_millis().saturating_sub(now.as_millis());
                Duration::from_millis(millis).clamp(IDLE_MIN, IDLE_MAX)
            }
            // Repeated by the next call; what cannot be written is told to the publishers.
            Err(_) => IDLE_MAX,
        }
    }
}

/// What a writer finds to do.
enum Next<P> {
    Group(Group<P>),
    /// Nothing came for as long as it wanted to wait.
    Idle,
    /// Nothing will come any more.
    Closed,
}

/// Lets everybody know that the writer is gone.
struct Ended<P: Payload>(Arc<Shared<P>>);

impl<P: Payload> Drop for Ended<P> {
    fn drop(&mut self) {
        let shared = &self.0;
        shared.fail_all(Group { batches: Vec::new(), events: Vec::new() }, &StoreError::Stopped);
        shared.end_readers();
        let waiting =
            shared.durable.as_ref().map(|durable| durable.ended.resolve(Ok(Answers::new())));
        waiting.into_iter().flatten().for_each(std::task::Waker::wake);
    }
}

impl<P: Payload> Shared<P> {
    /// Waits for something to commit, at most for a time, and takes what has gathered.
    fn next_group(&self, wait: Duration, last: Option<LastCommit>) -> Next<P> {
        let Some(durable) = &self.durable else { return Next::Closed };
        let mut sequence = self.sequence.lock();
        let crowd = last.map(Crowd::after);
        if sequence.queue.is_empty() && !sequence.closed && !wait.is_zero() {
            durable.to_commit.wait_for(&mut sequence, wait);
        }
        if self.is_relaxed() && !sequence.queue.is_empty() {
            let until = Instant::now() + RELAXED_WITHIN;
            while !sequence.closed && !sequence.queue.is_pressing() {
                if durable.to_commit.wait_until(&mut sequence, until).timed_out() {
                    break;
                }
            }
        }
        if let Some(crowd) = crowd.filter(|_| !self.is_relaxed()) {
            durable.gather(&mut sequence, crowd);
        }
        if !sequence.queue.is_empty() {
            return Next::Group(Self::group(&mut sequence));
        }
        if sequence.closed { Next::Closed } else { Next::Idle }
    }

    /// Waits a moment before a disk that has refused is asked again, unless the log is closed.
    fn pause(&self) {
        let Some(durable) = &self.durable else { return };
        let mut sequence = self.sequence.lock();
        if !sequence.closed {
            durable.to_commit.wait_for(&mut sequence, IDLE_MIN);
        }
    }

    fn is_closed(&self) -> bool {
        self.sequence.lock().closed
    }

    /// Takes what has gathered.
    fn group(sequence: &mut Sequence<P>) -> Group<P> {
        let mut batches = sequence.queue.take_group();
        let events = batches.iter_mut().flat_map(|batch| std::mem::take(&mut batch.events));
        Group { events: events.collect(), batches }
    }

    /// Commits one group.
    ///
    /// # Errors
    ///
    /// The store's, if the group is in the queue again, because readers have seen it already.
    fn write(&self, store: &mut dyn Store, group: Group<P>) -> Result<(), StoreError> {
        let group = self.without_doomed(group);
        let outcome = match group.events.as_slice() {
            [] => Ok(()),
            events => store.commit(events, Durability::Commit),
        };
        self.conclude(group, outcome)
    }

    /// Takes out the batches that repeat an event of one that has failed: they fail like it, whole.
    fn without_doomed(&self, group: Group<P>) -> Group<P> {
        let Some(error) = group.batches.iter().find_map(Queued::doom) else { return group };
        let Group { batches, events } = group;
        let mut events = events.into_iter();
        let (mut doomed, mut left) =
            (Vec::new(), Group { batches: Vec::new(), events: Vec::new() });
        for batch in batches {
            let own = events.by_ref().take(batch.count);
            if batch.doom().is_some() {
                own.for_each(drop);
                doomed.push(batch);
            } else {
                left.events.extend(own);
                left.batches.push(batch);
            }
        }
        self.fail(doomed, &error);
        left
    }

    /// After the store has answered: the group is visible and acknowledged, or it has failed.
    ///
    /// # Errors
    ///
    /// The store's, if what readers have seen already waits to be tried again.
    fn conclude(&self, group: Group<P>, outcome: Result<(), StoreError>) -> Result<(), StoreError> {
        match outcome {
            Ok(()) => self.succeed(group),
            Err(error) if error.is_final() => self.fail_all(group, &error),
            Err(error) if self.is_relaxed() => {
                self.retry_later(group, &error);
                return Err(error);
            }
            Err(error) => self.fail(group.batches, &error),
        }
        Ok(())
    }

    fn succeed(&self, group: Group<P>) {
        let Group { mut batches, events } = group;
        let (mut wakers, mut evicted) = (Vec::new(), Evicted::new());
        {
            let mut sequence = self.sequence.lock();
            if let (Some(durable), Some(last)) = (&self.durable, events.last()) {
                durable.committed.store(last.offset.get() + 1, Ordering::Release);
            }
            // What was committed is visible before anybody hears of it.
            let mut outcomes = Vec::with_capacity(batches.len());
            for batch in &mut batches {
                let outcome = self.reveal(&mut sequence, &mut batch.content, &mut evicted);
                wakers.extend(batch.ticket.resolve(outcome.clone()));
                outcomes.push(outcome);
            }
            sequence.queue.done(&batches);
            sequence.queue.waited = Some(sequence.queue.batches());
        }
        self.after_commit(&mut batches, wakers, evicted);
    }

    /// Makes a batch visible that is not yet, and gives its answers.
    fn reveal(
        &self,
        sequence: &mut Sequence<P>,
        content: &mut Content<P>,
        evicted: &mut Evicted<P>,
    ) -> Result<Answers, StoreError> {
        match content {
            Content::Visible(answers) => Ok(answers.clone()),
            Content::Hidden(batch) => {
                sequence.pending.forget(batch);
                settle_awaited(batch)?;
                Ok(self.install(sequence, batch, evicted))
            }
        }
    }

    fn after_commit(
        &self,
        batches: &mut [Queued<P>],
        wakers: Vec<std::task::Waker>,
        mut evicted: Evicted<P>,
    ) {
        if let Some(durable) = &self.durable {
            durable.has_committed.notify_all();
        }
        self.settle(&mut evicted);
        for batch in batches {
            if let Content::Hidden(batch) = &mut batch.content {
                self.wake_committed(Wakes::of(batch));
            }
        }
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    fn wake_committed(&self, wakes: Wakes<P>) {
        match self.durable.as_ref().and_then(|durable| durable.wake.as_ref()) {
            Some(wake) => wake(wakes),
            None => wakes.wake(),
        }
    }

    /// Nothing more is taken until the store is opened anew. What waits fails with it.
    fn fail_all(&self, group: Group<P>, error: &StoreError) {
        let mut batches = group.batches;
        {
            let mut sequence = self.sequence.lock();
            sequence.failed.get_or_insert_with(|| error.clone());
            while !sequence.queue.is_empty() {
                batches.extend(sequence.queue.take_group());
            }
        }
        self.fail(batches, error);
    }

    /// Batches whose offsets are burnt: nobody sees them, and their publishers are told.
    fn fail(&self, batches: Vec<Queued<P>>, error: &StoreError) {
        let mut wakers = Vec::new();
        let mut topics = Vec::new();
        {
            let mut sequence = self.sequence.lock();
            sequence.queue.done(&batches);
            for batch in &batches {
                if let Content::Hidden(assigned) = &batch.content {
                    sequence.pending.forget(assigned);
                    assigned.topics().for_each(|topic| topic.ring.write().unreserve());
                    topics.extend(assigned.topics().cloned());
                }
                wakers.extend(batch.ticket.resolve(Err(error.clone())));
            }
        }
        if let Some(durable) = &self.durable {
            durable.has_committed.notify_all();
        }
        self.collect(&topics);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    fn retry_later(&self, group: Group<P>, error: &StoreError) {
        let Group { mut batches, events } = group;
        let mut events = events.into_iter();
        for batch in &mut batches {
            batch.events.extend(events.by_ref().take(batch.count));
        }
        self.sequence.lock().queue.put_back(batches, error);
    }

    fn is_relaxed(&self) -> bool {
        self.durable.as_ref().is_some_and(|durable| durable.durability == Durability::Relaxed)
    }
}

impl<P> Durable<P> {
    /// Waits for the publishers that are about to come back, if any has.
    fn gather(&self, sequence: &mut MutexGuard<'_, Sequence<P>>, mut crowd: Crowd) {
        sequence.queue.awaited = crowd.batches();
        while !sequence.closed && !sequence.queue.fills_group() && !sequence.queue.is_pressing() {
            let came = sequence.queue.batches();
            let Some(until) = crowd.wait_until(Instant::now(), came) else { break };
            self.to_commit.wait_until(sequence, until);
        }
        sequence.queue.awaited = 1;
    }
}

impl<P> Queued<P> {
    /// Why a batch that this one repeats an event of was not committed, if so.
    fn doom(&self) -> Option<StoreError> {
        let Content::Hidden(batch) = &self.content else { return None };
        batch.drafts.iter().find_map(|decided| match decided {
            Decided::Awaited(awaited) => awaited.ticket.outcome()?.err(),
            _ => None,
        })
    }
}

/// Gives drafts that repeat one of an earlier batch the answer that it has got by now.
///
/// # Errors
///
/// Why that batch was not committed. Batches that this happens to are not committed (see `doom`).
fn settle_awaited<P>(batch: &mut Assigned<P>) -> Result<(), StoreError> {
    for decided in &mut batch.drafts {
        let Decided::Awaited(awaited) = decided else { continue };
        let answers = awaited.ticket.outcome().unwrap_or(Err(StoreError::Stopped))?;
        if let Some(answer) = answers.get(awaited.draft) {
            *decided = Decided::Repeat(*answer);
        }
    }
    Ok(())
}
