//! The outcome of a batch that waits for its commit.

use std::{
    sync::Arc,
    task::{Poll, Waker},
};

use crate::sequence::{Answers, AppendError};
use crate::sync::Mutex;

/// A commit that is under way. Clones wait for the same commit.
///
/// While its lock is held, no other lock is taken and no waker runs.
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

    /// Sets the result, unless there is one already, and wakes the waiting tasks. Called with no
    /// lock held.
    pub(crate) fn resolve(&self, result: Result<Answers, AppendError>) {
        let wakers = {
            let mut state = self.0.lock();
            state.result.get_or_insert(result);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Once the batch is committed and visible, this calls `take` with the answers and returns its
    /// result. If the batch has failed, this returns the error. Until there is an outcome, this
    /// keeps the waker, and the outcome wakes it.
    ///
    /// A large batch has a receipt for each event. With `take`, each receipt copies only its own
    /// answer. `take` runs while a lock is held.
    ///
    /// # Errors
    ///
    /// [`AppendError`]: nothing of the batch was appended. There is one exception: after a
    /// [`StoreError`](crate::store::StoreError) that
    /// [`is_final`](crate::store::StoreError::is_final), the batch may have been kept. The next
    /// opening of the store shows whether it was.
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
