//! The live nodes of the cluster, as far as a node knows them from their heartbeats.

use std::{collections::BTreeMap, time::Duration};

use downlink_log::Timestamp;

use crate::{
    entry::{Control, Entry, FORMAT_VERSION, Heartbeat, WriterId},
    position::Position,
};

/// The time after which a node without a heartbeat is no longer listed.
pub const NODE_AWAY_AFTER: Duration = Duration::from_secs(10);

/// The maximum number of nodes that are listed. Beyond some ten nodes, a cluster should use relays.
const PEERS_MAX: usize = 64;

/// A live node of the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Peer {
    /// The name that its operator has chosen.
    pub name: Box<str>,
    /// The last position that it had applied when it sent the heartbeat.
    pub applied: Position,
    /// The position of the heartbeat.
    pub position: Position,
    /// The highest version that it can decode.
    pub version_max: u16,
    /// A hash of its retention rules.
    pub retention: u64,
    /// Whether it has a cache.
    pub has_cache: bool,
}

/// The live nodes, by their writers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    peers: BTreeMap<WriterId, (Timestamp, Peer)>,
    /// The version of the cluster, if this node cannot decode it.
    too_new: Option<u16>,
}

impl Peers {
    /// Reads the control records of an applied entry. `is_live` says whether the node has caught up
    /// with the journal. Until then, the heartbeats that it reads are old, so it ignores them.
    pub(crate) fn read(
        &mut self,
        now: Timestamp,
        entry: &Entry,
        position: Position,
        is_live: bool,
    ) {
        for control in &entry.controls {
            match control {
                Control::Heartbeat(heartbeat) if is_live => {
                    let Heartbeat { applied, version_max, retention, has_cache, node } =
                        heartbeat.clone();
                    let name = node;
                    let peer = Peer { name, applied, position, version_max, retention, has_cache };
                    self.peers.insert(entry.name.writer, (now, peer));
                    // A node that starts again has another writer, so its earlier peer is removed.
                    let name = heartbeat.node.clone();
                    let writer = entry.name.writer;
                    self.peers.retain(|of, (_, peer)| *of == writer || peer.name != name);
                }
                Control::Version(version) => self.note_version(*version),
                _ => {}
            }
        }
        while self.peers.len() > PEERS_MAX {
            self.peers.pop_first();
        }
    }

    /// Notes the version of an entry of the hub.
    pub(crate) fn note_version(&mut self, version: u16) {
        if version > FORMAT_VERSION {
            self.too_new = self.too_new.max(Some(version));
        }
    }

    /// The version of the cluster, if this node cannot decode it.
    pub(crate) fn too_new(&self) -> Option<u16> {
        self.too_new
    }

    /// Forgets the nodes that are away.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        self.peers.retain(|_, (heard, _)| heard.after(NODE_AWAY_AFTER) > now);
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values().map(|(_, peer)| peer)
    }
}
