//! The parts of the answer to a publish whose event a replica has applied. A replica is a log that
//! copies another log.

use smallvec::SmallVec;

use crate::history::EventTopics;
use crate::patterns::Matching;
use crate::replica::Applier;
use crate::sequence::matched;
use crate::types::{Address, Cursor, Limits, Offset, Payload};

impl<P: Payload> Applier<P> {
    /// The id of the event with this offset, as a cursor.
    pub fn id_of(&self, offset: Offset) -> Cursor {
        self.shared().core().ids.id_of(offset.get())
    }

    /// Whether the replica has a cache. It drops a cache that fails.
    pub fn has_cache(&self) -> bool {
        self.cache.is_some()
    }

    /// The limits of the log.
    pub fn limits(&self) -> &Limits {
        &self.shared().options.limits
    }

    /// The number of distinct readers that select one of these addresses now. `offset` is the
    /// offset of the newest event that was applied to these addresses. Topics that have neither
    /// events nor readers are not counted.
    pub fn matched<'a>(&self, to: impl IntoIterator<Item = &'a Address>, offset: Offset) -> usize {
        let core = self.shared().core();
        let mut topics: EventTopics<P> =
            to.into_iter().filter_map(|address| core.history.topics.find(address)).collect();
        topics.sort_unstable_by_key(|topic| topic.identity());
        topics.dedup_by_key(|topic| topic.identity());
        let held = core.history.patterns.hold();
        let patterns: SmallVec<[Matching<P>; 1]> =
            topics.iter().map(|topic| held.matching(topic)).collect();
        matched(&topics, &patterns, offset.get())
    }
}
