//! How a reader finds the offset where it begins, reads events in memory, and requests older events
//! from the store.

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

pub(crate) use begin::{StartSearch, gap, locate};
pub(crate) use look::{LookResult, MERGE_ALWAYS, entry, look, report};
pub(crate) use next::{Next, read_next};
pub(crate) use overview::{Lags, TopicOverview, Totals};
pub(crate) use position::Position;
pub(crate) use reader::Reader;
pub(crate) use replay::{Slot, StoreReplays};
pub(crate) use seats::Seats;
pub(crate) use start::{Beginning, PastLosses, Start};
pub(crate) use store_begin::{StoreStartSearch, begin_known};
pub(crate) use store_replay::{PageRequest, Replayed};
pub(crate) use walk::{FloorSearch, SearchProgress, WorkBudget};
