//! The outcome of a batch that waits for its commit.

use std::{
    sync::Arc,
    task::{Poll, Waker},
};

use crate::sequence::{Answers, AppendError};
use crate::sync::Mutex;

/// The outcome of one batch, once there is one.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Held alone, for a look or a swap; no waker runs under it.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    result: Option<Result<Answers, AppendError>>,
    /// Wakers of the tasks that wait for it: they hold the receipts of the batch.
    wakers: Vec<Waker>,
}

impl Outcome {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { result: None, wakers: Vec::new() }) })
    }

    /// Sets the result. The caller wakes the wakers, with no lock held.
    #[must_use = "the publishers wait until they are woken"]
    pub(crate) fn resolve(&self, result: Result<Answers, AppendError>) -> Vec<Waker> {
        let mut state = self.state.lock();
        state.result = Some(result);
        std::mem::take(&mut state.wakers)
    }

    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Result<Answers, AppendError>> {
        // Cloned without the lock: it may be a user's code.
        let waker = waker.clone();
        let mut state = self.state.lock();
        if let Some(result) = &state.result {
            return Poll::Ready(result.clone());
        }
        if !state.wakers.iter().any(|held| held.will_wake(&waker)) {
            state.wakers.push(waker);
        }
        Poll::Pending
    }
}

/// A commit that is under way. Clones wait for the same one.
#[derive(Clone, Debug)]
pub struct Commit(pub(crate) Arc<Outcome>);

impl Commit {
    /// The answers once the batch is in the store and visible, or why it is not. Until then the
    /// waker is kept, and woken when there is an outcome.
    ///
    /// # Errors
    ///
    /// [`AppendError`]: nothing of the batch was appended. After a
    /// [`StoreError`](crate::store::StoreError) that [`is_final`](crate::store::StoreError::is_final)
    /// only the next opening of the store tells.
    pub fn poll(&self, waker: &Waker) -> Poll<Result<Answers, AppendError>> {
        self.0.poll(waker)
    }
}
