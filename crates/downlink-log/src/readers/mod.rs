//! Readers of topics: lists, patterns, wake-ups.

pub(crate) mod gathered;
pub(crate) mod patterns;
pub(crate) mod wake;
pub(crate) mod wakes;
pub(crate) mod watcher;
