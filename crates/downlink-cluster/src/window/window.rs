//! The window: decides which events of an entry are applied.
//!
//! A writer plans an event with the state of its node at one position: it asks the log whether the
//! event is new. The entry with the event arrives at a later position. The window decides whether
//! an entry between these positions makes the plan wrong. It looks only at the entries between, as
//! they are in the journal. It ignores which of their events were applied. So all nodes decide
//! alike, although they keep different parts of the history, and although one of them may have
//! begun in the middle.
//!
//! Each entry makes claims: its name, and the idempotency keys, ids and finished topics of its
//! events. An event is dropped, together with its group, if an entry between made one of its
//! claims. A wrong entry is void: none of its events are applied.

use std::collections::{HashSet, VecDeque};

use downlink_log::Timestamp;
use thiserror::Error;

use crate::{
    engine_clock::step,
    entry::{Entry, HubId},
    mark::{Digest, HubKey, Mark},
    position::Position,
    rules::{Mutant, Rules},
    window::{
        claims::{Claims, GroupClaims},
        table::ClaimTable,
    },
    wire::DecodeError,
};

/// The maximum number of claims that one entry makes. An entry with more claims is void, because
/// a few such entries would fill the table of claims.
pub const ENTRY_CLAIMS_MAX: usize = 65_536;

/// The entries of the last positions, reduced to their marks, times and claims.
///
/// # Limits
///
/// With the default [`Rules`], a window takes less than 5 MiB.
#[derive(Clone, Debug)]
pub struct Window {
    rules: Rules,
    hub: HubId,
    key: HubKey,
    /// The position of the first of `slots`.
    first: Position,
    /// One slot for each of the last positions. Invariant: it is never empty, and has at most
    /// `positions_max + 1` slots.
    slots: VecDeque<Slot>,
    claims: ClaimTable,
    /// The engine's time of the last position; `None` at the origin.
    time: Option<Timestamp>,
}

/// The state that the window keeps for a position.
#[derive(Clone, Copy, Debug)]
struct Slot {
    mark: Mark,
    /// Engine time from the window's beginning to this position, in milliseconds.
    elapsed: u64,
    /// The number of claims in all entries up to this position.
    claims: u64,
}

/// The point at which a window begins.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    /// The last position before the first entry of the window.
    pub position: Position,
    /// The mark of this position.
    pub mark: Mark,
    /// The engine's time of this position; `None` at the origin.
    pub time: Option<Timestamp>,
}

impl Anchor {
    /// The beginning of the journal.
    pub const ORIGIN: Self = Self { position: Position::ORIGIN, mark: Mark::ORIGIN, time: None };
}

/// The decision about an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// The mark of the entry's position.
    pub mark: Mark,
    /// For each group of the entry, whether it is applied; or the reason why the entry is void.
    pub groups: Result<Vec<bool>, Void>,
}

/// The reason why no event of an entry is applied.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Void {
    /// The entry cannot be decoded.
    #[error("the entry cannot be decoded")]
    Undecodable(#[source] DecodeError),
    /// The entry belongs to another hub.
    #[error("the entry belongs to another hub")]
    OtherHub,
    /// The entry makes too many claims.
    #[error("the entry makes more than {ENTRY_CLAIMS_MAX} claims")]
    TooManyClaims,
    /// The writer has seen a position that the journal has not reached yet.
    #[error("the writer has seen a later position of another history")]
    SeenAhead,
    /// The position that the writer has seen is before the window.
    #[error("the writer planned the entry too many positions ago")]
    TooOld,
    /// There are too many claims between the entry and the position that it has seen.
    #[error("too many claims were made since the writer planned the entry")]
    TooCrowded,
    /// The writer's mark is not the mark of the position that it has seen.
    #[error("the writer has seen another history")]
    OtherHistory,
    /// An entry between the position that the writer has seen and this entry has the same name.
    #[error("the entry is a copy of an earlier one")]
    Repeated,
    /// Too much engine time has passed.
    #[error("the entry arrived too late")]
    Expired,
}

impl Window {
    /// A window that begins at `anchor`.
    pub fn new(rules: Rules, hub: HubId, key: HubKey, anchor: Anchor) -> Self {
        let slots = [Slot { mark: anchor.mark, elapsed: 0, claims: 0 }].into();
        let claims = ClaimTable::new(rules.claims_max);
        Self { rules, hub, key, first: anchor.position, slots, claims, time: anchor.time }
    }

    /// The last position that the window has decided.
    pub fn last(&self) -> Position {
        Position::new(self.first.get() + self.slots.len() as u64 - 1)
    }

    /// The mark at the last position.
    pub fn mark(&self) -> Mark {
        self.slot(self.last()).map_or(Mark::ORIGIN, |slot| slot.mark)
    }

    /// Decides about the entry at the next position. `entry` is the decoded form of `bytes`.
    pub fn push(
        &mut self,
        bytes: &[u8],
        entry: Result<&Entry, &DecodeError>,
        time: Timestamp,
    ) -> Verdict {
        let digest = self.key.digest(bytes);
        let mark = self.mark().next(&self.key, digest, time, &self.rules);
        let passed = self.time.map_or(0, |earlier| step(earlier, time, &self.rules));
        let elapsed = self.slot(self.last()).map_or(0, |slot| slot.elapsed) + passed;
        let claims = entry.ok().filter(|entry| entry.hub == self.hub).map(|entry| {
            let claims = Claims { key: &self.key };
            EntryClaims {
                name: claims.name(entry.name),
                groups: entry.groups.iter().map(|group| claims.of(group)).collect(),
            }
        });
        let groups = match (entry, &claims) {
            (Err(error), _) => Err(Void::Undecodable(error.clone())),
            (Ok(_), None) => Err(Void::OtherHub),
            (Ok(entry), Some(claims)) => self.decide(entry, claims, elapsed),
        };
        if let Some(claims) = &claims {
            self.add(claims, &groups);
        }
        self.slots.push_back(Slot { mark, elapsed, claims: self.claims.next() });
        if self.slots.len() as u64 > self.rules.positions_max + 1 {
            self.slots.pop_front();
            self.first = self.first.next();
        }
        self.time = Some(time);
        Verdict { mark, groups }
    }

    fn slot(&self, position: Position) -> Option<&Slot> {
        let at = position.get().checked_sub(self.first.get())?;
        self.slots.get(usize::try_from(at).ok()?)
    }

    fn decide(&self, entry: &Entry, claims: &EntryClaims, elapsed: u64) -> Result<Vec<bool>, Void> {
        if entry.seen > self.last() {
            return Err(Void::SeenAhead);
        }
        let seen = *self.slot(entry.seen).ok_or(Void::TooOld)?;
        if seen.mark != entry.seen_mark {
            return Err(Void::OtherHistory);
        }
        if self.claims.next() - seen.claims > self.rules.claims_max as u64 {
            return Err(Void::TooCrowded);
        }
        let is_claimed = |claim| self.claims.newest(claim).is_some_and(|at| at >= seen.claims);
        if is_claimed(claims.name) {
            return Err(Void::Repeated);
        }
        if !entry.is_control() && elapsed - seen.elapsed > self.rules.lifetime_ms() {
            return Err(Void::Expired);
        }
        if claims.made().nth(ENTRY_CLAIMS_MAX).is_some() {
            return Err(Void::TooManyClaims);
        }
        let mut within = HashSet::new();
        let kept = claims.groups.iter().map(|group| {
            let is_kept =
                !group.excluding().any(|claim| is_claimed(claim) || within.contains(&claim));
            within.extend(group.made());
            is_kept
        });
        Ok(kept.collect())
    }

    /// Adds the claims of an entry, even if the entry is void: whether it is void depends on
    /// entries that another node may not have read.
    fn add(&mut self, claims: &EntryClaims, groups: &Result<Vec<bool>, Void>) {
        if self.rules.has(Mutant::CompareOutcomes) {
            let kept = groups.as_deref().unwrap_or_default();
            let applied = claims.groups.iter().zip(kept).filter(|(_, kept)| **kept);
            applied.flat_map(|(group, _)| group.made()).for_each(|claim| self.claims.add(claim));
            return self.claims.add(claims.name);
        }
        claims.made().take(ENTRY_CLAIMS_MAX).for_each(|claim| self.claims.add(claim));
    }

    /// The digest of an entry's bytes.
    pub(crate) fn digest(&self, bytes: &[u8]) -> Digest {
        self.key.digest(bytes)
    }
}

/// The claims of an entry.
struct EntryClaims {
    name: u64,
    groups: Vec<GroupClaims>,
}

impl EntryClaims {
    /// The claims that the entry makes.
    fn made(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.name).chain(self.groups.iter().flat_map(GroupClaims::made))
    }
}
