//! The outcome of a batch that waits for its commit.

use std::{
    sync::Arc,
    task::{Poll, Waker},
};

use crate::sequence::{Answers, AppendError};
use crate::sync::Mutex;

/// A commit that is under way. Clones wait for the same one.
///
/// The lock is held alone, for a look or a swap; no waker runs under it.
#[derive(Clone, Debug)]
pub struct Commit(Arc<Mutex<CommitState>>);

#[derive(Debug, Default)]
struct CommitState {
    result: Option<Result<Answers, AppendError>>,
    /// Wakers of the tasks that wait on the receipts of the batch.
    wakers: Vec<Waker>,
}

impl Commit {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(CommitState::default())))
    }

    /// Sets the result, if there is none, and wakes the waiting tasks. Called with no lock held.
    pub(crate) fn resolve(&self, result: Result<Answers, AppendError>) {
        let wakers = {
            let mut state = self.0.lock();
            state.result.get_or_insert(result);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The result of `take` on the answers, once the batch is committed and visible, or the error.
    /// Until there is an outcome, the waker is kept; then it is woken.
    ///
    /// A large batch has a receipt for each event. Each receipt takes its own answer without a copy
    /// of all. `take` runs under a lock.
    ///
    /// # Errors
    ///
    /// [`AppendError`]: nothing of the batch was appended. After a
    /// [`StoreError`](crate::store::StoreError) that
    /// [`is_final`](crate::store::StoreError::is_final) only the next opening of the store shows
    /// whether the batch was kept.
    pub fn poll<R>(
        &self,
        waker: &Waker,
        take: impl FnOnce(&Answers) -> R,
    ) -> Poll<Result<R, AppendError>> {
        // Cloned without the lock, because a waker may run a user's code.
        let waker = waker.clone();
        let mut state = self.0.lock();
        if let Some(result) = &state.result {
            return Poll::Ready(result.as_ref().map(take).map_err(Clone::clone));
        }
        if !state.wakers.iter().any(|held| held.will_wake(&waker)) {
            state.wakers.push(waker);
        }
        Poll::Pending
    }
}
