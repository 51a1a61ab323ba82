//! From drafts to offsets.

pub(crate) mod append;
pub(crate) mod given;
pub(crate) mod plan;
