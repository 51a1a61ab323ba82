//! The settings of a hub's store, which keeps events in a file.

use std::{path::PathBuf, time::Duration};

use downlink_sqlite::SqliteOptions;

use super::Durability;

/// The file in which a hub keeps its events, and the settings for this file.
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
#[must_use = "a store does nothing until a hub is built with it"]
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
    /// Sets when an event counts as published. By default, the event must be on the disk. With
    /// [`Durability::Relaxed`], it is enough that the operating system has the event. A crash of
    /// the process then loses no event, but a power cut may lose the events of the last tenth of a
    /// second. Subscribers that got such an event before the power cut get a gap.
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

    /// Opens the file as the cache of a hub that follows another one.
    #[cfg(feature = "relay")]
    pub(super) fn open_cache(
        self,
        retention: &downlink_log::LogOptions,
    ) -> Result<Box<dyn downlink_log::store::Cache>, super::HubError> {
        let Self { file, mut options, .. } = self;
        options.retention = retention.retention.clone();
        let cache = downlink_sqlite::SqliteCache::open(&file, options);
        let cache = cache.map_err(|error| super::HubError::Store { file: file.clone(), error })?;
        let opened: &downlink_log::store::OpenedCache = downlink_log::store::Cache::opened(&cache);
        if let Some(error) = &opened.discarded {
            tracing::warn!(
                file = %file.display(),
                %error,
                "the cache could not be used and was emptied; the upstream sends its events again"
            );
        }
        Ok(Box::new(cache))
    }

    /// How long the hub waits for another process to close the file. Default: the hub does not
    /// wait. Set this if a restart starts the new process before the old process has ended.
    pub fn wait_max(mut self, wait: Duration) -> Self {
        self.options.wait_for = wait;
        self
    }
}
