//! The store of a hub: its file, and how the hub uses it.

use std::{path::PathBuf, time::Duration};

use downlink_sqlite::SqliteOptions;

use super::Durability;

/// The file in which a hub keeps its events.
///
/// A path alone is a store with the defaults.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use downlink::hub::{Durability, HubStore};
///
/// let store = HubStore::from("events.db")
///     .durability(Durability::Relaxed)
///     .bytes_max(1 << 30)
///     .wait_max(Duration::from_secs(5));
/// # drop(store);
/// ```
#[derive(Clone, Debug)]
#[must_use = "it takes effect in a hub"]
pub struct HubStore {
    pub(super) file: PathBuf,
    pub(super) durability: Durability,
    pub(super) options: SqliteOptions,
}

impl<F: Into<PathBuf>> From<F> for HubStore {
    /// A store in this file, which is made if it does not exist.
    fn from(file: F) -> Self {
        let options = SqliteOptions::default();
        Self { file: file.into(), durability: Durability::default(), options }
    }
}

impl HubStore {
    /// When an event counts as published: when the disk has it (the default), or when the operating
    /// system has it. In the second case it survives a crash of the process at once, and a power
    /// cut after at most a tenth of a second. If a power cut took an event, the subscribers that
    /// saw it get a gap.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The largest the file may become in bytes. Default: 16 GiB; the oldest events go first.
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.options.bytes_max = bytes;
        self
    }

    /// How long to wait for another process to let go of the file. Default: not at all. A restart
    /// in place has to wait until the old process has ended.
    pub fn wait_max(mut self, wait: Duration) -> Self {
        self.options.wait_for = wait;
        self
    }
}
