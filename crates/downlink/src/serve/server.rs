//! The state that all connections of a server share, and the permits that they hold.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::addresses::{AddressKey, PeerAddr};
use super::direct::DirectStreams;
use super::drain::Drain;
use super::limits::ServeLimits;
use super::peers::{Excess, Peers};
use super::stats::ServeStats;

/// The state that all connections of a server share.
pub(super) struct Server {
    pub(super) limits: ServeLimits,
    /// The paths for which the app answers even connections beyond a limit.
    pub(super) answered_at_limit: Vec<String>,
    pub(super) drain: Arc<Drain>,
    /// The streams that drivers serve. A driver is a task that writes event streams without hyper
    /// (see `direct`).
    pub(super) streams: DirectStreams,
    /// The permits that are left. The server has `connections_max` permits in total.
    pub(super) permits: Semaphore,
    /// The limits for each peer address.
    pub(super) peers: Peers,
    /// The permits to answer connections that exceed a limit of their address.
    pub(super) address_refusals: Arc<Semaphore>,
    pub(super) stats: ServeStats,
}

/// The peer of an open connection, and the server. While this value exists, the connection counts
/// for the limits of the peer's address.
///
/// All connections to which no limit for an address applies share one `AdmittedPeer`. So while the
/// limits for each address are off, a connection needs no memory for them.
pub(super) struct AdmittedPeer {
    pub(super) server: Arc<Server>,
    counted: Option<AddressKey>,
    /// The address of the client that a proxy has named.
    pub(super) client: Option<PeerAddr>,
}

/// The permit of one open connection. Dropping the permit allows another connection.
pub(super) struct Permit(pub(super) Arc<AdmittedPeer>);

const _: () = assert!(size_of::<Permit>() == size_of::<usize>(), "a permit is one pointer");

impl AdmittedPeer {
    /// Makes the value for the connections to which no limit for an address applies. All these
    /// connections share it.
    pub(super) fn of_all(server: Arc<Server>) -> Self {
        Self { server, counted: None, client: None }
    }

    /// Counts a connection for the address of its peer.
    ///
    /// # Errors
    ///
    /// The limit that the connection exceeds.
    pub(super) fn count(self: &Arc<Self>, peer: PeerAddr) -> Result<Arc<Self>, Excess> {
        Ok(match self.server.peers.enter(peer)? {
            None => Arc::clone(self),
            counted => Arc::new(Self { server: Arc::clone(&self.server), counted, client: None }),
        })
    }

    /// Counts a connection for the client that a proxy has named.
    ///
    /// # Errors
    ///
    /// The limit that the connection exceeds.
    pub(super) fn count_client(&self, client: PeerAddr) -> Result<Arc<Self>, Excess> {
        let counted = self.server.peers.enter(client)?;
        let server = Arc::clone(&self.server);
        Ok(Arc::new(Self { server, counted, client: Some(client) }))
    }
}

impl Drop for AdmittedPeer {
    fn drop(&mut self) {
        if let Some(key) = self.counted {
            self.server.peers.leave(key);
        }
    }
}

impl Permit {
    /// Takes a permit for a new connection, if one is left.
    pub(super) fn take(peer: Arc<AdmittedPeer>) -> Option<Self> {
        peer.server.permits.try_acquire().ok()?.forget();
        peer.server.stats.note_open();
        Some(Self(peer))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.server.stats.note_closed();
        self.0.server.permits.add_permits(1);
    }
}
