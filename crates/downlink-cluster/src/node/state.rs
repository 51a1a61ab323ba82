//! The state of a history as bytes, for the cache of a log.
//!
//! The cache keeps these bytes, and one link for each applied position. The bytes change rarely:
//! they contain the hub's key, base, epochs and forks, the anchor, the first shown position and the
//! identity of the journal. They are a format of the cache only, so a version that does not know
//! them begins without the cache.

use downlink_log::{Timestamp, store::Link};
use serde::{Deserialize, Serialize};

use crate::{
    entry::Snapshot,
    journal::JournalId,
    mark::Mark,
    node::history::{History, HubState, Unsaved},
    position::Position,
    rules::Rules,
    window::window::Anchor,
    wire::{ENTRY_BYTES_MAX, Input, put, put_snapshot},
};

/// The version of the bytes.
const STATE_VERSION: u8 = 1;

/// The maximum number of bytes of a state. The ids of lost events take at most half of them. The
/// epochs and the rest of the forks take much less than the other half.
pub const STATE_BYTES_MAX: usize = ENTRY_BYTES_MAX;

#[derive(Deserialize, Serialize)]
struct StateHead {
    version: u8,
    journal: u64,
    anchor: Position,
    anchor_mark: Mark,
    anchor_time: Option<u64>,
    shown_from: Option<Position>,
}

impl History {
    /// The state of the hub and of this history as bytes. Together with the links of the positions,
    /// it is enough to [restore](Self::restore) the history.
    pub fn state(&self) -> Vec<u8> {
        let Anchor { position, mark, time } = self.anchor;
        let head = StateHead {
            version: STATE_VERSION,
            journal: self.journal.0,
            anchor: position,
            anchor_mark: mark,
            anchor_time: time.map(Timestamp::as_millis),
            shown_from: self.chain.shown_from(),
        };
        let mut bytes = Vec::new();
        put(&mut bytes, &head);
        put_snapshot(&mut bytes, &self.hub.snapshot());
        bytes
    }

    /// The history of a hub with this snapshot that has no entry yet. A hub can grow from a single
    /// node. The cache with the events of that node then keeps the [`state`](Self::state) of this
    /// history.
    pub fn before_first_entry(snapshot: &Snapshot) -> Self {
        Self::new(HubState::new(snapshot), Anchor::ORIGIN, JournalId(0))
    }

    /// The history that a cache has kept. `links` are the newest applied positions, oldest first.
    /// The state may be older than the newest link. `None` if another version has made the state,
    /// if the bytes are damaged, or if a link is missing.
    pub fn restore(
        rules: &Rules,
        state: &[u8],
        links: impl IntoIterator<Item = Link>,
    ) -> Option<Self> {
        if state.len() > STATE_BYTES_MAX {
            return None;
        }
        let mut input = Input::new(state);
        let head: StateHead =
            input.take().ok().filter(|head: &StateHead| head.version == STATE_VERSION)?;
        let snapshot: Snapshot = input.snapshot().ok()?;
        input.end().ok()?;
        let time = head.anchor_time.map(Timestamp::from_millis);
        let anchor = Anchor { position: head.anchor, mark: head.anchor_mark, time };
        let mut links = links.into_iter().peekable();
        // The anchor is the link before the first applied position. If the cache has trimmed the
        // first applied position, the history begins at the oldest link that is left. Before the
        // first entry of the hub, there is no link.
        let first = links.peek().map(|link| link.position);
        let has_anchor = first.map_or(anchor.position == Position::ORIGIN, |first| {
            first == anchor.position.next().get()
        });
        let begin = if has_anchor {
            anchor
        } else {
            let Link { position, mark, time } = links.next()?;
            Anchor { position: Position::new(position), mark: Mark::new(mark), time: Some(time) }
        };
        let mut history = Self::new(HubState::new(&snapshot), begin, JournalId(head.journal));
        history.anchor = anchor;
        for Link { position, mark, time } in links {
            if position != history.chain.last().next().get() {
                return None;
            }
            history.chain.push(Mark::new(mark), time, rules);
        }
        history.chain.show_from(head.shown_from);
        history.unsaved = Unsaved { state: false, forks: true };
        Some(history)
    }
}

#[cfg(test)]
mod tests {
    use downlink_log::{Epoch, Offset};

    use super::*;
    use crate::{entry::Fork, mark::HubKey, position::Base};

    fn link(position: u64) -> Link {
        let time = Timestamp::from_millis(position * 1_000);
        Link { position, mark: (1 << 60) + position, time }
    }

    /// A history with `count` positions after `anchor`.
    fn history(anchor: Anchor, count: u64) -> History {
        let snapshot = Snapshot {
            key: HubKey::from_random([3; 16]),
            base: Base::above(Offset::new(77)),
            epochs: vec![(Epoch::from_random(5), Offset::FIRST)],
            forks: vec![Fork {
                at: Position::new(4),
                until: Position::new(6),
                ids: vec!["x".into()],
            }],
        };
        let mut history = History::new(HubState::new(&snapshot), anchor, JournalId(9));
        for position in anchor.position.get() + 1..=anchor.position.get() + count {
            let Link { mark, time, .. } = link(position);
            history.push(Mark::new(mark), time, &Rules::default());
        }
        history
    }

    fn middle() -> Anchor {
        let time = Some(Timestamp::from_millis(7_000));
        Anchor { position: Position::new(7), mark: Mark::new(70), time }
    }

    /// The parts of a history that decide about entries and readers.
    fn parts(history: &History) -> String {
        let History { hub, chain, journal, anchor, .. } = history;
        let window = chain.window_anchor(&Rules::default());
        let ends = (chain.first(), chain.last(), chain.mark(chain.last()), chain.shown_from());
        format!("{hub:?} {ends:?} {window:?} {journal:?} {anchor:?}")
    }

    fn restored(state: &[u8], links: impl IntoIterator<Item = Link>) -> Option<History> {
        History::restore(&Rules::default(), state, links)
    }

    #[test]
    fn a_history_is_restored_from_its_state_and_links() {
        for (anchor, first) in [(Anchor::ORIGIN, 1), (middle(), 8)] {
            let history = history(anchor, 40);
            let restored = restored(&history.state(), (first..first + 40).map(link)).unwrap();
            assert_eq!(parts(&restored), parts(&history));
            assert_eq!(restored.lost_ends(), history.lost_ends());
        }
    }

    #[test]
    fn a_history_without_its_oldest_links_begins_at_the_oldest_that_is_left() {
        let history = history(Anchor::ORIGIN, 40);
        let restored = restored(&history.state(), (5..=40).map(link)).unwrap();
        let chain = restored.chain();
        assert_eq!((chain.first(), chain.last()), (Position::new(5), Position::new(40)));
        assert_eq!(chain.shown_from(), Some(Position::FIRST));
        assert_eq!(chain.mark(Position::new(5)), history.chain().mark(Position::new(5)));
    }

    /// A power cut takes the newest positions. The state that was kept with them is lost too.
    #[test]
    fn a_history_that_has_lost_its_end_is_restored_as_it_was_before() {
        let (early, late) = (history(middle(), 10), history(middle(), 40));
        let restored_early = restored(&early.state(), (8..=17).map(link)).unwrap();
        assert_eq!(parts(&restored_early), parts(&early));
        assert_eq!(restored_early.chain().shown_from(), None);
        // After a cut, the cache still has the newer state.
        let cut = restored(&late.state(), (8..=17).map(link)).unwrap();
        assert_eq!(cut.chain().shown_from(), None);
    }

    #[test]
    fn damaged_states_and_missing_links_are_refused() {
        let state = history(middle(), 40).state();
        let links = || (8..=47).map(link);
        assert!(restored(&state, links().filter(|link| link.position != 20)).is_none());
        assert!(restored(&state, []).is_none());
        assert!(restored(&[], links()).is_none());
        assert!(restored(&vec![STATE_VERSION; STATE_BYTES_MAX + 1], links()).is_none());
        let mut other = state.clone();
        other[0] += 1;
        assert!(restored(&other, links()).is_none());
        for len in 0..state.len() {
            assert!(restored(&state[..len], links()).is_none(), "{len} bytes");
        }
        assert!(restored(&[&state[..], &[0]].concat(), links()).is_none());
    }
}
