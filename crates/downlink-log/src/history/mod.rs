//! The whole log at a glance: the index, ages, eviction.

pub(crate) mod evict;
pub(crate) mod expiry;
pub(crate) mod index;
