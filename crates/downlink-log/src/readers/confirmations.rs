//! The readers of a replica that wait until the replica knows as much as its upstream, which is the
//! log that it copies.
//!
//! A client may have read from another server, and may have an id that this replica does not know
//! yet. Before the replica says that events are lost, it asks the upstream where the upstream's log
//! ends, and applies all events below this end. Then the answer to the reader is final. One
//! question serves all readers that were waiting when it was asked.
//!
//! The upstream may be away. Then the replica ends the readers, and their clients connect again
//! with the same id.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use crate::readers::{ReaderState, WAKE_BATCH, WakeBatch};
use crate::sync::Mutex;
use crate::types::{Cursor, EndReason, Timestamp};

/// The maximum time for which a reader waits. A healthy upstream answers within a second. After ten
/// seconds, a proxy or client may give up, and another server may answer sooner.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(10);

/// The maximum number of stored answers of the upstream. An answer is an end of the upstream's log
/// that the replica has not reached yet. If there are more answers, the newest one is replaced. A
/// replica that keeps up has one.
const ENDS_MAX: usize = 8;

/// The questions of a replica to its upstream, and the readers that wait for the answers.
#[derive(Debug)]
pub(crate) struct Confirmations {
    /// While this lock is held, no waker runs, and the only other lock that may be taken is that of
    /// the replica's epochs.
    state: Mutex<Questions>,
}

/// The questions are numbered from 1. Invariant: `confirmed <= answered <= taken <= wanted`.
#[derive(Debug, Default)]
struct Questions {
    /// Whether the replica has reached the end of its upstream at least once since it began.
    is_complete: bool,
    /// The newest question that a reader waits for.
    wanted: u64,
    /// The newest question that the follower has taken. The follower is the part of the program
    /// that asks the upstream.
    taken: u64,
    /// The newest question that the upstream has answered, or that could not be asked.
    answered: u64,
    /// The newest question that is confirmed: the replica has reached the end that the upstream
    /// gave as its answer.
    confirmed: u64,
    /// When the replica last began again, this was the newest question. Questions up to this one
    /// are never confirmed.
    stale: u64,
    /// Answers of the upstream: the question, and the end of the upstream.
    ends: VecDeque<(u64, Cursor)>,
    /// The waiting readers, by the address of their state.
    waiting: BTreeMap<usize, WaitingReader>,
    follower: Option<Waker>,
    is_closed: bool,
}

#[derive(Debug)]
struct WaitingReader {
    state: Arc<ReaderState>,
    question: u64,
}

/// A task for the follower of a replica.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FollowerTask {
    /// Readers wait. Ask the upstream for its end, and then call
    /// [`confirm`](crate::Follower::confirm), or [`fail`](crate::Follower::fail) if the upstream
    /// cannot be asked. The number is the number of the question.
    AskForEnd(u64),
    /// The log is closed. Drop the [`Applier`](crate::Applier).
    Close,
}

impl Confirmations {
    /// `is_complete` says whether the replica begins with events of its upstream, from a cache.
    pub(crate) fn new(is_complete: bool) -> Self {
        Self { state: Mutex::new(Questions { is_complete, ..Questions::default() }) }
    }

    /// Whether the replica has reached the end of its upstream at least once since it began, or has
    /// begun with a cache.
    pub(crate) fn is_complete(&self) -> bool {
        self.state.lock().is_complete
    }

    /// Notes that a reader waits, and returns the number of the question that it waits for. The
    /// question is asked after this call.
    pub(crate) fn wait(&self, reader: &Arc<ReaderState>) -> u64 {
        let (question, follower) = {
            let mut state = self.state.lock();
            let follower = state.want();
            let question = state.wanted;
            let waiting = WaitingReader { state: Arc::clone(reader), question };
            state.waiting.insert(key(reader), waiting);
            (question, follower)
        };
        follower.into_iter().for_each(Waker::wake);
        question
    }

    /// Whether the replica has reached the end that the upstream had when the question was asked. A
    /// question from before the replica began again is never confirmed.
    pub(crate) fn is_confirmed(&self, question: u64) -> bool {
        let state = self.state.lock();
        question > state.stale && question <= state.confirmed
    }

    /// Forgets a reader that no longer waits.
    pub(crate) fn leave(&self, reader: &Arc<ReaderState>) {
        let left = self.state.lock().waiting.remove(&key(reader));
        drop(left);
    }

    /// Begins again, because the replica starts with another history. Answers to earlier questions
    /// no longer count. The caller may hold the lock of the history in use (the replica's `Life`),
    /// and must release this lock before it uses the result.
    pub(crate) fn restart(&self) -> Restarted {
        let mut state = self.state.lock();
        state.is_complete = false;
        state.ends.clear();
        // A reader of the discarded history may wait for a question that was not asked yet. So the
        // number of this question is not used for the new history.
        (state.taken, state.answered, state.stale) = (state.wanted, state.wanted, state.wanted);
        // These readers belong to the discarded history, so they end without an answer.
        let _left = std::mem::take(&mut state.waiting);
        Restarted { follower: state.want(), _left }
    }

    /// Asks for the upstream's end if the replica has never reached it.
    pub(crate) fn ask_if_incomplete(&self) {
        let follower = {
            let mut state = self.state.lock();
            if state.is_complete { None } else { state.want() }
        };
        follower.into_iter().for_each(Waker::wake);
    }

    /// The next task of the follower. A question is given out when the previous one has its answer.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<FollowerTask> {
        let waker = waker.clone();
        let old;
        {
            let mut state = self.state.lock();
            if state.is_closed {
                return Poll::Ready(FollowerTask::Close);
            }
            if state.wanted > state.taken && state.answered == state.taken {
                state.taken = state.wanted;
                return Poll::Ready(FollowerTask::AskForEnd(state.taken));
            }
            old = state.follower.replace(waker);
        }
        drop(old);
        Poll::Pending
    }

    /// Completes when the log is closed. The next call of [`poll`](Self::poll) replaces the waker.
    pub(crate) fn poll_closed(&self, waker: &Waker) -> Poll<()> {
        let waker = waker.clone();
        let old;
        {
            let mut state = self.state.lock();
            if state.is_closed {
                return Poll::Ready(());
            }
            old = state.follower.replace(waker);
        }
        drop(old);
        Poll::Pending
    }

    /// Notes the end that the upstream had when it was asked.
    pub(crate) fn answer(&self, question: u64, end: Cursor) {
        let follower = {
            let mut state = self.state.lock();
            if question > state.taken || question <= state.stale {
                return;
            }
            state.answered = state.answered.max(question);
            if state.ends.len() >= ENDS_MAX {
                state.ends.pop_back();
            }
            state.ends.push_back((question, end));
            state.follower_if_wanted()
        };
        follower.into_iter().for_each(Waker::wake);
    }

    /// Ends the readers whose question could not be asked. `question` is the newest of these
    /// questions.
    pub(crate) fn fail(&self, question: u64) {
        let (follower, unanswered) = {
            let mut state = self.state.lock();
            let question = question.min(state.taken);
            state.answered = state.answered.max(question);
            let told = state.ends.back().map_or(state.confirmed, |(question, _)| *question);
            let unanswered =
                state.take_waiting(|waiting| (told + 1..=question).contains(&waiting.question));
            (state.follower_if_wanted(), unanswered)
        };
        end(unanswered);
        follower.into_iter().for_each(Waker::wake);
    }

    /// Confirms the questions whose ends the replica has reached. The caller may hold the lock of
    /// the history in use (the replica's `Life`), and must release this lock before it wakes the
    /// readers.
    pub(crate) fn reach(&self, is_reached: impl Fn(Cursor) -> bool) -> Reached {
        let mut state = self.state.lock();
        // An end may have become unreachable, because the upstream has lost its newest events. A
        // later end that is reached confirms the earlier questions too.
        let Some(at) = state.ends.iter().rposition(|(_, end)| is_reached(*end)) else {
            return Reached(Vec::new());
        };
        let reached = state.ends.drain(..=at).next_back().map_or(0, |(question, _)| question);
        state.confirmed = state.confirmed.max(reached);
        state.is_complete = true;
        let confirmed = state.confirmed;
        Reached(state.take_waiting(|waiting| waiting.question <= confirmed))
    }

    /// Ends the readers that have waited for [`CONFIRM_WITHIN`]. Returns the time until the next
    /// call is due; `None` if no reader waits.
    pub(crate) fn expire(&self, now: Timestamp) -> Option<Duration> {
        let (over, left) = {
            let mut state = self.state.lock();
            let over = state.take_waiting(|waiting| waiting.ends() <= now);
            let next = state.waiting.values().map(WaitingReader::ends).min();
            (over, next.map(|next| next.as_millis().saturating_sub(now.as_millis())))
        };
        end(over);
        left.map(Duration::from_millis)
    }

    /// Tells the follower that the log is closed.
    pub(crate) fn close(&self) {
        let follower = {
            let mut state = self.state.lock();
            state.is_closed = true;
            state.follower.take()
        };
        follower.into_iter().for_each(Waker::wake);
    }
}

impl Questions {
    /// Makes sure that a question is asked after this call. Returns the follower to wake.
    fn want(&mut self) -> Option<Waker> {
        self.wanted = self.taken + 1;
        self.follower_if_wanted()
    }

    /// The follower, if a question waits and may be asked now.
    fn follower_if_wanted(&mut self) -> Option<Waker> {
        let may_ask = self.wanted > self.taken && self.answered == self.taken;
        self.follower.take_if(|_| may_ask)
    }

    /// Removes and returns the waiting readers for which `which` is true.
    fn take_waiting(&mut self, which: impl Fn(&WaitingReader) -> bool) -> Vec<WaitingReader> {
        let taken = self.waiting.extract_if(.., |_, waiting| which(waiting));
        taken.map(|(_, waiting)| waiting).collect()
    }
}

/// The readers whose question is confirmed.
#[must_use = "the readers wait until they are woken"]
pub(crate) struct Reached(Vec<WaitingReader>);

impl Reached {
    /// Wakes the readers. The caller must hold no lock.
    pub(crate) fn wake(self) {
        wake(&self.0);
    }
}

/// The follower to wake after a replica has begun again, and the readers that no longer wait. The
/// value must be dropped while no lock is held.
#[must_use = "the follower waits until it is woken"]
pub(crate) struct Restarted {
    follower: Option<Waker>,
    _left: BTreeMap<usize, WaitingReader>,
}

impl Restarted {
    /// Wakes the follower. The caller must hold no lock.
    pub(crate) fn wake_follower(self) {
        self.follower.into_iter().for_each(Waker::wake);
    }
}

/// Tells readers to end. The caller must hold no lock.
fn end(readers: Vec<WaitingReader>) {
    readers.iter().for_each(|reader| reader.state.slot.end(EndReason::Drained));
    wake(&readers);
}

/// Wakes readers. The caller must hold no lock.
fn wake(readers: &[WaitingReader]) {
    for batch in readers.chunks(WAKE_BATCH) {
        let mut wakes = WakeBatch::default();
        batch.iter().for_each(|reader| reader.state.slot.take(&mut wakes));
        wakes.wake();
    }
}

impl WaitingReader {
    fn ends(&self) -> Timestamp {
        self.state.opened().after(CONFIRM_WITHIN)
    }
}

fn key(reader: &Arc<ReaderState>) -> usize {
    Arc::as_ptr(reader).addr()
}
