//! The known forks: the places at which the engine has lost entries.
//!
//! Safety does not depend on forks, because the mark in an id tells whether the id belongs to the
//! history. If a node knows the fork, a reader with the id of a lost event continues at the fork.
//! Otherwise the reader starts again at the oldest event.

use crate::{
    entry::Fork,
    position::Position,
    wire::{ENTRY_BYTES_MAX, FORKS_MAX},
};

/// The maximum number of bytes of the ids of all forks. The forks are part of a snapshot, which has
/// to fit into one entry. The ids of one fork take at most about a quarter of these bytes.
pub(crate) const FORKS_ID_BYTES_MAX: usize = ENTRY_BYTES_MAX / 2;

/// The encoded bytes of the ids of a fork. The length of an id takes at most two bytes.
fn id_bytes(fork: &Fork) -> usize {
    fork.ids.iter().map(|id| id.len() + 2).sum()
}

/// The forks in the order in which the node learned them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forks(Vec<Fork>);

impl Forks {
    /// Adds a fork, and returns whether it was not known. If there are too many forks, the two
    /// oldest become one. If they have too many ids, the oldest ids are forgotten.
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
        let mut bytes = self.0.iter().map(id_bytes).sum::<usize>();
        for fork in &mut self.0 {
            if bytes <= FORKS_ID_BYTES_MAX {
                break;
            }
            bytes -= id_bytes(fork);
            fork.ids.clear();
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
    use crate::{
        entry::{Control, Entry, EntryName, HubId, Snapshot, WriterId},
        mark::{HubKey, Mark},
        position::Base,
        wire::{FORK_IDS_MAX, ID_BYTES_MAX},
    };

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

    /// Engines take entries of at least 900 KiB.
    #[test]
    fn a_snapshot_and_two_forks_with_the_longest_lists_of_ids_fit_into_an_entry() {
        let mut forks = Forks::default();
        let ids = |at: u64| (0..FORK_IDS_MAX).map(move |id| format!("{at:0>64}-{id:0>63}").into());
        for at in 1..=FORKS_MAX as u64 {
            let (at, until) = (Position::new(at), Position::new(at + 1));
            forks.add(&Fork { at, until, ids: ids(at.get()).collect() });
        }
        let newest = forks.0.last().unwrap();
        assert_eq!((newest.ids.len(), newest.ids[0].len()), (FORK_IDS_MAX, ID_BYTES_MAX));
        assert_eq!(forks.0.first().unwrap().ids.len(), 0);
        let key = HubKey::from_random([1; 16]);
        let snapshot =
            Snapshot { key, base: Base::NONE, epochs: Vec::new(), forks: forks.to_vec() };
        let entry = Entry {
            hub: HubId([1; 16]),
            name: EntryName { writer: WriterId(1), counter: 0 },
            seen: Position::ORIGIN,
            seen_mark: Mark::ORIGIN,
            groups: Vec::new(),
            controls: {
                let newest = forks.0[FORKS_MAX - 2..].iter().cloned().map(Control::Fork);
                newest.chain([Control::Snapshot(snapshot)]).collect()
            },
        };
        let bytes = entry.encode(900 << 10).map(|bytes| bytes.len());
        assert!(bytes.is_ok(), "{bytes:?}");
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
