//! The settings of a hub's store: its file, and how the hub uses the file.

use std::{path::PathBuf, time::Duration};

use downlink_sqlite::SqliteOptions;

use super::Durability;

/// The file in which a hub keeps its events, with its settings.
///
/// A path converts into a store with the default settings.
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
    /// A store in this file. The hub creates the file if it does not exist.
    fn from(file: F) -> Self {
        let options = SqliteOptions::default();
        Self { file: file.into(), durability: Durability::default(), options }
    }
}

impl HubStore {
    /// When an event counts as published: when the disk has it (the default), or as soon as the
    /// operating system has it. In the second case, a crash of the process loses no event, but a
    /// power cut loses the events of the last tenth of a second at most. If a power cut lost an
    /// event, the subscribers that got it before get a gap.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The maximum size of the file in bytes. At this size, the oldest events are evicted. Default:
    /// 16 GiB.
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.options.bytes_max = bytes;
        self
    }

    /// How long the hub waits for another process to close the file. Default: not at all. A restart
    /// in place has to wait until the old process has ended.
    pub fn wait_max(mut self, wait: Duration) -> Self {
        self.options.wait_for = wait;
        self
    }
}
