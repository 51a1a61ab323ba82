//! A node: reads the journal, decides, applies, and appends the events of its publishers.

pub(crate) mod anchoring;
pub(crate) mod compare;
pub(crate) mod ends;
pub(crate) mod history;
#[expect(clippy::module_inception, reason = "the file defines the type of this name")]
pub(crate) mod node;
pub(crate) mod outbox;
pub(crate) mod peers;
pub(crate) mod phase;
pub(crate) mod publish;
pub(crate) mod publishing;
pub(crate) mod readers;
pub(crate) mod request;
pub(crate) mod settings;
pub(crate) mod state;
pub(crate) mod suspicion;
