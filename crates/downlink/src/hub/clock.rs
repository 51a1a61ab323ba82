//! What time it is: the system's, or a test's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use downlink_log::Timestamp;

/// Where a hub takes the time from, for retention and time stamps.
///
/// ```
/// use std::time::Duration;
/// use downlink::hub::Clock;
///
/// let clock = Clock::manual();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.now().as_millis() - before.as_millis(), 5_000);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until it is advanced; clones are the same clock.
    pub fn manual() -> Self {
        // 2001-09-09, a date that looks like one in a failing test.
        Self(Some(Arc::new(AtomicU64::new(1_000_000_000_000))))
    }

    /// Moves a manual clock on, by whole milliseconds; the system's is not impressed.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.0 {
            let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            let later = |now: u64| Some(now.saturating_add(millis));
            let _ = manual.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
        }
    }

    /// Whether it is the system's.
    pub(crate) fn is_system(&self) -> bool {
        self.0.is_none()
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        let millis = match &self.0 {
            Some(manual) => manual.load(Ordering::SeqCst),
            None => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        };
        Timestamp::from_millis(millis)
    }
}
