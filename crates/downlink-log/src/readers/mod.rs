//! The parts of readers that publishers use: the lists of readers, and the wake-ups.

pub(crate) mod confirmations;
pub(crate) mod list;
pub(crate) mod state;
pub(crate) mod wake;

pub(crate) use confirmations::{Confirmations, FollowerTask};
pub(crate) use list::{ReaderList, end_each, end_one, wake_all};
pub(crate) use state::{ReaderOverview, ReaderState};
pub(crate) use wake::{WAKE_BATCH, WakeBatch, WakeMany, WakeSlot};
