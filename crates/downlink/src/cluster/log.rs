//! The log of a node, which is a hub that is part of a cluster: applies the decisions of the node
//! to the log of its hub. An engine keeps the events of the cluster in one order, in a list of
//! positions.

use std::collections::VecDeque;

use downlink_cluster::{Applied, FedLog, HistoryStart, Plan, Position, Record, Refusal};
use downlink_log::{
    Floor, Offset, POSITION_OFFSETS, Timestamp,
    store::{FeedChunk, FeedStart, Link, Marks, NodeState},
};

use crate::hub::{HubApplier, NodeMessage};

/// The log of a hub that is a node of a cluster.
pub(super) struct ClusterLog<T: Send + Sync + 'static> {
    pub(super) applier: HubApplier<T>,
    /// Messages between nodes that were applied, oldest first. The node reads no further entries
    /// while there are any, so these are at most the messages of 256 entries.
    pub(super) messages: VecDeque<NodeMessage>,
    /// Whether the node shows events to readers. It begins to do so when it has reached the end
    /// that the engine's list had when the node started.
    pub(super) is_live: bool,
    /// When the hub was made.
    made: Timestamp,
    /// A floor is an offset below which events may be missing. If the cluster grew from a single
    /// server, the node has no event of this server, so all addresses begin with this floor.
    first_floor: Option<Offset>,
}

impl<T: Send + Sync + 'static> ClusterLog<T> {
    pub(super) fn new(applier: HubApplier<T>, made: Timestamp) -> Self {
        Self { applier, messages: VecDeque::new(), is_live: false, made, first_floor: None }
    }
}

impl<T: Send + Sync + 'static> FedLog for ClusterLog<T> {
    fn plan(&mut self, records: &[Record]) -> Result<Plan, Refusal> {
        self.applier.plan(records)
    }

    fn apply(&mut self, applied: Applied) {
        let Applied { position, first, mark, time, is_shown, mut events, state, lost_ends } =
            applied;
        events.retain(|event| {
            match NodeMessage::of(event, self.is_live || event.at >= self.made) {
                Some(message) => {
                    self.messages.push_back(message);
                    false
                }
                None => true,
            }
        });
        let now = self.applier.now();
        // The clock of the node that published an event may be ahead. Without this limit, the event
        // would be kept for longer than the events of other nodes.
        events.iter_mut().for_each(|event| event.at = event.at.min(now));
        let (base, next) = span(first, position);
        // If the node does not show a position, it does not know which events of the position
        // count.
        let floor = Floor { offset: next, at: now };
        let first_floor = self.first_floor.take();
        let first_floor = first_floor.map_or(Floor::NONE, |offset| Floor { offset, at: now });
        let chunk = FeedChunk {
            floors: Vec::new(),
            others: if is_shown { first_floor } else { floor },
            events,
            next,
            clock: self.applier.clock(),
            marks: Marks { base, first: position.get(), marks: vec![mark.in_log()] },
            node: Some(NodeState {
                hub: state,
                links: vec![Link { position: position.get(), mark: mark.get(), time }],
            }),
        };
        // If the cache fails, the log of a node goes on in memory.
        let _ = self.applier.apply_here(chunk);
        if let Some(ends) = lost_ends {
            self.applier.set_lost_ends(ends);
        }
    }

    fn cut_to(&mut self, _: Position, removed_from: Offset) -> Vec<Box<str>> {
        self.applier.cut_to(removed_from)
    }

    fn restart(&mut self, start: Option<&HistoryStart>) {
        // A log without a history has nothing to remove. Its readers wait for the start.
        if start.is_none() && self.applier.position().is_none() {
            return;
        }
        let grown = start.filter(|start| !start.epochs.is_empty());
        self.first_floor = grown.map(|start| Offset::new(start.first.get() - POSITION_OFFSETS));
        let (epochs, from) =
            start.map_or((Vec::new(), Offset::FIRST), |start| (start.epochs.clone(), start.first));
        self.applier.begin(FeedStart { epochs, from, resumed: false });
    }

    fn has_cache(&self) -> bool {
        self.applier.has_cache()
    }

    fn publisher_id(&mut self, id: &str) -> Option<Offset> {
        self.applier.publisher_id(id)
    }
}

/// The offset of position 0, and the end of a position that begins at `first`. An engine may give a
/// position for which there is no offset any more. The results are then the nearest offsets.
fn span(first: Offset, position: Position) -> (u64, Offset) {
    let above = position.get().saturating_mul(POSITION_OFFSETS);
    let end = first.get().saturating_add(POSITION_OFFSETS);
    (first.get().saturating_sub(above), Offset::new(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_beyond_all_offsets_does_not_overflow() {
        let (base, next) = span(Offset::new(77 + 3 * POSITION_OFFSETS), Position::new(3));
        assert_eq!((base, next), (77, Offset::new(77 + 4 * POSITION_OFFSETS)));
        let beyond = span(Offset::new(u64::MAX), Position::new(u64::MAX));
        assert_eq!(beyond, (0, Offset::new(u64::MAX)));
    }
}
