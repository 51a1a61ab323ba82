//! A range of times. Each client gets a random time from it.
//!
//! If clients that lost their connections at the same moment waited for the same time, they would
//! all reconnect at once. So this crate picks the reconnection times and the maximum ages of
//! connections at random from a [`Spread`].

use std::time::Duration;

/// A range of times. [`pick`](Self::pick) returns a random time from it. All times in the range are
/// equally likely.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use downlink::http::Spread;
///
/// let spread = Spread::between(Duration::from_secs(1), Duration::from_secs(5));
/// let delay = spread.pick();
/// assert!(delay >= Duration::from_secs(1) && delay <= Duration::from_secs(5));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spread {
    /// Invariant: `shortest <= longest`.
    shortest: Duration,
    longest: Duration,
}

impl Spread {
    /// The range between two durations, including both. The order of the two does not matter.
    pub const fn between(one: Duration, other: Duration) -> Self {
        if one.as_nanos() <= other.as_nanos() {
            Self { shortest: one, longest: other }
        } else {
            Self { shortest: other, longest: one }
        }
    }

    /// The range from `lowest` to `highest` percent of a duration. If the calculation of an end of
    /// the range overflows, this end is the duration itself.
    pub(crate) fn percent_of(of: Duration, (lowest, highest): (u32, u32)) -> Self {
        let part = |percent: u32| of.checked_mul(percent).map_or(of, |product| product / 100);
        Self::between(part(lowest), part(highest))
    }

    /// Picks a random time.
    pub fn pick(&self) -> Duration {
        self.at(fastrand::f64())
    }

    /// The time at a fraction of the way from the shortest to the longest time.
    fn at(&self, fraction: f64) -> Duration {
        let width = self.longest - self.shortest;
        let part = width.as_secs_f64() * fraction.clamp(0.0, 1.0);
        // Rounding may give a time beyond the end of the range or beyond the maximum duration, so
        // the result is limited to the range.
        self.shortest + Duration::try_from_secs_f64(part).map_or(width, |part| part.min(width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn both_ends_can_be_picked() {
        let spread = Spread::between(SECOND, 5 * SECOND);
        assert_eq!(spread.at(0.0), SECOND);
        assert_eq!(spread.at(0.5), 3 * SECOND);
        assert_eq!(spread.at(1.0), 5 * SECOND);
    }

    #[test]
    fn the_order_of_the_ends_does_not_matter() {
        assert_eq!(Spread::between(5 * SECOND, SECOND), Spread::between(SECOND, 5 * SECOND));
    }

    #[test]
    fn percent_of_is_relative_to_the_given_time() {
        let spread = Spread::percent_of(10 * SECOND, (80, 120));
        assert_eq!((spread.shortest, spread.longest), (8 * SECOND, 12 * SECOND));
    }

    #[test]
    fn the_maximum_duration_does_not_overflow() {
        let spread = Spread::percent_of(Duration::MAX, (80, 100));
        assert_eq!(spread.at(1.0), Duration::MAX);
        assert_eq!(Spread::between(Duration::ZERO, Duration::MAX).at(1.0), Duration::MAX);
    }

    #[test]
    fn picked_times_differ_and_are_in_the_range() {
        let spread = Spread::between(SECOND, 2 * SECOND);
        let drawn: Vec<_> = (0..100).map(|_| spread.pick()).collect();
        assert!(drawn.iter().all(|at| (SECOND..=2 * SECOND).contains(at)));
        assert!(drawn.iter().any(|at| at != &drawn[0]));
    }
}
