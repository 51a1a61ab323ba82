//! Finds the offset where a new reader begins, in a log with a store.
//!
//! Memory has only the newest events, so the search reads the store, in bounded steps.

use std::sync::Arc;

use crate::core::Core;
use crate::read::{Beginning, PastLosses, Seats, Start, StoreReplays, gap, locate};
use crate::store::{Page, Range, Step, StoreError, StoreReplay};
use crate::types::{Batch, Cursor, EvictionNumber, Floor, GapReason, Offset, Payload};

/// A batch of a single event.
const ONE: Batch = Batch { events_max: 1, bytes_max: 1 };

/// The search in the store for the offset where one reader begins.
pub(crate) struct StoreStartSearch<P: Payload> {
    core: Arc<Core<P>>,
    replays: Arc<StoreReplays<P>>,
    start: Start,
    replay: Box<dyn StoreReplay>,
    /// The log's tail when the search began: the next offset that readers would see.
    tail: u64,
    /// The number of the store's newest eviction before the search began. `None` before the first
    /// step, and for a reader that continues after an id.
    evicted: Option<EvictionNumber>,
    /// Whether the reader names only topics, and all of them are finished.
    is_finished: bool,
    stage: StoreStartStage,
    beginning: Beginning,
}

enum StoreStartStage {
    Begin,
    /// Finds the first event at or above `from`. If `moves` is true, the reader begins at this
    /// event. If `moves` is false, the reader does not move, and the event's offset only goes into
    /// the field `oldest` of the gap.
    First {
        from: u64,
        moves: bool,
    },
    /// Finds the oldest of the `count` newest events. The reader begins at this event.
    Newest {
        count: usize,
    },
    /// Finds the floor of the reader's topics: the offset after their last evicted event, and the
    /// time of this event. The time tells whether events of the requested time or later were
    /// evicted.
    Floor,
    /// If all topics of the reader are finished, finds out whether the reader gets an event or a
    /// gap at or above `from`.
    FinishedTopics {
        from: u64,
    },
}

/// The place where a reader begins, if it is known without the store. The reader is already
/// registered with its topics and patterns.
pub(crate) fn begin_known<P: Payload>(
    core: &Core<P>,
    seats: &Seats<P>,
    start: &Start,
) -> Option<Beginning> {
    let tail = core.history.tail();
    let next = match start {
        Start::Live if seats.all_finished() => return None,
        Start::Live => return Some(Beginning { asked: false, ..Beginning::at(tail) }),
        Start::After(id) if may_be_older(core, id) => return None,
        Start::After(id) => locate(core, id, tail).ok()?,
        _ => return None,
    };
    // A floor is an offset below which memory has evicted events. If `next` is below the highest
    // floor, only the store knows whether finished topics have events left to read.
    let is_unsure = seats.all_finished() && core.history.floor_max() > next;
    (!is_unsure).then(|| continue_at(next, tail))
}

/// Whether the store may have an older event with this id than memory. In a replica, which is a log
/// that copies another log, two events may have the same id of a publisher.
fn may_be_older<P: Payload>(core: &Core<P>, id: &str) -> bool {
    core.confirmations.is_some() && Cursor::parse_id(id).is_none()
}

/// The beginning of a reader that continues after an id, at the offset `next`.
fn continue_at(next: u64, tail: u64) -> Beginning {
    Beginning::at(next).with_past(PastLosses::of_id(tail, None))
}

impl<P: Payload> StoreStartSearch<P> {
    pub(crate) fn new(
        core: Arc<Core<P>>,
        replays: Arc<StoreReplays<P>>,
        seats: &Seats<P>,
        start: Start,
    ) -> Self {
        let mut wanted = seats.wanted();
        if start == Start::Live {
            // A reader that requested no old events may still get the kept events of finished
            // topics. But it gets no kept events of its inbox or of everyone's topic.
            wanted.addresses.retain(|address| address.topic().is_some());
        }
        let (tail, is_finished) = (core.history.tail(), seats.all_finished());
        let replay = replays.reader.replay(wanted);
        let beginning = Beginning::at(tail);
        Self {
            core,
            replays,
            start,
            replay,
            tail,
            evicted: None,
            is_finished,
            stage: StoreStartStage::Begin,
            beginning,
        }
    }

    /// Does one step of the search. Returns `None` if the search is not finished.
    pub(crate) fn step(&mut self) -> Result<Option<Beginning>, StoreError> {
        match self.stage {
            StoreStartStage::Begin => self.begin()?,
            StoreStartStage::First { from, moves } => {
                if let Step::Done(first) = self.first_from(from)? {
                    if moves {
                        self.beginning.next = first.unwrap_or(self.tail);
                    }
                    self.follow(first);
                }
            }
            StoreStartStage::Newest { count } => {
                let until = Offset::new(self.tail);
                if let Step::Done(oldest) = self.replay.nth_newest(count, until)? {
                    let oldest = oldest.map(Offset::get);
                    self.beginning.next = oldest.unwrap_or(self.tail);
                    self.follow(oldest);
                }
            }
            StoreStartStage::Floor => {
                if let Step::Done(floor) = self.replay.floor()? {
                    self.begin_since(floor)?;
                }
            }
            StoreStartStage::FinishedTopics { from } => {
                if let Some(is_over) = self.is_over(from)? {
                    self.beginning.at_end = Some(is_over);
                    return Ok(Some(std::mem::replace(&mut self.beginning, Beginning::at(0))));
                }
            }
        }
        Ok(None)
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        let asks_for_history =
            PastLosses::of_history(self.replays.reader.newest_eviction()?, self.tail);
        self.evicted = asks_for_history.evicted;
        self.beginning.past = Some(Box::new(asks_for_history));
        let first = |from| StoreStartStage::First { from, moves: true };
        self.stage = match &self.start {
            Start::Live | Start::Earliest => first(1),
            Start::Last(0) => StoreStartStage::FinishedTopics { from: self.tail },
            Start::Last(count) => StoreStartStage::Newest { count: *count },
            Start::Since(_) => StoreStartStage::Floor,
            Start::After(id) => {
                let mut found = locate(&self.core, id, self.core.history.tail());
                let is_unknown = matches!(found, Err((GapReason::UnknownId, _)));
                if is_unknown || (found.is_ok() && may_be_older(&self.core, id)) {
                    let known = self.replays.reader.publisher_id(id)?.map(|id| id.get() + 1);
                    let oldest = known.into_iter().chain(found.ok()).min();
                    found = oldest.map_or(found, Ok);
                }
                match found {
                    Ok(next) => {
                        self.evicted = None;
                        self.beginning = continue_at(next, self.tail);
                        StoreStartStage::FinishedTopics { from: next }
                    }
                    Err((GapReason::Lost, end)) => {
                        // The reader has seen nothing from `end` on, so events that were evicted
                        // there count as missing.
                        self.evicted = None;
                        let gap = Some(gap(GapReason::Lost, None, None, end));
                        self.beginning = Beginning { gap, ..continue_at(end, self.tail) };
                        StoreStartStage::First { from: end, moves: false }
                    }
                    Err((reason, _)) => {
                        self.beginning.gap = Some(gap(reason, None, None, self.tail));
                        StoreStartStage::Newest {
                            count: self.core.history.options.limits.gap_replay_max,
                        }
                    }
                }
            }
        };
        Ok(())
    }

    fn begin_since(&mut self, floor: Floor) -> Result<(), StoreError> {
        let Start::Since(since) = self.start else { return Ok(()) };
        if floor.offset > Offset::FIRST && floor.at >= since {
            let until = Some(Offset::new(floor.offset.get().min(self.tail) - 1));
            self.beginning.gap = Some(gap(GapReason::Evicted, until, None, self.tail));
        }
        let first = self.replays.reader.first_since(since)?;
        let from = first.map_or(self.tail, Offset::get).min(self.tail);
        self.stage = StoreStartStage::First { from, moves: true };
        Ok(())
    }

    /// Completes the gap that the reader reports first, if there is one. Then sets the next stage,
    /// which looks for events of finished topics.
    fn follow(&mut self, oldest: Option<u64>) {
        let next = self.beginning.next;
        if let Some(gap) = &mut self.beginning.gap {
            gap.oldest = oldest.map(Offset::new);
            gap.next = Offset::new(next);
        }
        self.stage = StoreStartStage::FinishedTopics { from: next };
    }

    /// Whether all topics of the reader are finished, and there is no event and no gap for the
    /// reader. Returns `None` if the answer is not known yet.
    fn is_over(&mut self, from: u64) -> Result<Option<bool>, StoreError> {
        if !self.is_finished || self.beginning.gap.is_some() {
            return Ok(Some(false));
        }
        if from >= self.tail {
            // At or above the tail, finished topics have no events, so no event can be missing.
            return Ok(Some(true));
        }
        Ok(match self.page(from)? {
            Step::Done(page) if page.hole.is_some() || !page.events.is_empty() => Some(false),
            Step::Done(page) if page.next.get() >= self.tail => Some(true),
            Step::Done(page) => {
                self.stage = StoreStartStage::FinishedTopics { from: page.next.get() };
                None
            }
            Step::More => None,
        })
    }

    /// The offset of the first event at or above `from`. `None` if there is no such event.
    fn first_from(&mut self, from: u64) -> Result<Step<Option<u64>>, StoreError> {
        if from >= self.tail {
            return Ok(Step::Done(None));
        }
        let Step::Done(page) = self.page(from)? else { return Ok(Step::More) };
        if let Some(first) = page.events.first() {
            return Ok(Step::Done(Some(first.offset.get())));
        }
        if page.next.get() >= self.tail {
            return Ok(Step::Done(None));
        }
        if let StoreStartStage::First { from, .. } = &mut self.stage {
            *from = page.next.get();
        }
        Ok(Step::More)
    }

    fn page(&mut self, from: u64) -> Result<Step<Page>, StoreError> {
        let range = Range { from: Offset::new(from), until: Offset::new(self.tail) };
        self.replay.page(range, self.evicted.unwrap_or(EvictionNumber::NONE), ONE)
    }
}
