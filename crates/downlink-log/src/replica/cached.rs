//! The cache of an applier, which is the only writer of a replica. This module decides when the
//! cache is written, and looks up the ids and keys of events that have left memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::commit::RELAXED_WITHIN;
use crate::core::Core;
use crate::sequence::{AppendError, DraftTopics, Drafts, Earlier, Plans, Repeat, plan, stored};
use crate::store::{Cache, FeedChunk, Losses, StoreError, Trimmed};
use crate::topics::Topic;
use crate::types::{
    Epoch, Fingerprint, Floor, IdempotencyKey, KEY_WINDOW, Offset, Payload, RetentionRules,
    Timestamp,
};

/// The maximum time between two calls of [`Applier::idle`](crate::Applier::idle). With half this
/// time, an idle replica would wake up twice as often. With twice this time, old events would stay
/// in the cache for two minutes after they became too old.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(60);

/// The minimum time between two steps of trimming when there is nothing to do now.
const IDLE_MIN: Duration = Duration::from_millis(10);

/// The maximum time for which a position without events waits until it is written. The nodes of an
/// idle cluster append heartbeats all the time, and each heartbeat is a position without events.
/// With half this time, an idle node would write twice as often. If the process is killed, the node
/// reads the heartbeats of this time again.
const DEFERRED_FOR: Duration = Duration::from_secs(10);

/// The maximum number of positions without events that wait until they are written. They take 8
/// KiB, and a step that writes them takes about a millisecond.
const DEFERRED_MAX: usize = 256;

/// The cache of an applier.
pub(crate) struct CacheSide {
    pub(crate) cache: Box<dyn Cache>,
    /// The rules that the cache has.
    rules: Arc<RetentionRules>,
    /// When the oldest unflushed chunk was applied.
    unflushed: Option<Instant>,
    /// Positions without events that the cache does not have yet.
    deferred: Option<FeedChunk>,
    /// The time at which [`keep`](Self::keep) first saw one of these positions.
    deferred_since: Option<Timestamp>,
    /// Whether the cache has a chunk of the feed in use.
    has_begun: bool,
    /// From this log time on, all keys that still count are in memory.
    keys_until: Timestamp,
}

impl CacheSide {
    pub(crate) fn new(cache: Box<dyn Cache>, rules: Arc<RetentionRules>) -> Self {
        let keys_until = cache.opened().clock.unwrap_or_default().at.after(KEY_WINDOW);
        Self {
            cache,
            rules,
            unflushed: None,
            deferred: None,
            deferred_since: None,
            has_begun: false,
            keys_until,
        }
    }

    /// Begins a feed, like [`Cache::begin`].
    pub(crate) fn begin(&mut self, epochs: &[(Epoch, Offset)], discards: bool) {
        self.has_begun = false;
        self.deferred.take_if(|_| discards);
        self.cache.begin(epochs, discards);
    }

    /// Writes a chunk. A chunk that only moves the position is written with the next chunk that has
    /// events, or after [`DEFERRED_FOR`].
    pub(crate) fn apply(&mut self, chunk: &FeedChunk, losses: &Losses) -> Result<(), StoreError> {
        if self.has_begun && losses.is_empty() && is_bare(chunk) {
            return self.defer(chunk);
        }
        let started = Instant::now();
        self.write_deferred()?;
        self.cache.apply(chunk, losses)?;
        self.has_begun = true;
        self.unflushed.get_or_insert(started);
        Ok(())
    }

    fn defer(&mut self, chunk: &FeedChunk) -> Result<(), StoreError> {
        match &mut self.deferred {
            Some(earlier) if continues(earlier, chunk) => add(earlier, chunk),
            _ => {
                self.write_deferred()?;
                self.deferred = Some(chunk.clone());
            }
        }
        let is_full = |chunk: &FeedChunk| chunk.marks.marks.len() >= DEFERRED_MAX;
        if self.deferred.as_ref().is_some_and(is_full) { self.write_deferred() } else { Ok(()) }
    }

    /// Writes the positions without events. They need no flush: after a power cut, the replica gets
    /// them again.
    fn write_deferred(&mut self) -> Result<(), StoreError> {
        self.deferred_since = None;
        match self.deferred.take() {
            Some(chunk) => self.cache.apply(&chunk, &Losses::default()),
            None => Ok(()),
        }
    }

    /// Removes the events from an offset on, like [`Cache::cut_to`].
    pub(crate) fn cut_to(&mut self, until: Offset) -> Result<Vec<Box<str>>, StoreError> {
        self.write_deferred()?;
        let ids = self.cache.cut_to(until)?;
        self.unflushed.get_or_insert_with(Instant::now);
        Ok(ids)
    }

    /// Does the work that is due. Returns the time until this must be called again.
    pub(crate) fn keep(
        &mut self,
        now: Timestamp,
        rules: Arc<RetentionRules>,
    ) -> Result<Duration, StoreError> {
        if !Arc::ptr_eq(&rules, &self.rules) {
            self.cache.set_retention((*rules).clone());
            self.rules = rules;
        }
        let mut wait = IDLE_MAX;
        if self.deferred.is_some() {
            let due = self.deferred_since.get_or_insert(now).after(DEFERRED_FOR);
            if due <= now {
                self.write_deferred()?;
            } else {
                wait = Duration::from_millis(due.as_millis() - now.as_millis());
            }
        }
        if let Some(since) = self.unflushed {
            let left = RELAXED_WITHIN.saturating_sub(since.elapsed());
            if left.is_zero() {
                self.cache.flush()?;
                self.unflushed = None;
            } else {
                wait = wait.min(left);
            }
        }
        Ok(wait.min(match self.cache.trim(now)? {
            Trimmed::More => Duration::ZERO,
            Trimmed::Until(None) => IDLE_MAX,
            Trimmed::Until(Some(at)) => {
                let millis = at.as_millis().saturating_sub(now.as_millis());
                Duration::from_millis(millis).clamp(IDLE_MIN, IDLE_MAX)
            }
        }))
    }

    /// Forgets the positions that were not written, because the cache has failed.
    pub(crate) fn fail(mut self) {
        self.deferred = None;
    }

    /// Decides about the drafts of one publish with the ids and keys in memory and in the cache.
    pub(crate) fn plan<P: Payload>(
        &mut self,
        core: &Core<P>,
        now: Timestamp,
        drafts: &Drafts<P>,
    ) -> Result<Plans, AppendError> {
        let topics = DraftTopics::find(&core.history, drafts);
        let plans = plan(drafts, &topics, 0, &mut EarlierInCache { core, side: self, now })?;
        topics.check_room(&plans)?;
        Ok(plans)
    }
}

impl Drop for CacheSide {
    fn drop(&mut self) {
        // If this fails, the replica gets the positions again.
        let _ = self.write_deferred();
    }
}

/// Whether a chunk only moves the position.
fn is_bare(chunk: &FeedChunk) -> bool {
    let has_state = chunk.node.as_ref().is_some_and(|node| node.hub.is_some());
    chunk.events.is_empty() && chunk.floors.is_empty() && chunk.others == Floor::NONE && !has_state
}

/// Each position has a mark, which is a part of the ids of its events. Tells whether the marks of a
/// chunk begin where the marks of an earlier chunk end.
fn continues(earlier: &FeedChunk, chunk: &FeedChunk) -> bool {
    let end = earlier.marks.first + earlier.marks.marks.len() as u64;
    (earlier.marks.base, end) == (chunk.marks.base, chunk.marks.first)
        && earlier.node.is_some() == chunk.node.is_some()
}

/// Adds a chunk to an earlier one. Both only move the position.
fn add(earlier: &mut FeedChunk, chunk: &FeedChunk) {
    earlier.marks.marks.extend(&chunk.marks.marks);
    if let (Some(earlier), Some(node)) = (&mut earlier.node, &chunk.node) {
        earlier.links.extend(&node.links);
    }
    (earlier.next, earlier.clock) = (chunk.next, chunk.clock);
}

/// Looks up ids and keys in memory and in the cache. No lock is held while the cache is read. Only
/// the thread of the applier adds ids and keys, and the lookup runs on this thread.
struct EarlierInCache<'a, P> {
    core: &'a Core<P>,
    side: &'a mut CacheSide,
    now: Timestamp,
}

impl<P: Payload> Earlier<P> for EarlierInCache<'_, P> {
    fn key(&mut self, key: &IdempotencyKey) -> Result<Option<(Fingerprint, Repeat)>, StoreError> {
        let remembered = self.core.sequencer.lock().keys(self.now).get(key);
        if let Some((fingerprint, answer)) = remembered {
            return Ok(Some((fingerprint, Repeat::Answered(answer))));
        }
        if self.now >= self.side.keys_until {
            return Ok(None);
        }
        let known = self.side.cache.idempotency_key(key)?;
        Ok(known.map(|known| stored(&self.core.ids, known)))
    }

    fn id(&mut self, id: &str) -> Result<Option<(Fingerprint, Repeat)>, StoreError> {
        if let Some(known) = self.core.sequencer.publisher_ids.get(id) {
            return Ok(Some((known.fingerprint, Repeat::Answered(known.answer))));
        }
        let known = self.side.cache.publisher_id(id)?;
        Ok(known.map(|known| stored(&self.core.ids, known)))
    }

    fn is_finishing(&self, _: &Topic<P>) -> bool {
        false
    }
}
