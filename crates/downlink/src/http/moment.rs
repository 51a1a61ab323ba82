//! Times in whole milliseconds. A time takes only eight bytes, and comparing two times is so cheap
//! that the body of a response can do it for every event.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// A time of the runtime's clock, in milliseconds since an origin. The origin lies before the
/// creation of the first body.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Moment(u64);

impl Moment {
    /// The moment that never comes.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// The moment of an instant, rounded up so that no wait ends early.
    pub(crate) fn at(instant: Instant) -> Self {
        let since = instant.saturating_duration_since(origin());
        let millis = u64::from(since.subsec_nanos().div_ceil(1_000_000));
        Self(since.as_secs().saturating_mul(1_000).saturating_add(millis))
    }

    /// The moment `millis` milliseconds after this one.
    pub(crate) fn after(self, millis: u32) -> Self {
        Self(self.0.saturating_add(millis.into()))
    }

    /// The moment `millis` milliseconds before this one.
    pub(crate) fn before(self, millis: u32) -> Self {
        Self(self.0.saturating_sub(millis.into()))
    }

    /// How long ago this moment was.
    pub(crate) fn age(self) -> Duration {
        Duration::from_millis(Self::at(Instant::now()).0.saturating_sub(self.0))
    }

    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub(crate) fn as_millis(self) -> u64 {
        self.0
    }

    /// The instant of this moment. `None` if the moment never comes.
    pub(crate) fn instant(self) -> Option<Instant> {
        if self == Self::NEVER {
            return None;
        }
        origin().checked_add(Duration::from_millis(self.0))
    }
}

/// The current time. A driver (a task that polls the bodies of many streams) reads it once for all
/// of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Now {
    /// The start of the current millisecond.
    begun: Moment,
    /// The first moment that is not in the past.
    next: Moment,
}

impl Now {
    /// Reads the runtime's clock.
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

    /// Whether a moment has come or comes within this millisecond. This is for the end of a
    /// response, which must not be late.
    pub(crate) fn has_nearly_reached(self, moment: Moment) -> bool {
        moment <= self.next
    }

    /// The current moment, rounded up, so that a wait that counts from it does not end early.
    pub(crate) fn moment(self) -> Moment {
        self.next
    }
}

/// How far the origin lies before the first use of the clock. A process may have several runtimes,
/// and tests may set the clocks of their runtimes. If a clock is behind the first clock by less
/// than `SLACK`, its time is still after the origin.
const SLACK: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The origin of all moments.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(|| {
        let now = Instant::now();
        // Some systems cannot represent a time before their start. The second attempt goes back
        // only an hour.
        now.checked_sub(SLACK).or_else(|| now.checked_sub(SLACK / 8_760)).unwrap_or(now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_reached_at_the_start_of_its_millisecond() {
        let start = Moment::at(Instant::now() + Duration::from_millis(5));
        let instant = start.instant().expect("the moment has an instant");
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
    fn a_moment_that_never_comes_is_not_reached() {
        assert_eq!(Moment::NEVER.instant(), None);
        assert_eq!(Moment::NEVER.after(7), Moment::NEVER);
        let now = Now::look();
        assert!(!now.has_reached(Moment::NEVER) && !now.has_nearly_reached(Moment::NEVER));
    }

    #[test]
    fn a_moment_within_this_millisecond_is_nearly_reached() {
        let now = Instant::now();
        assert!(Now::of(now).has_nearly_reached(Moment::at(now)));
        let later = Moment::at(now + Duration::from_millis(1));
        assert!(!Now::of(now).has_nearly_reached(later));
    }
}
