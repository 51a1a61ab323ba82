//! Confirmation: which events of an entry are applied.

pub(crate) mod claims;
pub(crate) mod table;
#[expect(clippy::module_inception, reason = "the file defines the type of this name")]
pub(crate) mod window;
