//! Signs that the history of a node differs from the journal, and how often a sign may start a
//! comparison.

use std::time::Duration;

use downlink_log::Timestamp;

use crate::{chain::Chain, position::Position};

/// The minimum time between two comparisons of the newest entries.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// The minimum time between two comparisons of the whole history. A writer that is wrong must not
/// keep all nodes busy.
const COMPARE_ALL_EVERY: Duration = Duration::from_secs(30);

/// The sign that the history of the node and the journal differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Suspicion {
    /// The journal has another entry at a position of the history, so the window cannot go on.
    EntryDiffers,
    /// The entry at this position may be another one.
    At(Position),
    /// Another writer has seen another history. The difference may be anywhere.
    OtherWriter,
}

/// When the node has last compared its history with the journal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Compared {
    at: Option<Timestamp>,
    all_at: Option<Timestamp>,
}

impl Compared {
    /// The lowest position to compare after a sign; `None` if it is too early for another
    /// comparison.
    pub(crate) fn begin(
        &mut self,
        now: Timestamp,
        suspicion: Suspicion,
        chain: &Chain,
    ) -> Option<Position> {
        let is_due =
            |at: Option<Timestamp>, span| at.is_none_or(|at: Timestamp| now >= at.after(span));
        match suspicion {
            Suspicion::EntryDiffers => Some(chain.last()),
            Suspicion::At(position) => is_due(self.at, COMPARE_EVERY).then_some(position),
            Suspicion::OtherWriter => is_due(self.all_at, COMPARE_ALL_EVERY).then(|| {
                self.all_at = Some(now);
                chain.first()
            }),
        }
    }

    /// A comparison has ended.
    pub(crate) fn end(&mut self, now: Timestamp) {
        self.at = Some(now);
    }
}
