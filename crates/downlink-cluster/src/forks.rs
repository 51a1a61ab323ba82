//! The known forks: the places at which the engine has lost entries.
//!
//! Safety does not depend on forks, because marks alone tell whether an id belongs to the history.
//! With a fork record, a reader continues at the fork. Without it, the reader starts again at the
//! oldest event.

use crate::{entry::Fork, position::Position, wire::FORKS_MAX};

/// The forks in the order in which the node learned them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forks(Vec<Fork>);

impl Forks {
    /// Adds a fork, and returns whether it was not known. If there are too many forks, the two
    /// oldest become one.
    pub(crate) fn add(&mut self, fork: &Fork) -> bool {
        if self.0.iter().any(|known| known.at == fork.at && known.until == fork.until) {
            return false;
        }
        self.0.push(fork.clone());
        if self.0.len() > FORKS_MAX {
            let oldest = self.0.remove(0);
            if let Some(second) = self.0.first_mut() {
                second.at = second.at.min(oldest.at);
                second.until = second.until.max(oldest.until);
            }
        }
        true
    }

    /// Whether this fork is known.
    pub(crate) fn contains(&self, fork: &Fork) -> bool {
        self.0.iter().any(|known| known.at <= fork.at && known.until >= fork.until)
    }

    /// The lowest fork before a position.
    pub(crate) fn lowest_before(&self, position: Position) -> Option<Position> {
        self.0.iter().map(|fork| fork.at).filter(|at| *at < position).min()
    }

    /// The lowest fork at which an event with this publisher's id was lost.
    pub(crate) fn lost_id(&self, id: &str) -> Option<Position> {
        let lost = self.0.iter().filter(|fork| fork.ids.iter().any(|lost| **lost == *id));
        lost.map(|fork| fork.at).min()
    }

    /// The fork that the node has learned last.
    pub(crate) fn newest(&self) -> Option<Position> {
        self.0.last().map(|fork| fork.at)
    }

    pub(crate) fn to_vec(&self) -> Vec<Fork> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fork(at: u64, until: u64) -> Fork {
        Fork { at: Position::new(at), until: Position::new(until), ids: vec!["a".into()] }
    }

    #[test]
    fn the_lowest_fork_before_a_position_is_found() {
        let mut forks = Forks::default();
        [fork(9, 12), fork(5, 7), fork(5, 7)].iter().for_each(|fork| _ = forks.add(fork));
        assert_eq!(forks.to_vec().len(), 2);
        assert_eq!(forks.lowest_before(Position::new(5)), None);
        assert_eq!(forks.lowest_before(Position::new(6)), Some(Position::new(5)));
        assert_eq!(forks.lowest_before(Position::new(12)), Some(Position::new(5)));
        assert_eq!((forks.lost_id("a"), forks.lost_id("b")), (Some(Position::new(5)), None));
    }

    #[test]
    fn the_oldest_forks_are_merged_when_there_are_too_many() {
        let mut forks = Forks::default();
        for at in 1..=FORKS_MAX as u64 + 1 {
            assert!(forks.add(&fork(at, at + 1)));
        }
        assert_eq!(forks.to_vec().len(), FORKS_MAX);
        assert_eq!(forks.lowest_before(Position::new(2)), Some(Position::FIRST));
    }
}
