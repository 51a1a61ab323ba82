//! The way through a store.

pub(crate) mod crowd;
pub(crate) mod durable;
pub(crate) mod install;
pub(crate) mod queue;
pub(crate) mod ticket;
pub(crate) mod writer;
