//! The state that all connections of a server share, and the permits that they hold.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::direct::DirectStreams;
use super::drain::Drain;
use super::limits::ServeLimits;

/// The state that all connections of a server share.
pub(super) struct Server {
    pub(super) limits: ServeLimits,
    /// The paths for which the app answers even connections beyond `connections_max`.
    pub(super) answered_at_limit: Vec<String>,
    pub(super) drain: Arc<Drain>,
    /// The streams that drivers serve. A driver is a task that writes event streams without hyper
    /// (see `direct`).
    pub(super) streams: DirectStreams,
    /// The permits that are left. There are `connections_max` of them in total.
    pub(super) permits: Semaphore,
}

/// The permit of one open connection. Dropping the permit allows another connection.
pub(super) struct Permit(pub(super) Arc<Server>);

impl Server {
    /// Takes a permit for a new connection, if one is left.
    pub(super) fn try_permit(self: &Arc<Self>) -> Option<Permit> {
        self.permits.try_acquire().ok()?.forget();
        Some(Permit(Arc::clone(self)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.permits.add_permits(1);
    }
}
