//! The chain of marks that a node keeps: one link for each position of its history. A mark is a
//! hash of all entries up to a position.
//!
//! The chain answers three questions. Does an id belong to this history? At which position do the
//! history of the engine and the history of the node begin to differ? How much engine time (see
//! `engine_clock`) has passed between two positions?

use std::collections::VecDeque;

pub use downlink_log::LINKS_MAX;
use downlink_log::Timestamp;

use crate::{
    engine_clock::step, mark::Mark, position::Position, rules::Rules, window::window::Anchor,
};

/// A position of the chain.
#[derive(Clone, Copy, Debug)]
struct Link {
    mark: Mark,
    time: Option<Timestamp>,
    /// Engine time from the beginning of the chain.
    elapsed: u64,
}

/// The marks and times of consecutive positions.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The position of the first link.
    first: Position,
    /// Invariant: never empty, at most [`LINKS_MAX`] links.
    links: VecDeque<Link>,
    /// The first position at which the node can decide which events are applied. The events of
    /// earlier positions are not shown to readers. `None` if the node cannot decide yet.
    shown_from: Option<Position>,
}

impl Chain {
    /// A chain that begins at `anchor`.
    pub(crate) fn new(anchor: Anchor) -> Self {
        let link = Link { mark: anchor.mark, time: anchor.time, elapsed: 0 };
        let is_origin = anchor.position == Position::ORIGIN;
        Self {
            first: anchor.position,
            links: [link].into(),
            shown_from: is_origin.then_some(Position::FIRST),
        }
    }

    /// Adds the next position.
    pub(crate) fn push(&mut self, mark: Mark, time: Timestamp, rules: &Rules) {
        let Link { time: earlier, elapsed, .. } = self.last_link();
        let elapsed = elapsed + earlier.map_or(0, |earlier| step(earlier, time, rules));
        self.links.push_back(Link { mark, time: Some(time), elapsed });
        // An entry that arrives from here on has expired if it was planned before the chain begins.
        if self.shown_from.is_none() && elapsed > rules.lifetime_ms() {
            self.shown_from = Some(self.last());
        }
        if self.links.len() > LINKS_MAX {
            self.links.pop_front();
            self.first = self.first.next();
        }
    }

    /// Sets the first shown position to the one that a cache has kept. A position after the next
    /// one is ignored, because a cut has removed it.
    pub(crate) fn show_from(&mut self, shown: Option<Position>) {
        let shown = shown.filter(|shown| *shown <= self.last().next());
        self.shown_from = shown.or(self.shown_from);
    }

    /// Removes all positions after `last`.
    pub(crate) fn cut_to(&mut self, last: Position) {
        let kept = last.since(self.first).saturating_add(1);
        self.links.truncate(usize::try_from(kept).unwrap_or(usize::MAX).max(1));
        self.shown_from = self.shown_from.filter(|shown| *shown <= last.next());
    }

    /// The first position of the chain.
    pub fn first(&self) -> Position {
        self.first
    }

    /// The last position of the chain.
    pub fn last(&self) -> Position {
        Position::new(self.first.get() + self.links.len() as u64 - 1)
    }

    /// The first position whose events are shown, if there is one.
    pub fn shown_from(&self) -> Option<Position> {
        self.shown_from
    }

    /// The mark of a position.
    pub fn mark(&self, position: Position) -> Option<Mark> {
        self.link(position).map(|link| link.mark)
    }

    /// The engine time between two positions of the chain, in milliseconds.
    pub(crate) fn elapsed(&self, from: Position, to: Position) -> Option<u64> {
        Some(self.link(to)?.elapsed.saturating_sub(self.link(from)?.elapsed))
    }

    /// The anchor, which is the position at which a window begins, for a window that can decide
    /// about all entries after the end of the chain.
    pub(crate) fn window_anchor(&self, rules: &Rules) -> Anchor {
        let end = self.last_link().elapsed;
        let is_needed = |link: &&Link| end - link.elapsed <= rules.lifetime_ms();
        let needed = self.links.iter().rev().take_while(is_needed).count() as u64;
        // The window begins one link before the needed ones, if the chain has that link. Entries
        // that were planned there have expired.
        let needed = needed.min(rules.positions_max).min(self.links.len() as u64 - 1);
        let position = Position::new(self.last().get() - needed);
        let link = self.link(position).copied().unwrap_or_else(|| self.last_link());
        Anchor { position, mark: link.mark, time: link.time }
    }

    fn link(&self, position: Position) -> Option<&Link> {
        let at = position.get().checked_sub(self.first.get())?;
        self.links.get(usize::try_from(at).ok()?)
    }

    fn last_link(&self) -> Link {
        let origin = Link { mark: Mark::ORIGIN, time: None, elapsed: 0 };
        self.links.back().copied().unwrap_or(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(anchor: Anchor, seconds: u64) -> Chain {
        let mut chain = Chain::new(anchor);
        for second in 1..=seconds {
            let time = Timestamp::from_millis(second * 1_000);
            chain.push(Mark::new(second), time, &Rules::default());
        }
        chain
    }

    fn middle() -> Anchor {
        let (position, mark) = (Position::new(7), Mark::new(0));
        Anchor { position, mark, time: Some(Timestamp::from_millis(0)) }
    }

    #[test]
    fn a_chain_from_the_middle_shows_nothing_until_a_lifetime_has_passed() {
        assert_eq!(chain(Anchor::ORIGIN, 1).shown_from(), Some(Position::FIRST));
        assert_eq!(chain(middle(), 15).shown_from(), None);
        assert_eq!(chain(middle(), 16).shown_from(), Some(Position::new(7 + 16)));
    }

    #[test]
    fn a_cut_removes_the_later_positions() {
        let mut chain = chain(middle(), 20);
        chain.cut_to(Position::new(10));
        assert_eq!((chain.first().get(), chain.last().get()), (7, 10));
        assert_eq!(chain.mark(Position::new(10)), Some(Mark::new(3)));
        assert_eq!(chain.mark(Position::new(11)), None);
        assert_eq!(chain.shown_from(), None);
    }

    #[test]
    fn a_window_begins_more_than_a_lifetime_before_the_end() {
        let chain = chain(middle(), 40);
        let anchor = chain.window_anchor(&Rules::default());
        assert_eq!(anchor.position, Position::new(47 - 16));
        assert_eq!(chain.elapsed(anchor.position, chain.last()), Some(16_000));
    }
}
