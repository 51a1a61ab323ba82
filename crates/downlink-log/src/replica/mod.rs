//! A replica: a log that gets its events from another log, its upstream.
//!
//! The applier is the only writer of a replica. A program that follows the upstream gives the
//! chunks of the feed to the applier. Readers read a replica like any other log.

pub(crate) mod answers;
pub(crate) mod applier;
pub(crate) mod apply;
pub(crate) mod cached;
pub(crate) mod cut;
pub(crate) mod floors;
pub(crate) mod shared;

pub(crate) use applier::{Applier, Ending};
pub(crate) use apply::{Content, apply, apply_decoded};
pub(crate) use cached::{CacheSide, IDLE_MAX};
pub(crate) use cut::{cut, empty_cut, ids_from};
pub(crate) use floors::FloorsAhead;
pub(crate) use shared::{Life, ReplicaHandle, ReplicaShared};
