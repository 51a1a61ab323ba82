//! The applier of a replica. A replica is a log that copies another log, its upstream. The events
//! come in the chunks of a feed. The applier writes each chunk to the cache, and then puts it into
//! memory.

use std::{
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use smallvec::SmallVec;

use crate::commit::{OnReport, StoreReport, restore};
use crate::core::Core;
use crate::history::History;
use crate::read::StoreReplays;
use crate::readers::{FollowerTask, end_each};
use crate::replica::{
    CacheSide, FloorsAhead, IDLE_MAX, Life, ReplicaShared, apply, cut, empty_cut, ids_from,
};
use crate::sequence::{AppendError, Drafts, Epochs, LostEnd, PayloadDecoder, Repeat, Sequencer};
use crate::store::{FeedChunk, FeedStart, StoreError};
use crate::types::{Cursor, EndReason, Epoch, LogOptions, Offset, Payload, Timestamp};

/// The only writer of a replica. One thread owns it, because each call may wait for the disk. When
/// the applier is dropped, the log is closed and the file of the cache is released.
///
/// Call [`begin`](Self::begin) when a feed begins, [`apply`](Self::apply) for each of its chunks,
/// and [`idle`](Self::idle) in between.
pub struct Applier<P: Payload> {
    pub(crate) cache: Option<CacheSide>,
    pub(crate) decoder: Arc<PayloadDecoder<P>>,
    pub(crate) on_report: Option<Box<OnReport>>,
    pub(crate) begin_reading: fn(),
    /// Whether a feed has begun, or the cache has the events of one.
    pub(crate) has_begun: bool,
    /// Whether the replica is the log of a node of a cluster. Such a log cannot get its history
    /// again.
    pub(crate) is_node: bool,
    /// The offset below which all floors are known. A floor is the offset below which a topic may
    /// have lost events. `floors_below` is usually the tail, which is the next offset that readers
    /// see. Before the first chunk of a new history it is 0, because this chunk may have floors
    /// below the tail.
    pub(crate) floors_below: u64,
    pub(crate) ahead: FloorsAhead,
    /// Dropped last, because its end reports that the cache is released.
    pub(crate) ending: Ending<P>,
}

/// Reports the end of the applier when it is dropped.
pub(crate) struct Ending<P: Payload>(pub(crate) Arc<ReplicaShared<P>>);

impl<P: Payload> Drop for Ending<P> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The outcome of a chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Applied {
    /// Go on with the next chunk.
    Next,
    /// The cache has failed, and the replica has begun again without one. Ask the upstream for a
    /// new feed from [`Applier::position`], which is `None` now.
    Restarted,
}

/// Tells a program that follows an upstream when to ask the upstream for its end, and takes the
/// answers. Clones belong to the same replica. The calls never wait, so an async task can use it
/// while another thread owns the [`Applier`].
pub struct Follower<P: Payload>(Arc<ReplicaShared<P>>);

impl<P: Payload> Clone for Follower<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: Payload> std::fmt::Debug for Follower<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}

impl<P: Payload> Follower<P> {
    /// The next task of the follower. While this is pending, the replica keeps the waker of the
    /// last call, and wakes it when there is a task.
    ///
    /// After [`FollowerTask::AskForEnd`], no other question comes until this one has its answer.
    pub fn poll_task(&self, waker: &Waker) -> Poll<FollowerTask> {
        self.0.confirmations.poll(waker)
    }

    /// Completes when the log is closed. It takes no task.
    pub fn poll_closed(&self, waker: &Waker) -> Poll<()> {
        self.0.confirmations.poll_closed(waker)
    }

    /// Answers a question: `end` is the upstream's [`tail`](crate::Log::tail) at a time after the
    /// question was given out. When the replica has applied everything below this end, the waiting
    /// readers look again, and the result is final.
    pub fn confirm(&self, question: u64, end: Cursor) {
        self.0.confirmations.answer(question, end);
        self.0.confirm_reached();
    }

    /// Says that the upstream could not be asked. The waiting readers end, so that their clients
    /// connect again with the same id, perhaps to another node.
    pub fn fail(&self, question: u64) {
        self.0.confirmations.fail(question);
    }
}

impl<P: Payload> std::fmt::Debug for Applier<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applier").field("position", &self.position()).finish_non_exhaustive()
    }
}

impl<P: Payload> Applier<P> {
    /// The handle for the part of the program that asks the upstream.
    pub fn follower(&self) -> Follower<P> {
        Follower(Arc::clone(self.shared()))
    }

    /// Where the feed must continue: the cursor after the last offset that was applied. `None` if
    /// nothing was applied yet.
    pub fn position(&self) -> Option<Cursor> {
        let core = self.shared().core();
        let tail = core.history.tail();
        self.has_begun.then(|| core.ids.id_of(tail.saturating_sub(1)))
    }

    /// Begins a feed. If the feed resumes at this replica's position, the streams of the replica
    /// stay open. Otherwise the replica discards everything and begins again, and all its readers
    /// end with [`EndReason::Drained`] after they have read the events
    /// that are in memory.
    ///
    /// A feed that resumes must begin at this replica's [`position`](Self::position). If it begins
    /// elsewhere, events would be missing without a gap. Then the replica discards everything, and
    /// the call returns `false`. The caller must ask for a new feed without a position.
    pub fn begin(&mut self, start: FeedStart) -> bool {
        let FeedStart { epochs, from, resumed } = start;
        let core = self.shared().core();
        let is_at_position = self.has_begun && from.get() == core.history.tail();
        if resumed && !is_at_position {
            self.has_begun = false;
            self.floors_below = 0;
            self.ahead = FloorsAhead::default();
            if let Some(side) = &mut self.cache {
                side.begin(&epochs, true);
            }
            self.restart(epochs, Offset::FIRST);
            return false;
        }
        let resumes = resumed;
        // A replica that has nothing yet has nothing to discard, so its readers may go on waiting.
        let is_new = !self.has_begun && core.history.tail() == Offset::FIRST.get();
        let discards = !resumes && !is_new;
        if let Some(side) = &mut self.cache {
            side.begin(&epochs, discards);
        }
        if !resumes {
            self.floors_below = 0;
            self.ahead = FloorsAhead::default();
        }
        if discards {
            self.restart(epochs, from);
        } else {
            core.ids.set(epochs);
            if is_new {
                let _sequence = core.sequencer.lock();
                core.history.set_tail(from.get());
            }
        }
        // The open feeds of this replica have announced the old epochs, so they end. A feed that is
        // opened from now on announces the new epochs.
        core.history.backlog.end_open();
        self.has_begun = true;
        self.shared().confirmations.ask_if_incomplete();
        self.shared().confirm_reached();
        true
    }

    /// Whether the replica has everything below the end of its upstream.
    pub fn has_reached(&self, end: Cursor) -> bool {
        let core = self.shared().core();
        let tail = core.history.tail();
        self.has_begun && core.ids.locate(end, tail).is_ok()
    }

    /// Applies a chunk: writes it to the cache, and then makes it visible. An event that is in the
    /// replica already is not applied again.
    ///
    /// Without a cache, this takes about a microsecond for each event. Readers with a new pattern
    /// wait while a chunk is applied, so a chunk should not have more than some thousand events.
    pub fn apply(&mut self, mut chunk: FeedChunk) -> Applied {
        let losses = self.ahead.losses(&chunk, self.floors_below);
        self.is_node |= chunk.node.is_some();
        let written = self.cache.as_mut().map_or(Ok(()), |side| side.apply(&chunk, &losses));
        if let Err(error) = written
            && !self.drop_cache(error)
        {
            return Applied::Restarted;
        }
        let core = self.shared().core();
        core.ids.add_marks(&chunk.marks);
        let next = chunk.next.get();
        apply(&core, &self.decoder, &losses, &mut chunk.events, next);
        self.floors_below = next;
        self.shared().confirm_reached();
        Applied::Next
    }

    /// Decides about the drafts of one publish, as [`append`](crate::Log::append) of a log in
    /// memory does, and appends nothing. For each draft, the result has the offset of the earlier
    /// event that it repeats, or `None` if the draft is new.
    ///
    /// This is for a node whose events are ordered elsewhere. The decision considers all events
    /// that were applied before the call. It considers the ids of the events in memory and in the
    /// cache, and the keys of the last ten minutes. Without a cache, it considers only the keys
    /// that were applied since the replica was made. With a cache, the call may read the file for
    /// each id that is not in memory. In the first ten minutes, it may also read the file for each
    /// key that is not in memory.
    ///
    /// If the cache cannot be read, the replica drops it, and decides without it.
    ///
    /// # Errors
    ///
    /// [`AppendError`] if the publish is refused. A draft that repeats another draft of the same
    /// publish is refused with [`AppendError::KeyReused`] or [`AppendError::IdTaken`].
    pub fn plan(
        &mut self,
        now: Timestamp,
        drafts: &Drafts<P>,
    ) -> Result<SmallVec<[Option<Offset>; 1]>, AppendError> {
        let core = self.shared().core();
        let planned = match &mut self.cache {
            Some(side) => side.plan(&core, now, drafts),
            None => core.sequencer.plan(&core.history, now, drafts),
        };
        let plans = match planned {
            Err(AppendError::Store(error)) => {
                self.drop_cache(error);
                let core = self.shared().core();
                core.sequencer.plan(&core.history, now, drafts)
            }
            planned => planned,
        }?;
        let plan = |(draft, plan): (usize, &Option<Repeat>)| match plan {
            None => Ok(None),
            Some(Repeat::Answered(answer)) => Ok(Some(answer.offset)),
            Some(Repeat::Of(_)) if drafts[draft].key.is_some() => {
                Err(AppendError::KeyReused { draft })
            }
            Some(Repeat::Of(_)) => Err(AppendError::IdTaken { draft }),
        };
        plans.iter().enumerate().map(plan).collect()
    }

    /// The offset of the event in memory or in the cache that has this id of a publisher. If there
    /// are several, it is the oldest. The call may read the file of the cache. If the cache cannot
    /// be read, the replica drops it.
    pub fn publisher_id(&mut self, id: &str) -> Option<Offset> {
        let cached = self.cache.as_mut().map_or(Ok(None), |side| side.cache.publisher_id(id));
        let cached = cached.unwrap_or_else(|error| {
            self.drop_cache(error);
            None
        });
        let core = self.shared().core();
        let in_memory = core.sequencer.publisher_ids.get(id).map(|known| known.answer.offset);
        cached.map(|(_, offset)| offset).into_iter().chain(in_memory).min()
    }

    /// Replaces the list of the lost ends of the history, for example the forks of a cluster. At a
    /// lost end, the history has lost all its newer events and has gone on with other events. A
    /// reader may come with the id of a lost event. Such an id is not in this history and is not
    /// below a lost end, or it is a publisher's id that the list names. The reader gets a gap with
    /// the reason [`Lost`](crate::GapReason::Lost), and continues at the lowest lost end that can
    /// have had the event. Without the list, it would get another reason, or continue after another
    /// event.
    ///
    /// The list stays after [`cut_to`](Self::cut_to), but not after a [`begin`](Self::begin) that
    /// discards everything. The caller limits its size.
    pub fn set_lost_ends(&mut self, ends: Vec<LostEnd>) {
        self.shared().core().ids.set_lost_ends(ends);
    }

    /// Removes all events at and above an offset, because the history that this replica follows has
    /// lost them. Returns the ids that publishers gave to the removed events. The next chunk
    /// continues at `until`, and may have other events and marks from there on.
    ///
    /// All readers end with [`EndReason::Drained`], and all feeds end. A reader that is opened
    /// during the call begins in the old history, and ends too. Without a cache, the events that
    /// stay are pushed into a new history, so the call takes about as long as applying them did. A
    /// cache removes its events in one transaction, and its newest events are read into memory, as
    /// when the replica was made.
    ///
    /// The ids of a cluster have marks, and each mark belongs to a position, which is a run of
    /// [`POSITION_OFFSETS`](crate::POSITION_OFFSETS) offsets. The replica can remove events only if
    /// their ids have marks, and if `until` is the first offset of a position and not above the
    /// tail. Otherwise the replica discards everything, as if its first feed had not begun: its
    /// [`position`](Self::position) is `None` then, and the file of the cache is emptied with the
    /// next chunk. At most [`CUT_IDS_MAX`](crate::CUT_IDS_MAX) ids are returned.
    pub fn cut_to(&mut self, until: Offset) -> Vec<Box<str>> {
        let core = self.shared().core();
        self.ahead = FloorsAhead::default();
        if until.get() > core.history.tail() || !core.ids.is_position(until) {
            let removed = ids_from(&core, until);
            if let Some(side) = &mut self.cache {
                side.begin(&core.ids.all(), true);
            }
            (self.has_begun, self.floors_below) = (false, 0);
            self.restart(core.ids.all(), Offset::FIRST);
            return removed;
        }
        // The readers must end before the cache refuses to read for them.
        end_each(&core.history.topics.everyone.readers, EndReason::Drained);
        let removed = match self.cache.as_mut().map(|side| side.cut_to(until)) {
            Some(Ok(removed)) => removed,
            Some(Err(error)) => {
                self.forget_cache(error);
                ids_from(&core, until)
            }
            None => ids_from(&core, until),
        };
        self.floors_below = until.get();
        self.replace_by_cut(&core, until);
        removed
    }

    /// Replaces the history by a new one without the events from an offset on. With a cache, the
    /// new history begins with the newest events of the cache. Without a cache, it is a copy of the
    /// events in memory.
    fn replace_by_cut(&mut self, core: &Core<P>, until: Offset) {
        let rules = core.history.rules();
        let options = LogOptions { retention: (*rules).clone(), ..self.shared().options.clone() };
        let new = self.read_cache(core, options.clone(), until).unwrap_or_else(|| Life {
            core: cut(core, options, until),
            replays: None,
            is_closed: false,
        });
        let Life { core: new, replays, .. } = new;
        self.shared().replace(replays, |old| {
            new.history.continue_from(&old.history);
            Arc::clone(&new)
        });
        // The rules may have changed while the new history was filled.
        if new.history.rules() != rules {
            new.retain_topics();
        }
    }

    /// A history with the newest events of the cache, which ends at `until`. `None` without a
    /// cache, or if the cache cannot be read.
    fn read_cache(
        &mut self,
        core: &Core<P>,
        options: LogOptions,
        until: Offset,
    ) -> Option<Life<P>> {
        let replays = self.start_replays()?;
        let new = empty_cut(core, options, until, until);
        match restore(&new, &*replays.reader, &self.decoder, until) {
            Ok(()) => Some(Life { core: Arc::new(new), replays: Some(replays), is_closed: false }),
            Err(error) => {
                self.forget_cache(error);
                None
            }
        }
    }

    /// Does the work that is due: evicts events that are too old, tells readers to end that have
    /// waited for too long, and flushes and trims the cache. Returns the time after which this must
    /// be called again, unless a chunk is applied before. After a question was given out, call this
    /// to learn the new time.
    pub fn idle(&mut self, now: Timestamp) -> Duration {
        let core = self.shared().core();
        let evicted = core.history.expire(now);
        let has_more = evicted.is_some();
        core.settle(evicted);
        let waiting = self.shared().confirmations.expire(now).unwrap_or(IDLE_MAX);
        let rules = core.history.rules();
        let cache = match self.cache.as_mut().map(|side| side.keep(now, rules)) {
            None => IDLE_MAX,
            Some(Ok(wait)) => wait,
            Some(Err(error)) => {
                self.drop_cache(error);
                IDLE_MAX
            }
        };
        if has_more { Duration::ZERO } else { waiting.min(cache).min(IDLE_MAX) }
    }

    pub(crate) fn shared(&self) -> &Arc<ReplicaShared<P>> {
        &self.ending.0
    }

    /// Goes on without a cache, because the cache has failed. The log of a cluster node keeps the
    /// events in memory, and its readers end. Any other replica begins again. Returns whether the
    /// events in memory were kept.
    fn drop_cache(&mut self, error: StoreError) -> bool {
        self.forget_cache(error);
        if self.is_node {
            let core = self.shared().core();
            self.replace_by_cut(&core, Offset::new(core.history.tail()));
            return true;
        }
        self.has_begun = false;
        self.floors_below = 0;
        self.ahead = FloorsAhead::default();
        self.restart(Vec::new(), Offset::FIRST);
        false
    }

    /// Drops the cache, and reports why.
    fn forget_cache(&mut self, error: StoreError) {
        if let Some(side) = self.cache.take() {
            side.fail();
        }
        *self.shared().cache_error.lock() = Some(error.clone());
        if let Some(on_report) = &mut self.on_report {
            on_report(StoreReport::CacheDropped { error });
        }
    }

    /// Starts the threads that read the cache for the readers. `None` without a cache.
    fn start_replays(&mut self) -> Option<Arc<StoreReplays<P>>> {
        let side = self.cache.as_ref()?;
        let decoder = Arc::clone(&self.decoder);
        match StoreReplays::start(side.cache.reader(), decoder, self.begin_reading) {
            Ok(replays) => Some(Arc::new(replays)),
            Err(error) => {
                self.forget_cache(error);
                None
            }
        }
    }

    /// Discards everything, and begins a history at `from`.
    fn restart(&mut self, epochs: Vec<(Epoch, Offset)>, from: Offset) {
        let replays = self.start_replays();
        let shared = self.shared();
        shared.replace(replays, |old| {
            let retention = (*old.history.rules()).clone();
            let options = LogOptions { retention, ..shared.options.clone() };
            let ids = Epochs::growing(epochs, options.epoch);
            let history = History::after(options, from, Some(&old.history));
            let sequencer = Sequencer::new(from, Timestamp::default());
            let confirmations = old.confirmations.clone();
            Arc::new(Core { history, sequencer, ids, confirmations })
        });
    }
}
