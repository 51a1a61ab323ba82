//! The end of the journal, as far as a node knows it.

use std::time::Duration;

use downlink_log::Timestamp;

use crate::{
    journal::Bounds,
    node::{compare::SHORT_FOR, outbox::RETRY_EVERY, request::Request},
    position::Position,
};

/// The time for which a tail may be behind the end of the journal without delivering anything new.
/// After this time, the node opens the tail again.
const STALLED_FOR: Duration = Duration::from_secs(4);

/// The answers about the bounds of the journal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    /// The newest answer, and when its question was asked.
    newest: Option<(Timestamp, Bounds)>,
    /// When the open question was asked. `None` if no question is open.
    asked: Option<Timestamp>,
    /// The time of the next question, if the last one has failed.
    not_before: Timestamp,
    /// Since when the journal is shorter than the history, and the lowest end of the journal since
    /// then.
    short: Option<(Timestamp, Position)>,
    /// Since when the tail is behind.
    stalled_since: Option<Timestamp>,
}

impl Ends {
    /// Asks for the bounds, unless a question is open. One answer serves all waiting readers.
    pub(crate) fn ask(&mut self, now: Timestamp) -> Option<Request> {
        if self.asked.is_some() || now < self.not_before {
            return None;
        }
        self.asked = Some(now);
        Some(Request::Bounds)
    }

    /// Forgets the open question, because a journal that is opened again may never answer it.
    pub(crate) fn handle_reopened(&mut self) {
        self.asked = None;
    }

    /// Forgets the question, because it has failed.
    pub(crate) fn handle_error(&mut self, now: Timestamp) {
        self.asked = None;
        self.not_before = now.after(RETRY_EVERY);
    }

    /// Takes an answer. `last` is the last position of the history. If there is a sign that the
    /// history differs from the journal, returns the position from which it may differ.
    pub(crate) fn handle_bounds(
        &mut self,
        now: Timestamp,
        bounds: Bounds,
        last: Position,
    ) -> Option<Position> {
        let asked = self.asked.take()?;
        self.newest = Some((asked, bounds));
        if bounds.last < last {
            let (since, lowest) = self.short.unwrap_or((asked, bounds.last));
            self.short = Some((since, lowest.min(bounds.last)));
            return (now >= since.after(SHORT_FOR)).then_some(bounds.last);
        }
        // If the journal was shorter for a moment, other entries may have taken the places of
        // entries that it has lost.
        self.short.take().map(|(_, lowest)| lowest.next())
    }

    /// Since when the journal is shorter than the history.
    pub(crate) fn short_since(&self) -> Option<Timestamp> {
        self.short.map(|(since, _)| since)
    }

    /// The history was cut, so the journal is not shorter than the history any more.
    pub(crate) fn handle_cut(&mut self) {
        self.short = None;
    }

    /// The end of the journal, if the node asked for it at `since` or later and has the answer.
    pub(crate) fn last_since(&self, since: Timestamp) -> Option<Position> {
        self.newest.filter(|(asked, _)| *asked >= since).map(|(_, bounds)| bounds.last)
    }

    /// The first position that the journal keeps.
    pub(crate) fn first(&self) -> Option<Position> {
        self.newest.map(|(_, bounds)| bounds.first)
    }

    /// The number of positions by which `last` is behind the journal.
    pub(crate) fn behind(&self, last: Position) -> u64 {
        self.newest.map_or(0, |(_, bounds)| bounds.last.since(last))
    }

    /// Whether the tail should be opened again. `acknowledged` is the highest position that the
    /// engine has acknowledged and the tail has not delivered.
    pub(crate) fn is_stalled(
        &mut self,
        now: Timestamp,
        acknowledged: Option<Position>,
        last: Position,
    ) -> bool {
        if self.behind(last) == 0 && acknowledged.is_none_or(|position| position <= last) {
            self.stalled_since = None;
            return false;
        }
        let since = *self.stalled_since.get_or_insert(now);
        let is_stalled = now >= since.after(STALLED_FOR);
        if is_stalled {
            self.stalled_since = None;
        }
        is_stalled
    }
}
