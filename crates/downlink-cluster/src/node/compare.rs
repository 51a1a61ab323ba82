//! Compares the history of a node with that of the engine, and finds the last common position.
//!
//! The comparison begins at the end of the node's history and goes back, because most losses are
//! short. It goes back to a given position even if the newest entries are equal. Suppose that the
//! journal loses entries while the node's tail waits for the next position. Other entries take the
//! lost positions, but the tail delivers only the entries after them. So the newest entries of the
//! node and of the journal are equal, although earlier entries differ.

use std::{ops::Range, time::Duration};

use downlink_log::Timestamp;

use crate::{
    chain::Chain,
    journal::{Bounds, RawEntry},
    mark::HubKey,
    position::Position,
    rules::Rules,
};

/// The number of entries that are read together, so that an answer stays small.
const RANGE: u64 = 64;
/// If the journal stays shorter than the history of the node for this long, the node believes that
/// entries are lost. A replica of the engine can be some seconds behind. With a shorter time, the
/// node would mistake that for a loss.
pub(crate) const SHORT_FOR: Duration = Duration::from_secs(10);
/// The time between two reads while the journal is too short.
const READ_EVERY: Duration = Duration::from_secs(1);

/// A comparison in progress.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    range: Range<Position>,
    /// The lowest position to compare.
    depth: Position,
    /// Whether an entry after the range differs.
    differs_above: bool,
    /// Since when the journal is known to be shorter than the history of the node.
    short_since: Option<Timestamp>,
}

/// The result of one read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// Read the next range at this time.
    ReadAt(Timestamp),
    /// The journal has all entries of the node.
    Equal,
    /// The last common position.
    Fork(Position),
    /// The journal has none of the node's entries.
    NothingInCommon,
}

impl Comparison {
    /// Begins at the end of `chain` and goes back to `depth`. `short_since` is the time since when
    /// the journal is known to be too short.
    pub(crate) fn new(chain: &Chain, depth: Position, short_since: Option<Timestamp>) -> Self {
        let end = chain.last().next();
        let mut comparison = Self { range: end..end, depth, differs_above: false, short_since };
        comparison.set_range(chain, end);
        comparison
    }

    /// The positions to read.
    pub(crate) fn range(&self) -> Range<Position> {
        self.range.clone()
    }

    fn set_range(&mut self, chain: &Chain, until: Position) {
        let from = Position::new(until.get().saturating_sub(RANGE));
        self.range = from.max(chain.first().next())..until;
    }

    /// Compares the entries of the range.
    pub(crate) fn check(
        &mut self,
        now: Timestamp,
        (chain, key, rules): (&Chain, &HubKey, &Rules),
        entries: &[RawEntry],
        bounds: Bounds,
    ) -> Outcome {
        let start = self.range.start;
        if bounds.last < start && bounds.last < chain.last() {
            self.differs_above = true;
            return self.go_back(now, chain, bounds.last.next());
        }
        // Retention may have removed the first entries of the range.
        let start = start.max(bounds.first);
        let mut common = None;
        for entry in entries.iter().filter(|entry| entry.position >= start) {
            // Missing entries are holes. The entries on both sides can still be equal.
            let mark = chain
                .mark(entry.position.previous())
                .map(|mark| mark.next(key, key.digest(&entry.bytes), entry.time, rules));
            if mark.is_none() || mark != chain.mark(entry.position) {
                return self.differs(now, chain, common, start);
            }
            common = Some(entry.position);
        }
        match common {
            Some(common) if bounds.last < chain.last() && common == bounds.last => {
                self.short(now, common)
            }
            common if self.differs_above => self.differs(now, chain, common, start),
            _ if start > self.depth && start > bounds.first && start > chain.first().next() => {
                self.go_back(now, chain, start)
            }
            _ => Outcome::Equal,
        }
    }

    /// The outcome if an entry after `common` differs. If `common` is `None`, no entry from `start`
    /// to the end of the range is equal, so the comparison goes back further.
    fn differs(
        &mut self,
        now: Timestamp,
        chain: &Chain,
        common: Option<Position>,
        start: Position,
    ) -> Outcome {
        match common {
            Some(common) => Outcome::Fork(common),
            None => {
                self.differs_above = true;
                self.go_back(now, chain, start)
            }
        }
    }

    /// Goes back by one range that ends at `until`. The first position of the chain cannot be
    /// compared, because the chain does not have the mark before it.
    fn go_back(&mut self, now: Timestamp, chain: &Chain, until: Position) -> Outcome {
        if until <= chain.first().next() {
            return Outcome::NothingInCommon;
        }
        self.set_range(chain, until);
        Outcome::ReadAt(now)
    }

    /// The outcome if all entries of the journal are equal, but the journal has fewer entries than
    /// the history.
    fn short(&mut self, now: Timestamp, common: Position) -> Outcome {
        let since = *self.short_since.get_or_insert(now);
        if now >= since.after(SHORT_FOR) {
            Outcome::Fork(common)
        } else {
            Outcome::ReadAt(now.after(READ_EVERY))
        }
    }
}
