//! The feed of a log: everything that the log has, and then every event that is appended, for
//! another log that follows this one.

#[expect(clippy::module_inception, reason = "the type that owns the parts of this folder")]
pub(crate) mod feed;
pub(crate) mod scan;

pub use feed::{Behind, Feed};
pub(crate) use scan::{Scan, scan};
