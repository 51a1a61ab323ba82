//! A node: reads the journal, decides, applies, and appends the events of its publishers.

pub(crate) mod compare;
pub(crate) mod history;
pub(crate) mod outbox;
pub(crate) mod publish;
#[allow(clippy::module_inception)]
pub(crate) mod node;
