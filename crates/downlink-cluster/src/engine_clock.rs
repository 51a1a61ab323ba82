//! Engine time: how much time has passed between two entries, by the clock of the engine.
//!
//! Every node computes the same engine time, because it depends only on the times that the engine
//! has given to the entries. From one entry to the next it never goes back, and it advances at most
//! [`Rules::step_max`]. The time between two entries depends only on the entries from the first to
//! the second, so a node that begins in the middle of the journal computes the same time spans.
//!
//! If the engine's clock jumps an hour ahead, engine time advances by the maximum step only. When
//! the clock is corrected, engine time does not advance at the next entry, and then advances as
//! usual. If no entry arrives for an hour, engine time also advances by the maximum step only, so
//! entries expire later than they should.

use downlink_log::Timestamp;

use crate::rules::Rules;

/// The milliseconds of engine time from one entry to the next.
pub(crate) fn step(earlier: Timestamp, later: Timestamp, rules: &Rules) -> u64 {
    later.as_millis().saturating_sub(earlier.as_millis()).min(rules.step_max_ms())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elapsed(times: &[u64]) -> u64 {
        let at = Timestamp::from_millis;
        let rules = Rules::default();
        times.windows(2).map(|pair| step(at(pair[0]), at(pair[1]), &rules)).sum()
    }

    #[test]
    fn engine_time_follows_the_engine() {
        assert_eq!(elapsed(&[1_000, 1_500, 3_500]), 2_500);
        assert_eq!(elapsed(&[0, 10_000]), 10_000);
    }

    #[test]
    fn a_clock_jump_of_an_hour_advances_engine_time_by_the_maximum_step() {
        let hour = 3_600_000;
        assert_eq!(elapsed(&[0, 1_000, hour + 2_000, hour + 3_000]), 12_000);
        assert_eq!(elapsed(&[0, hour + 1_000, 2_000, 3_000, 4_000]), 12_000);
    }

    #[test]
    fn the_maximum_step_is_reached_and_not_exceeded() {
        assert_eq!(elapsed(&[0, 9_999]), 9_999);
        assert_eq!(elapsed(&[0, 10_001]), 10_000);
        assert_eq!(elapsed(&[10_001, 0]), 0);
    }
}
