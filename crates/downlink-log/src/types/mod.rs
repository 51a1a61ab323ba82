//! Values: names, offsets, selectors, retention, drafts.

pub(crate) mod address;
pub(crate) mod draft;
pub(crate) mod offset;
pub(crate) mod retention;
pub(crate) mod selector;
