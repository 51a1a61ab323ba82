//! Times as whole milliseconds: small to keep, and cheap to compare for every event of every stream.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// A time in milliseconds, counted from before every body, in any runtime's time.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Moment(u64);

impl Moment {
    /// The time that does not come.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// A time, rounded up so that who waits for it is not early.
    pub(crate) fn at(instant: Instant) -> Self {
        let since = instant.saturating_duration_since(origin());
        let millis = u64::from(since.subsec_nanos().div_ceil(1_000_000));
        Self(since.as_secs().saturating_mul(1_000).saturating_add(millis))
    }

    /// A time so many milliseconds after this one.
    pub(crate) fn after(self, millis: u32) -> Self {
        Self(self.0.saturating_add(millis.into()))
    }

    #[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "only `serve` keeps such times"))]
    pub(crate) fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    #[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "only `serve` keeps such times"))]
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

/// The present, looked at once for many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Now {
    /// What has begun by now, and is not over.
    begun: Moment,
    /// The first moment that is not over before now.
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

    /// Whether a moment comes within this millisecond, or has come: for what must not last longer.
    pub(crate) fn leaves_nothing_until(self, moment: Moment) -> bool {
        moment <= self.next
    }

    /// The present as a moment that others are counted from: rounded up, so that none comes early.
    pub(crate) fn moment(self) -> Moment {
        self.next
    }
}

/// How long before the first look at the clock moments are counted from: longer than the clocks of two
/// runtimes in one process are apart, which tests may set as they like.
const SLACK: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The instant that moments are counted from.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        let now = Instant::now();
        // Some systems know no time before their start.
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
        assert!(!now.has_reached(Moment::NEVER) && !now.leaves_nothing_until(Moment::NEVER));
    }

    #[test]
    fn what_ends_now_has_no_part_of_a_millisecond_left() {
        let now = Instant::now();
        assert!(Now::of(now).leaves_nothing_until(Moment::at(now)));
        let later = Moment::at(now + Duration::from_millis(1));
        assert!(!Now::of(now).leaves_nothing_until(later));
    }
}
