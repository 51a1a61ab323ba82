//! From drafts to events: what is new, which offset it gets, and its way into history.

pub(crate) mod batch;
pub(crate) mod decode;
pub(crate) mod draft;
pub(crate) mod ids;
pub(crate) mod keys;
pub(crate) mod plan;
pub(crate) mod publisher_ids;
pub(crate) mod sequencer;
