//! The state that all connections of a server share, and the permits that they hold.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::direct::DirectStreams;
use super::drain::Drain;
use super::limits::ServeLimits;

/// See the module.
pub(super) struct Server {
    pub(super) limits: ServeLimits,
    /// Paths that a newcomer beyond `connections_max` may ask for.
    pub(super) answered_at_limit: Vec<String>,
    pub(super) drain: Arc<Drain>,
    /// The streams that drivers serve.
    pub(super) streams: DirectStreams,
    /// A permit for each of `connections_max`.
    pub(super) permits: Semaphore,
}

/// The permit of one connection, one of `connections_max`. Given back when it is dropped.
pub(super) struct Permit(pub(super) Arc<Server>);

impl Server {
    /// A permit for a newcomer, if one is left.
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
