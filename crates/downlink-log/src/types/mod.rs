//! Values that the whole log speaks in: names, offsets, selectors, events, gaps, options, time.
//!
//! Nothing here knows a topic, a reader or a lock, but for the lock of the clock.

pub(crate) mod address;
pub(crate) mod clock;
pub(crate) mod event;
pub(crate) mod floor;
pub(crate) mod identity;
pub(crate) mod offset;
pub(crate) mod open_error;
pub(crate) mod options;
pub(crate) mod payload;
pub(crate) mod retention;
pub(crate) mod selector;
pub(crate) mod trie;
