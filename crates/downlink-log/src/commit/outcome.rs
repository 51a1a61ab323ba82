//! The outcome of a batch that waits for its commit.

use std::{
    sync::Arc,
    task::{Poll, Waker},
};

use crate::sequence::{Answers, AppendError};
use crate::sync::Mutex;

/// The commit of one batch, which may still be under way. All clones stand for the same commit.
///
/// A log with a store makes a commit for each batch. A program whose events are ordered elsewhere,
/// such as a node of a cluster, makes its own commits.
///
/// While the lock of a commit's state is held, no other lock is taken and no waker runs.
#[derive(Clone, Debug)]
pub struct Commit(Arc<Mutex<CommitState>>);

#[derive(Debug, Default)]
struct CommitState {
    result: Option<Result<Answers, AppendError>>,
    /// Wakers of the tasks that wait for the outcome. The publisher may have one task for each
    /// event of the batch.
    wakers: Vec<Waker>,
}

impl Commit {
    /// A commit without an outcome.
    #[expect(clippy::new_without_default, reason = "a commit stands for one batch")]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(CommitState::default())))
    }

    /// Sets the result and wakes the waiting tasks. A result that is already set is not replaced.
    /// The caller must hold no lock that a woken task may take.
    pub fn resolve(&self, result: Result<Answers, AppendError>) {
        let wakers = {
            let mut state = self.0.lock();
            state.result.get_or_insert(result);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Once the batch is committed and visible, this function calls `take` with the answers and
    /// returns the result of `take`. If the batch has failed, this function returns the error.
    /// While there is no outcome yet, the commit keeps the waker, and wakes it when there is an
    /// outcome.
    ///
    /// A program may poll once for each event of a large batch. With `take`, each poll copies only
    /// the answer that it needs. `take` runs while a lock is held, so it must be quick.
    ///
    /// # Errors
    ///
    /// [`AppendError`]: nothing of the batch was appended. There is one exception: after a
    /// [final](crate::store::StoreError::is_final) [`StoreError`](crate::store::StoreError), the
    /// store may have kept the batch. The next opening of the store shows whether it did.
    pub fn poll<R>(
        &self,
        waker: &Waker,
        take: impl FnOnce(&Answers) -> R,
    ) -> Poll<Result<R, AppendError>> {
        // The waker is cloned before the lock is taken, because a clone may run the app's code.
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
