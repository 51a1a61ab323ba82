//! The log of a node: applies what the node has decided to the log of a hub.

use downlink_cluster::{Applied, FedLog, Plan, Position, Record, Refusal};
use downlink_log::{
    Floor, Offset, POSITION_OFFSETS,
    store::{FeedChunk, FeedStart, Marks},
};

use crate::hub::HubApplier;

/// The log of a hub that is a node of a cluster.
pub(super) struct ClusterLog<T: Send + Sync + 'static> {
    pub(super) applier: HubApplier<T>,
}

impl<T: Send + Sync + 'static> FedLog for ClusterLog<T> {
    fn plan(&mut self, records: &[Record]) -> Result<Plan, Refusal> {
        self.applier.plan(records)
    }

    fn apply(&mut self, applied: Applied) {
        let Applied { position, first, mark, time, mut events, .. } = applied;
        let now = self.applier.now();
        // A writer with a clock that is ahead must not keep its events for longer than all others.
        events.iter_mut().for_each(|event| event.at = event.at.min(now));
        let is_next = self.applier.position().is_some_and(|position| position.next == first);
        let floor = Floor { offset: first, at: time };
        let chunk = FeedChunk {
            floors: Vec::new(),
            others: if is_next { Floor::NONE } else { floor },
            events,
            next: Offset::new(first.get() + POSITION_OFFSETS),
            clock: self.applier.clock(),
            marks: Marks {
                base: first.get() - position.get() * POSITION_OFFSETS,
                first: position.get(),
                marks: vec![mark.in_log()],
            },
        };
        self.applier.apply_here(chunk);
    }

    fn cut_to(&mut self, _: Position, removed_from: Offset) -> Vec<Box<str>> {
        self.applier.cut_to(removed_from)
    }

    fn restart(&mut self) {
        let start = FeedStart { epochs: Vec::new(), from: Offset::FIRST, resumed: false };
        self.applier.begin(start);
    }

    fn publisher_id(&self, id: &str) -> Option<Offset> {
        self.applier.publisher_id(id)
    }
}
