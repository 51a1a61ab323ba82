//! What a node tells its readers, and its state for operators.

use std::time::Duration;

use downlink_log::{Cursor, GapReason, Offset, Timestamp};

use crate::{
    fed_log::FedLog,
    node::{history::Found, node::Node, peers::Peer, request::Resume, settings::NodeStatus},
    position::Position,
    rules::Mutant,
};

/// The maximum time for which a reader waits for an answer about an id that is ahead of the node.
pub const READER_WAITS_MAX: Duration = Duration::from_secs(10);

impl<L: FedLog> Node<L> {
    /// Where the reader of an id continues. `since` is the time at which the reader asked first.
    pub fn resume(&mut self, now: Timestamp, id: &Cursor, since: Timestamp) -> Resume {
        let Some(history) = self.history.as_ref().filter(|_| self.serves_readers()) else {
            return Resume::Unavailable;
        };
        match history.resume(id, &self.settings.rules) {
            Found::Ahead(position) => {
                let lost = history.lost(position, GapReason::Lost);
                self.resume_ahead(now, lost, since)
            }
            found => found.into(),
        }
    }

    /// Where the reader of a publisher's id continues.
    pub fn resume_after_publisher_id(
        &mut self,
        now: Timestamp,
        id: &str,
        since: Timestamp,
    ) -> Resume {
        let serves_readers = self.serves_readers();
        let Some(history) = self.history.as_ref().filter(|_| serves_readers) else {
            return Resume::Unavailable;
        };
        if let Some(fork) = history.lost_id(id) {
            return history.lost_after(fork).into();
        }
        if let Some(offset) = self.log.publisher_id(id) {
            return Resume::After(offset);
        }
        let unknown = history.unknown_id();
        self.resume_ahead(now, unknown, since)
    }

    /// The answer for an id that the node does not know yet. The id may come from a node that is
    /// ahead of this one. So after the reader has asked, this node asks the journal for its end. It
    /// returns `unknown` only when it has read everything up to this end.
    fn resume_ahead(&mut self, now: Timestamp, unknown: Found, since: Timestamp) -> Resume {
        let last = self.history.as_ref().map_or(Position::ORIGIN, |history| history.chain.last());
        let end = self.ends.last_since(since);
        if end.is_some_and(|end| end <= last) || self.settings.rules.has(Mutant::AheadIsLost) {
            return unknown.into();
        }
        if now >= since.after(READER_WAITS_MAX) {
            return Resume::Unavailable;
        }
        if end.is_none() {
            self.requests.extend(self.ends.ask(now));
        }
        Resume::Wait
    }

    /// Whether the node has read everything that the journal had at the time `since`. If the node
    /// has not asked the journal for its end since then, it asks now, and this method returns
    /// false. The caller calls the method again after the node has got further input.
    pub fn has_everything_since(&mut self, now: Timestamp, since: Timestamp) -> bool {
        let last = self.history.as_ref().map_or(Position::ORIGIN, |history| history.chain.last());
        match self.ends.last_since(since) {
            Some(end) => self.serves_readers() && end <= last,
            None => {
                self.requests.extend(self.ends.ask(now));
                false
            }
        }
    }

    /// The state of the node, for metrics and operators.
    pub fn status(&self) -> NodeStatus {
        let last = self.history.as_ref().map_or(Position::ORIGIN, |history| history.chain.last());
        NodeStatus {
            position: last,
            behind: self.ends.behind(last),
            serves_readers: self.serves_readers(),
            takes_publishes: self.takes_publishes(),
            oldest_age: self.oldest_age(),
            too_new: self.peers.too_new(),
            fork: self.history.as_ref().and_then(|history| history.hub.forks.newest()),
            totals: self.totals,
        }
    }

    /// The live nodes of the cluster, this one included.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.list()
    }

    fn oldest_age(&self) -> Option<Duration> {
        let chain = &self.history.as_ref()?.chain;
        let first = self.ends.first()?.max(chain.first());
        chain.elapsed(first, chain.last()).map(Duration::from_millis)
    }

    /// The id of the event with this offset.
    pub fn id(&self, offset: Offset) -> Option<Cursor> {
        self.history.as_ref()?.id(offset, &self.settings.rules)
    }
}
