//! Reading: where a reader begins, what it finds in memory, and what it asks the store for.

pub(crate) mod begin;
pub(crate) mod look;
pub(crate) mod next;
pub(crate) mod overview;
pub(crate) mod position;
pub(crate) mod reader;
pub(crate) mod replay;
pub(crate) mod seats;
pub(crate) mod start;
pub(crate) mod store_begin;
pub(crate) mod store_replay;
pub(crate) mod walk;

pub(crate) use overview::{ReaderOverview, TopicOverview, Totals};
pub(crate) use reader::Reader;
pub(crate) use replay::Replays;
pub(crate) use seats::Seats;
pub(crate) use start::Start;
