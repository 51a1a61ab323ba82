//! Readers as publishers see them: lists, and wake-ups.

pub(crate) mod list;
pub(crate) mod state;
pub(crate) mod wake;
