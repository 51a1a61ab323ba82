//! The clock of a hub: the system's clock, or a manual clock that a test moves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use downlink_log::{LogClock, Timestamp};

/// The clock of a hub. The hub uses it for retention and time stamps.
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

    /// A clock that moves only when [`advance`](Self::advance) is called. Its clones show the same
    /// time.
    pub fn manual() -> Self {
        // The clock starts at 2001-09-09, so times in failing tests look like real dates.
        Self(Some(Arc::new(AtomicU64::new(1_000_000_000_000))))
    }

    /// Moves a manual clock forward by whole milliseconds. Does nothing to the system's clock.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.0 {
            let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            let later = |now: u64| Some(now.saturating_add(millis));
            let _ = manual.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
        }
    }

    /// The current time of this clock.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Some(manual) => Timestamp::from_millis(manual.load(Ordering::SeqCst)),
            None => SystemTime::now().into(),
        }
    }

    /// The time of a clock that never goes backward. On Linux, this clock also runs while the
    /// machine sleeps.
    fn steady(&self) -> Duration {
        match &self.0 {
            Some(manual) => Duration::from_millis(manual.load(Ordering::SeqCst)),
            None => steady(),
        }
    }
}

#[cfg(target_os = "linux")]
fn steady() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
fn steady() -> Duration {
    static BEGAN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    BEGAN.get_or_init(std::time::Instant::now).elapsed()
}

/// The clock of one hub. It turns the time of the wall clock into log time. The hub measures the
/// ages of events in log time. Log time never goes backward, even if the wall clock does.
#[derive(Clone, Debug)]
pub(crate) struct HubClock {
    wall: Clock,
    pub(super) log: Arc<LogClock>,
}

impl HubClock {
    /// Starts a new log clock, or continues the log clock whose state a store has kept.
    pub(super) fn start(wall: Clock, kept: Option<downlink_log::ClockState>) -> Self {
        let log = LogClock::start(wall.now(), wall.steady(), kept).on_jump(|by_ms| {
            tracing::warn!(
                by_ms,
                "the system clock jumped; event ages and retention are not affected"
            );
        });
        Self { wall, log: Arc::new(log) }
    }

    /// The current log time.
    pub(crate) fn now(&self) -> Timestamp {
        self.now_by(|look| look())
    }

    /// The current log time, for a caller that reads the system's clock only once for several
    /// calls. `remember` gets a function that reads the system's clock. `remember` returns the
    /// result of this function, or an earlier result that the caller has remembered.
    pub(crate) fn now_by(
        &self,
        remember: impl FnOnce(&dyn Fn() -> Timestamp) -> Timestamp,
    ) -> Timestamp {
        let look = || self.wall.now();
        let wall = if self.wall.0.is_none() { remember(&look) } else { look() };
        self.log.now(wall, || self.wall.steady())
    }

    /// Follows the log time of an upstream.
    #[cfg(feature = "relay")]
    pub(super) fn follow(&self, upstream: downlink_log::ClockState) {
        self.log.follow(self.wall.now(), || self.wall.steady(), upstream);
    }

    /// The state of the clock, for a store or a feed.
    #[cfg(any(feature = "store", feature = "relay"))]
    pub(super) fn state(&self) -> downlink_log::ClockState {
        downlink_log::ClockState { at: self.now(), delta_ms: self.log.delta_ms() }
    }
}
