//! The history of all topics together: which events readers can see, an index of all events, and
//! the eviction of old events.

pub(crate) mod ages;
pub(crate) mod backlog;
pub(crate) mod evicted;
#[expect(clippy::module_inception, reason = "the type that owns the parts of this folder")]
pub(crate) mod history;
pub(crate) mod index;
pub(crate) mod losses;
pub(crate) mod unreadable;

pub(crate) use ages::Ages;
pub(crate) use backlog::{Backlog, Backlogged, Published};
pub(crate) use evicted::Evicted;
pub(crate) use history::{History, Pushed};
pub(crate) use index::{EventTopics, Index, IndexRow};
pub(crate) use unreadable::Unreadable;
