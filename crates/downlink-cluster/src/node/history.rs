//! The history of the hub in a node: the chain of marks, the base of the offsets, and the forks
//! (the known losses of the engine). The history decides where a reader continues.

use downlink_log::{Cursor, Epoch, GapReason, LostEnd, Offset, Timestamp, store::StoredEvent};

use crate::{
    chain::Chain,
    entry::{Control, Entry, Fork, Snapshot},
    fed_log::HistoryStart,
    forks::Forks,
    journal::{JournalId, RawEntry},
    mark::{HubKey, Mark},
    position::{Base, Position},
    rules::{Mutant, Rules},
    window::window::Anchor,
};

/// The state of the hub that all nodes learn from the snapshots in the journal.
#[derive(Clone, Debug)]
pub(crate) struct HubState {
    pub(crate) key: HubKey,
    pub(crate) base: Base,
    pub(crate) epochs: Vec<(Epoch, Offset)>,
    pub(crate) forks: Forks,
}

impl HubState {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let mut forks = Forks::default();
        snapshot.forks.iter().for_each(|fork| _ = forks.add(fork));
        let Snapshot { key, base, epochs, .. } = snapshot;
        Self { key: *key, base: *base, epochs: epochs.clone(), forks }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let Self { key, base, epochs, forks } = self;
        Snapshot { key: *key, base: *base, epochs: epochs.clone(), forks: forks.to_vec() }
    }
}

/// The state that a node keeps across restarts, apart from its log.
///
/// A cache keeps its [`state`](Self::state) and the links of the positions together with the events
/// of the log. [`restore`](Self::restore) makes the history from them. If a power cut takes the
/// newest events, it takes the same positions and states.
#[derive(Clone, Debug)]
pub struct History {
    pub(crate) hub: HubState,
    pub(crate) chain: Chain,
    pub(crate) journal: JournalId,
    /// The anchor at which the history began.
    pub(crate) anchor: Anchor,
    pub(crate) unsaved: Unsaved,
}

/// The parts of a history that have changed since the log got them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsaved {
    pub(crate) state: bool,
    pub(crate) forks: bool,
}

impl Unsaved {
    pub(crate) const ALL: Self = Self { state: true, forks: true };
    const NOTHING: Self = Self { state: false, forks: false };
}

impl History {
    /// A history that begins at `anchor`.
    pub(crate) fn new(hub: HubState, anchor: Anchor, journal: JournalId) -> Self {
        Self { hub, chain: Chain::new(anchor), journal, anchor, unsaved: Unsaved::ALL }
    }

    /// The start of this history, for the log.
    pub(crate) fn start(&self) -> HistoryStart {
        let first = self.first_offset(self.anchor.position.next());
        HistoryStart { epochs: self.hub.epochs.clone(), first }
    }

    /// Adds the next position.
    pub(crate) fn push(&mut self, mark: Mark, time: Timestamp, rules: &Rules) {
        let shown_from = self.chain.shown_from();
        self.chain.push(mark, time, rules);
        self.unsaved.state |= self.chain.shown_from() != shown_from;
    }

    /// Notes the journal in use.
    pub(crate) fn set_journal(&mut self, journal: JournalId) {
        self.unsaved.state |= self.journal != journal;
        self.journal = journal;
    }

    /// Reads the control records of an entry that is not void. Returns whether there is a snapshot.
    pub(crate) fn read_controls(&mut self, entry: &Entry) -> bool {
        let mut has_snapshot = false;
        for control in &entry.controls {
            let forks = match control {
                Control::Snapshot(snapshot) => {
                    has_snapshot = true;
                    snapshot.forks.as_slice()
                }
                Control::Fork(fork) => std::slice::from_ref(fork),
                Control::Heartbeat(_) | Control::Version(_) | Control::Unknown { .. } => &[],
            };
            for fork in forks {
                if self.hub.forks.add(fork) {
                    self.unsaved = Unsaved::ALL;
                }
            }
        }
        has_snapshot
    }

    /// The state and the lost ends for the log, as far as they have changed since the last call.
    pub(crate) fn take_unsaved(&mut self) -> (Option<Vec<u8>>, Option<Vec<LostEnd>>) {
        let Unsaved { state, forks } = std::mem::replace(&mut self.unsaved, Unsaved::NOTHING);
        (state.then(|| self.state()), forks.then(|| self.lost_ends()))
    }

    /// The known lost ends of the journal, oldest first. A log that begins with a cache gets them
    /// before it has readers.
    pub fn lost_ends(&self) -> Vec<LostEnd> {
        let forks = self.hub.forks.to_vec();
        let end = |fork: Fork| LostEnd { from: self.first_offset(fork.at.next()), ids: fork.ids };
        forks.into_iter().map(end).collect()
    }

    /// The chain of marks.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The key of the hub.
    pub fn key(&self) -> &HubKey {
        &self.hub.key
    }

    /// The first offset of the entry at a position.
    pub fn first_offset(&self, position: Position) -> Offset {
        self.hub.base.offset(position, 0)
    }

    /// Removes all positions after `last`.
    pub(crate) fn cut_to(&mut self, last: Position) {
        let shown_from = self.chain.shown_from();
        self.chain.cut_to(last);
        self.unsaved.state |= self.chain.shown_from() != shown_from;
    }

    /// The id of the event with this offset; `None` if the position is not in the chain.
    pub(crate) fn id(&self, offset: Offset, rules: &Rules) -> Option<Cursor> {
        let epoch = self.epoch(self.hub.base.position(offset)?, rules)?;
        Some(Cursor { epoch, next: Offset::new(offset.get() + 1) })
    }

    fn epoch(&self, position: Position, rules: &Rules) -> Option<Epoch> {
        let mark = self.chain.mark(position)?;
        if rules.has(Mutant::CreationTimeAsEpoch) {
            return Some(Epoch::from_random(self.journal.0));
        }
        if rules.has(Mutant::EpochNames) {
            return Some(Epoch::from_random(self.hub.forks.to_vec().len() as u64));
        }
        Some(mark.epoch())
    }

    /// The first offset that is shown.
    fn oldest(&self) -> Offset {
        self.first_offset(self.chain.shown_from().unwrap_or(self.chain.last().next()))
    }

    /// Where the reader of an id continues.
    pub(crate) fn resume(&self, id: &Cursor, rules: &Rules) -> Found {
        let last = Offset::new(id.next.get().saturating_sub(1));
        let Some(position) = self.hub.base.position(last) else { return self.resume_old(id) };
        if position > self.chain.last() {
            return Found::Ahead(position);
        }
        if position < self.chain.first() {
            return self.gap(GapReason::Evicted, self.oldest());
        }
        if self.epoch(position, rules) != Some(id.epoch) {
            return self.lost(position, GapReason::NewEpoch);
        }
        match self.oldest() {
            oldest if id.next < oldest => self.gap(GapReason::Evicted, oldest),
            _ => Found::After(last),
        }
    }

    /// Where the reader of an id from the time before the cluster continues. Each epoch of that
    /// time ends where the next one begins. The last of them ends at the first offset of the
    /// cluster.
    fn resume_old(&self, id: &Cursor) -> Found {
        let epochs = &self.hub.epochs;
        let ends = epochs.iter().skip(1).map(|(_, first)| *first);
        let ends = ends.chain([self.first_offset(Position::FIRST)]);
        let is_known = { epochs.iter().zip(ends) }
            .any(|((epoch, first), end)| *epoch == id.epoch && id.next >= *first && id.next <= end);
        match self.chain.shown_from() {
            Some(Position::FIRST) if is_known => Found::After(Offset::new(id.next.get() - 1)),
            _ if is_known => self.gap(GapReason::Evicted, self.oldest()),
            _ => self.gap(GapReason::NewEpoch, self.oldest()),
        }
    }

    /// The answer for a reader whose id does not belong to this history. If there is a fork before
    /// `position`, the reader continues at the lowest such fork.
    pub(crate) fn lost(&self, position: Position, without_fork: GapReason) -> Found {
        match self.hub.forks.lowest_before(position) {
            Some(fork) => self.lost_after(fork),
            None => self.gap(without_fork, self.oldest()),
        }
    }

    /// The answer for a reader that continues at a fork.
    pub(crate) fn lost_after(&self, fork: Position) -> Found {
        self.gap(GapReason::Lost, self.first_offset(fork.next()).max(self.oldest()))
    }

    pub(crate) fn gap(&self, reason: GapReason, next: Offset) -> Found {
        Found::Gap { reason, next }
    }

    /// The answer for a reader with a publisher's id that the log does not know. A node that does
    /// not have the whole history cannot know whether there was such an event.
    pub(crate) fn unknown_id(&self) -> Found {
        let is_complete = self.chain.shown_from() == Some(Position::FIRST);
        let reason = if is_complete { GapReason::UnknownId } else { GapReason::Evicted };
        self.gap(reason, self.oldest())
    }

    /// The fork at which the event with a publisher's id was lost.
    pub(crate) fn lost_id(&self, id: &str) -> Option<Position> {
        self.hub.forks.lost_id(id)
    }

    /// The events of the groups that are applied. `kept` says for each group whether it is applied.
    pub(crate) fn events(
        &self,
        entry: &Entry,
        kept: &[bool],
        position: Position,
    ) -> Vec<StoredEvent> {
        let groups = entry.groups.iter().zip(kept);
        let records =
            groups.flat_map(|(group, kept)| group.records.iter().map(move |r| (r, *kept)));
        let events = records.enumerate().filter(|(_, (_, kept))| *kept);
        let base = self.hub.base;
        events.map(|(index, (record, _))| record.at_offset(base.offset(position, index))).collect()
    }

    /// Whether the journal has another entry than this history at the same position. False if the
    /// history has no mark there.
    pub(crate) fn differs(&self, raw: &RawEntry, rules: &Rules) -> bool {
        let Some(before) = self.chain.mark(raw.position.previous()) else { return false };
        let digest = self.hub.key.digest(&raw.bytes);
        let mark = before.next(&self.hub.key, digest, raw.time, rules);
        self.chain.mark(raw.position).is_some_and(|known| known != mark)
    }
}

/// Where a reader continues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// After the event with this offset.
    After(Offset),
    /// At `next`, after a gap.
    Gap { reason: GapReason, next: Offset },
    /// The id is of a later position.
    Ahead(Position),
}
