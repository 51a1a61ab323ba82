//! Confirmation: which events of an entry are applied.

pub(crate) mod claims;
pub(crate) mod table;
#[allow(clippy::module_inception)]
pub(crate) mod window;
