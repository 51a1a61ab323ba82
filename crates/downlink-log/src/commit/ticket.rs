//! What a publisher of a log with a store waits for: that its batch is committed, or failed.

use std::{
    sync::Arc,
    task::{Poll, Waker},
};

use crate::{draft::Answers, store::StoreError, sync::Mutex};

/// The outcome of one batch, once there is one.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// Held alone, for a look or a swap; no waker runs under it.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    outcome: Option<Result<Answers, StoreError>>,
    /// One for each that waits: those who hold the batch's receipts.
    wakers: Vec<Waker>,
}

impl Ticket {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { outcome: None, wakers: Vec::new() }) })
    }

    /// Notes the outcome. The caller wakes those who wait, with no lock held.
    pub(crate) fn resolve(&self, outcome: Result<Answers, StoreError>) -> Vec<Waker> {
        let mut state = self.state.lock();
        state.outcome = Some(outcome);
        std::mem::take(&mut state.wakers)
    }

    pub(crate) fn outcome(&self) -> Option<Result<Answers, StoreError>> {
        self.state.lock().outcome.clone()
    }

    fn poll(&self, waker: &Waker) -> Poll<Result<Answers, StoreError>> {
        // Cloned without the lock: it may be a user's code.
        let waker = waker.clone();
        let mut state = self.state.lock();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        if !state.wakers.iter().any(|held| held.will_wake(&waker)) {
            state.wakers.push(waker);
        }
        Poll::Pending
    }
}

/// A commit that is under way. Clones wait for the same one.
#[derive(Clone, Debug)]
pub struct Commit(pub(crate) Arc<Ticket>);

impl Commit {
    /// The final answers once the batch is in the store, or why it is not. Until then the waker is
    /// kept and woken then.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: nothing of the batch was kept, except after one that
    /// [`is_final`](StoreError::is_final), when only the next opening tells.
    pub fn poll(&self, waker: &Waker) -> Poll<Result<Answers, StoreError>> {
        self.0.poll(waker)
    }
}
