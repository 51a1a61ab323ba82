//! Times in whole milliseconds: eight bytes each, and cheap to compare for every event.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// A time in milliseconds since an origin before every body, by the runtime's clock.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Moment(u64);

impl Moment {
    /// Never.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// A time, rounded up so that no waiter is early.
    pub(crate) fn at(instant: Instant) -> Self {
        let since = instant.saturating_duration_since(origin());
        let millis = u64::from(since.subsec_nanos().div_ceil(1_000_000));
        Self(since.as_secs().saturating_mul(1_000).saturating_add(millis))
    }

    /// A time so many milliseconds after this one.
    pub(crate) fn after(self, millis: u32) -> Self {
        Self(self.0.saturating_add(millis.into()))
    }

    /// How long ago it was.
    pub(crate) fn age(self) -> Duration {
        Duration::from_millis(Self::at(Instant::now()).0.saturating_sub(self.0))
    }

    pub(crate) fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub(crate) fn as_millis(self) -> u64 {
        self.0
    }

    /// `None` if it never comes.
    pub(crate) fn instant(self) -> Option<Instant> {
        if self == Self::NEVER {
            return None;
        }
        origin().checked_add(Duration::from_millis(self.0))
    }
}

/// The present, read once for many streams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Now {
    /// The millisecond that has begun and is not over.
    begun: Moment,
    /// The first moment that is not in the past.
    next: Moment,
}

impl Now {
    /// The present by the runtime's clock.
    pub(crate) fn look() -> Self {
        Self::of(Instant::now())
    }

    pub(crate) fn of(instant: Instant) -> Self {
        let next = Moment::at(instant);
        let is_whole = next.instant() == Some(instant);
        Self { begun: if is_whole { next } else { Moment(next.0.saturating_sub(1)) }, next }
    }

    /// Whether a moment has come.
    pub(crate) fn has_reached(self, moment: Moment) -> bool {
        moment <= self.begun
    }

    /// Whether a moment has come or comes within this millisecond. An end must not be late.
    pub(crate) fn has_nearly_reached(self, moment: Moment) -> bool {
        moment <= self.next
    }

    /// The present, rounded up, so that moments counted from it are not early.
    pub(crate) fn moment(self) -> Moment {
        self.next
    }
}

/// How far the origin lies before the first use of the clock. The clocks of two runtimes in one
/// process differ by less; tests may set them.
const SLACK: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The origin of all moments.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        let now = Instant::now();
        // Some systems have no time before their start.
        now.checked_sub(SLACK).or_else(|| now.checked_sub(SLACK / 8_760)).unwrap_or(now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_come_when_its_whole_millisecond_has() {
        let start = Moment::at(Instant::now() + Duration::from_millis(5));
        let instant = start.instant().expect("it comes");
        let micros = |micros| Now::of(instant + Duration::from_micros(micros));
        assert!(!Now::of(instant - Duration::from_micros(1)).has_reached(start));
        assert!(micros(0).has_reached(start) && micros(999).has_reached(start));
        assert!(
            !micros(999).has_reached(start.after(1)) && micros(1_000).has_reached(start.after(1))
        );
        assert_eq!(
            [0, 1, 999, 1_000].map(|at| micros(at).moment()),
            [0, 1, 1, 1].map(|at| start.after(at))
        );
    }

    #[test]
    fn never_does_not_come() {
        assert_eq!(Moment::NEVER.instant(), None);
        assert_eq!(Moment::NEVER.after(7), Moment::NEVER);
        let now = Now::look();
        assert!(!now.has_reached(Moment::NEVER) && !now.has_nearly_reached(Moment::NEVER));
    }

    #[test]
    fn an_end_within_this_millisecond_has_come() {
        let now = Instant::now();
        assert!(Now::of(now).has_nearly_reached(Moment::at(now)));
        let later = Moment::at(now + Duration::from_millis(1));
        assert!(!Now::of(now).has_nearly_reached(later));
    }
}
