//! The state that all connections of a server share, and the places that they take.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::direct::Streams;
use super::drain::Drain;
use super::limits::Limits;

/// See the module.
pub(super) struct Server {
    pub(super) limits: Limits,
    /// Paths that a newcomer beyond `connections_max` may ask for.
    pub(super) answered_at_limit: Vec<String>,
    pub(super) drain: Arc<Drain>,
    /// The streams that drivers serve.
    pub(super) streams: Streams,
    /// A permit for each of `connections_max`.
    pub(super) places: Semaphore,
}

/// The place of one connection among `connections_max`, free again when it is dropped.
pub(super) struct Place(pub(super) Arc<Server>);

impl Server {
    /// A place for a newcomer, if one is free.
    pub(super) fn place(self: &Arc<Self>) -> Option<Place> {
        self.places.try_acquire().ok()?.forget();
        Some(Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.add_permits(1);
    }
}
