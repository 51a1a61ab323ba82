//! Finds the offset where a new reader begins, in a log without a store.
//!
//! If the reader reads few topics, the search looks at their rings, which hold the topics' events.
//! If the reader's patterns match many topics, the search goes through the index of the log in
//! bounded steps. The index lists the events of all topics.

use std::{collections::BTreeSet, sync::Arc};

use crate::core::Core;
use crate::read::{
    Beginning, FloorSearch, PastLosses, SearchProgress, Seats, Start, WorkBudget, walk,
};
use crate::topics::{Lost, Topic};
use crate::types::{Cursor, EvictionNumber, Floor, Gap, GapReason, Offset, Payload, Timestamp};

/// If a reader of few topics wants at most this many of the newest events, the search sorts the
/// offsets of these events. This takes at most about a millisecond. If the reader wants more
/// events, the search goes through the index in several steps.
const SORTED_MAX: usize = 4_096;

/// The search for the offset where one reader begins. The reader is already registered with its
/// topics and patterns, so it misses no event that is appended during the search.
#[derive(Debug)]
pub(crate) struct StartSearch<P> {
    /// The log's tail when the search began: the next offset that readers would see.
    tail: u64,
    /// The number of the newest eviction before the search began.
    evicted: EvictionNumber,
    /// The topics of the reader, if they are few. If this is `None`, the search goes through the
    /// index.
    few: Option<Vec<Arc<Topic<P>>>>,
    stage: StartStage,
    /// The gap that the reader reports before its first event: the reason, and the last missing
    /// offset if it is known.
    gap: Option<(GapReason, Option<Offset>)>,
}

#[derive(Debug)]
enum StartStage {
    /// Finds the first event at or above `from`.
    First { from: u64 },
    /// Finds the newest events below `until`. The search must still find `left` of them. `oldest`
    /// is the offset of the oldest event that it has found so far.
    Newest { left: usize, until: u64, oldest: Option<u64> },
    /// Finds the highest floor of the topics that the patterns match. The floor of a topic is the
    /// offset after its last evicted event. `since` is the time that the reader requested, if it
    /// requested a time. If `since` is `None`, the reader begins at `next`, and only a floor above
    /// `next` matters. If `since` is `Some`, a floor counts only if the last evicted event was
    /// published at this time or later. The next stage then finds the first kept event from this
    /// time on.
    Lost { search: FloorSearch, since: Option<Timestamp>, next: u64, highest: u64 },
}

impl<P: Payload> StartSearch<P> {
    /// Returns the place where the reader begins, if it is known at once. If a search is needed,
    /// `Err` has the search.
    pub(crate) fn begin(
        core: &Core<P>,
        seats: &Seats<P>,
        start: &Start,
    ) -> Result<Beginning, Box<Self>> {
        let history = &core.history;
        let (evicted, tail) = (history.newest_eviction(), history.tail());
        let search = |gap, mut stage| {
            let mut few = walk::few_topics(history, seats);
            if let (StartStage::Newest { left, .. }, Some(topics)) = (&stage, &few) {
                let kept: usize = topics.iter().map(|topic| topic.ring.read().len()).sum();
                if kept <= *left {
                    stage = StartStage::First { from: 0 };
                } else if *left > SORTED_MAX {
                    few = None;
                }
            }
            Err(Box::new(Self { tail, evicted, few, stage, gap }))
        };
        let newest = |left| StartStage::Newest { left, until: tail, oldest: None };
        let lost = |since, next| StartStage::Lost {
            search: FloorSearch::new(seats),
            since,
            next,
            highest: 0,
        };
        match start {
            Start::Live if seats.all_finished() => {
                let topics = seats.named().map(|seat| &seat.topic);
                let next = topics.filter_map(|topic| topic.ring.read().next_from(0)).min();
                let past = PastLosses::of_history(evicted, tail);
                Ok(Beginning::at(next.unwrap_or(tail)).with_past(past))
            }
            Start::Live => Ok(Beginning { asked: false, ..Beginning::at(tail) }),
            Start::Earliest => search(None, StartStage::First { from: 0 }),
            Start::Last(count) => search(None, newest(*count)),
            Start::Since(since) if history.evicted_at_max() >= *since => {
                search(None, lost(Some(*since), tail))
            }
            Start::Since(since) => {
                let from = history.first_since(*since).unwrap_or(tail);
                search(None, StartStage::First { from })
            }
            Start::After(id) => match locate(core, id, tail) {
                Ok(next) if seats.patterns().is_empty() || history.floor_max() <= next => {
                    Ok(Beginning::at(next))
                }
                Ok(next) => search(None, lost(None, next)),
                Err((GapReason::Lost, end))
                    if seats.patterns().is_empty() || history.floor_max() <= end =>
                {
                    let gap = Some(gap(GapReason::Lost, None, None, end));
                    Ok(Beginning { gap, ..Beginning::at(end) })
                }
                // Events from the end on may have been evicted. The reader reports them after the
                // gap.
                Err((GapReason::Lost, end)) => {
                    search(Some((GapReason::Lost, None)), lost(None, end))
                }
                Err((reason, _)) => {
                    search(Some((reason, None)), newest(history.options.limits.gap_replay_max))
                }
            },
        }
    }

    /// Continues the search for a bounded amount of work. Returns `None` if the search is not
    /// finished.
    pub(crate) fn step(&mut self, core: &Core<P>, seats: &Seats<P>) -> Option<Beginning> {
        let mut work = WorkBudget::new();
        while !work.is_done() {
            if let Some(beginning) = self.step_once(core, seats, &mut work) {
                return Some(beginning);
            }
        }
        None
    }

    fn step_once(
        &mut self,
        core: &Core<P>,
        seats: &Seats<P>,
        work: &mut WorkBudget,
    ) -> Option<Beginning> {
        let (history, tail) = (&core.history, self.tail);
        match &mut self.stage {
            StartStage::First { from } => {
                let found = match &self.few {
                    Some(few) => first_of(few, *from, tail),
                    None => walk::first(history, seats, *from, tail, work),
                };
                self.found(found, |from| StartStage::First { from })
            }
            StartStage::Newest { left, until, oldest } => {
                let found = match &self.few {
                    Some(few) => newest_of(few, *left, *until),
                    None => walk::newest(history, seats, *until, left, oldest, work),
                };
                let (left, oldest) = (*left, *oldest);
                self.found(found, |until| StartStage::Newest { left, until, oldest })
            }
            StartStage::Lost { search, since, next, highest } => {
                let mut each = |lost: Lost| {
                    let Floor { offset, at } = lost.floor;
                    if since.is_none_or(|since| at >= since && offset > Offset::FIRST) {
                        *highest = (*highest).max(offset.get());
                    }
                };
                if !search.step(history, seats, work, &mut each) {
                    return None;
                }
                let Some(since) = *since else {
                    let hole = (*highest > *next).then(|| *highest - 1);
                    let gap = self.gap.map(|(reason, until)| gap(reason, until, None, *next));
                    let beginning = Beginning { gap, ..Beginning::at(*next) };
                    return Some(beginning.with_past(PastLosses::of_id(tail, hole)));
                };
                seats.topics.iter().for_each(|seat| each(seat.topic.ring.read().lost()));
                // Events at or above the tail were appended after the search began. If one of these
                // events was evicted, the reader notices the eviction when it reads.
                let highest = (*highest).min(tail);
                let until = (highest > 0).then(|| Offset::new(highest - 1));
                self.gap = until.map(|until| (GapReason::Evicted, Some(until)));
                let from = history.first_since(since).unwrap_or(tail);
                self.stage = StartStage::First { from };
                None
            }
        }
    }

    /// Ends the search if it has a result. If it has no result yet, sets the stage with which the
    /// next step continues.
    fn found(
        &mut self,
        found: SearchProgress,
        more: impl FnOnce(u64) -> StartStage,
    ) -> Option<Beginning> {
        let oldest = match found {
            SearchProgress::Found(offset) => Some(offset),
            SearchProgress::Nothing => None,
            SearchProgress::More(at) => {
                self.stage = more(at);
                return None;
            }
        };
        let next = oldest.unwrap_or(self.tail);
        let gap = self.gap.map(|(reason, until)| gap(reason, until, oldest, next));
        let past = PastLosses::of_history(self.evicted, self.tail);
        Some(Beginning { gap, ..Beginning::at(next) }.with_past(past))
    }
}

/// Returns the offset after the event with this id. If memory does not know the id, `Err` has the
/// reason for a gap, and the offset where the reader continues after the gap.
pub(crate) fn locate<P: Payload>(
    core: &Core<P>,
    id: &str,
    tail: u64,
) -> Result<u64, (GapReason, u64)> {
    let Some(cursor) = Cursor::parse_id(id) else {
        if let Some(from) = core.ids.lost_id(id) {
            return Err((GapReason::Lost, from.min(tail)));
        }
        let known = core.sequencer.publisher_ids.get(id);
        return known.map(|id| id.answer.offset.get() + 1).ok_or((GapReason::UnknownId, tail));
    };
    core.ids.locate(cursor, tail)
}

/// Makes the gap that a reader reports before its first event.
pub(crate) fn gap(reason: GapReason, until: Option<Offset>, oldest: Option<u64>, next: u64) -> Gap {
    let oldest = oldest.map(Offset::new);
    Gap { reason, after: None, until, oldest, next: Offset::new(next) }
}

fn first_of<P: Payload>(topics: &[Arc<Topic<P>>], from: u64, until: u64) -> SearchProgress {
    let first = topics.iter().filter_map(|topic| topic.ring.read().next_from(from)).min();
    first.filter(|first| *first < until).map_or(SearchProgress::Nothing, SearchProgress::Found)
}

/// The lowest offset among the newest `count` events below `until` in all these topics together.
fn newest_of<P: Payload>(topics: &[Arc<Topic<P>>], count: usize, until: u64) -> SearchProgress {
    let mut newest = BTreeSet::new();
    for topic in topics {
        for offset in topic.ring.read().newest_first().filter(|&offset| offset < until) {
            let full = newest.len() >= count;
            if full && newest.first().is_none_or(|&oldest| offset < oldest) {
                break;
            }
            newest.insert(offset);
            if newest.len() > count {
                newest.pop_first();
            }
        }
    }
    newest.pop_first().map_or(SearchProgress::Nothing, SearchProgress::Found)
}
