//! Reading: where a reader begins, and what it gets.

pub(crate) mod merge;
pub(crate) mod next;
pub(crate) mod open;
pub(crate) mod overview;
pub(crate) mod reader;
pub(crate) mod reader_over_store;
pub(crate) mod replay;
pub(crate) mod start;
pub(crate) mod stored_start;
