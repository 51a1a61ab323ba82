//! Finds a position at which a node can begin.
//!
//! An entry contains the position that its writer has seen, and the mark of that position. A node
//! that has read this position can begin there: it knows the mark and the engine's time. If the
//! node does not know the hub's key yet, the entry must also contain a snapshot, which has the key.

use std::collections::VecDeque;

use downlink_log::Timestamp;

use crate::{
    entry::{Control, Entry, HubId},
    journal::RawEntry,
    mark::{HubKey, Mark},
    node::history::HubState,
    position::Position,
    rules::Rules,
    window::window::Anchor,
};

/// The search for an anchor, which is a position at which the node can begin.
#[derive(Clone, Debug)]
pub(crate) struct Anchoring {
    first: Position,
    /// The engine's times of the positions from `first` on.
    times: VecDeque<Timestamp>,
    /// The bytes of the newest entry.
    newest: Vec<u8>,
    /// When the search began, or when an anchor was last proposed.
    pub(crate) since: Timestamp,
}

impl Anchoring {
    /// A search from `first` on.
    pub(crate) fn new(first: Position, now: Timestamp) -> Self {
        Self { first, times: VecDeque::new(), newest: Vec::new(), since: now }
    }

    /// The next position to read.
    pub(crate) fn next(&self) -> Position {
        Position::new(self.first.get() + self.times.len() as u64)
    }

    /// An anchor that the node can propose if no entry offers one: the last position that was read,
    /// and a mark for it that depends only on its entry.
    pub(crate) fn proposal(&self, key: &HubKey, rules: &Rules) -> Option<(Position, Mark)> {
        let time = *self.times.back()?;
        let mark = Mark::ORIGIN.next(key, key.digest(&self.newest), time, rules);
        Some((self.next().previous(), mark))
    }

    /// Reads the next entry. Returns the anchor that the entry offers, if any. `known` is the state
    /// of the hub, if the node knows it. Keeps the times of at most `positions_max` positions.
    pub(crate) fn read(
        &mut self,
        raw: &RawEntry,
        (hub, positions_max): (HubId, u64),
        known: Option<&HubState>,
    ) -> Option<(HubState, Anchor)> {
        self.times.push_back(raw.time);
        self.newest.clone_from(&raw.bytes);
        if self.times.len() as u64 > positions_max {
            self.times.pop_front();
            self.first = self.first.next();
        }
        let entry = Entry::decode(&raw.bytes).ok().filter(|entry| entry.hub == hub)?;
        let anchor = self.anchor(&entry, raw.position)?;
        let snapshot = entry.controls.iter().find_map(|control| match control {
            Control::Snapshot(snapshot) => Some(HubState::new(snapshot)),
            _ => None,
        });
        // A journal that begins anew may have another key.
        let known = known.filter(|_| anchor.position != Position::ORIGIN);
        Some((snapshot.or_else(|| known.cloned())?, anchor))
    }

    /// An anchor at the position that an entry has seen. `None` if the search has not read the time
    /// of this position. An anchor at the origin needs no time.
    fn anchor(&self, entry: &Entry, position: Position) -> Option<Anchor> {
        let Entry { seen, seen_mark, .. } = *entry;
        if seen == Position::ORIGIN && self.first == Position::FIRST && seen_mark == Mark::ORIGIN {
            return Some(Anchor::ORIGIN);
        }
        let at = usize::try_from(seen.get().checked_sub(self.first.get())?).ok()?;
        let time = *self.times.get(at).filter(|_| seen < position)?;
        Some(Anchor { position: seen, mark: seen_mark, time: Some(time) })
    }
}
