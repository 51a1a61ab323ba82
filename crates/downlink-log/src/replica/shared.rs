//! The state that the handles of a replica share with its applier.
//!
//! If the upstream has another history than the replica, the replica discards everything and begins
//! again. It then gets a new [`Life`], and the handles find the new life here. A reader keeps the
//! life in which it was opened, and ends soon.

use std::{fmt, sync::Arc};

use crate::commit::Commit;
use crate::core::Core;
use crate::read::StoreReplays;
use crate::readers::{Confirmations, end_each};
use crate::sequence::Answers;
use crate::store::StoreError;
use crate::sync::{Mutex, RwLock};
use crate::types::{EndReason, LogOptions, Payload};

/// The history in use, and the read side of the cache that belongs to it.
pub(crate) struct Life<P> {
    pub(crate) core: Arc<Core<P>>,
    pub(crate) replays: Option<Arc<StoreReplays<P>>>,
    pub(crate) is_closed: bool,
}

/// The state of a replica.
pub(crate) struct ReplicaShared<P: Payload> {
    /// The options that the replica was made with.
    pub(crate) options: LogOptions,
    /// Taken before all other locks, and held only for some microseconds.
    pub(crate) life: RwLock<Life<P>>,
    pub(crate) confirmations: Arc<Confirmations>,
    /// Resolved when the applier is dropped, which releases the file of the cache.
    pub(crate) ended: Commit,
    /// Why the replica has dropped its cache. No other lock is taken while this lock is held.
    pub(crate) cache_error: Mutex<Option<StoreError>>,
}

/// The part of a replica that its handles share. When the last handle is dropped, the replica is
/// closed.
pub(crate) struct ReplicaHandle<P: Payload>(pub(crate) Arc<ReplicaShared<P>>);

impl<P: Payload> Drop for ReplicaHandle<P> {
    fn drop(&mut self) {
        if let Some(replays) = self.0.life().replays {
            replays.stop();
        }
        self.0.close();
    }
}

impl<P> Clone for Life<P> {
    fn clone(&self) -> Self {
        let Self { core, replays, is_closed } = self;
        Self { core: Arc::clone(core), replays: replays.clone(), is_closed: *is_closed }
    }
}

impl<P: Payload> fmt::Debug for ReplicaShared<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaShared").finish_non_exhaustive()
    }
}

impl<P: Payload> ReplicaShared<P> {
    /// The life in use.
    pub(crate) fn life(&self) -> Life<P> {
        self.life.read().clone()
    }

    pub(crate) fn core(&self) -> Arc<Core<P>> {
        Arc::clone(&self.life.read().core)
    }

    /// Replaces the life. `make` makes the new core from the old one, and must be quick. The
    /// readers of the old life end. When this returns, nothing reads the cache of the old life any
    /// more.
    pub(crate) fn replace(
        &self,
        replays: Option<Arc<StoreReplays<P>>>,
        make: impl FnOnce(&Core<P>) -> Arc<Core<P>>,
    ) {
        let (old, restarted) = {
            let mut life = self.life.write();
            life.core.history.topics.close();
            let core = make(&life.core);
            if life.is_closed {
                core.history.topics.close();
                core.history.backlog.close();
            }
            let new = Life { core, replays, is_closed: life.is_closed };
            (std::mem::replace(&mut *life, new), self.confirmations.restart())
        };
        end_each(&old.core.history.topics.everyone.readers, EndReason::Drained);
        // A feed may be opened on the old history even now. It must end too.
        old.core.history.backlog.end_open();
        old.core.history.backlog.close();
        if let Some(replays) = &old.replays {
            replays.stop();
        }
        restarted.wake_follower();
    }

    /// Closes the replica: it accepts no readers any more, and its readers end after the events
    /// that they have not read yet.
    pub(crate) fn close(&self) {
        let core = {
            let mut life = self.life.write();
            life.is_closed = true;
            life.core.history.topics.close();
            Arc::clone(&life.core)
        };
        end_each(&core.history.topics.everyone.readers, EndReason::Closed);
        core.history.backlog.close();
        self.confirmations.close();
    }

    /// Confirms the questions whose ends the replica has reached.
    pub(crate) fn confirm_reached(&self) {
        let reached = {
            let life = self.life.read();
            let tail = life.core.history.tail();
            self.confirmations.reach(|end| life.core.ids.locate(end, tail).is_ok())
        };
        reached.wake();
    }

    /// Notes that the applier has ended.
    pub(crate) fn end(&self) {
        self.close();
        self.ended.resolve(Ok(Answers::new()));
    }
}
