//! How long a durable commit waits for publishers that are about to come back.
//!
//! A publisher that sends one event after the other comes back a moment after each commit, just too
//! late for the next one. If the writer waits that moment, one flush serves all of these
//! publishers. On a slow disk this nearly doubles the number of events that they publish. A lone
//! publisher is not delayed. No wait is longer than the last commit took, nor longer than a tenth
//! of a second.

use std::time::{Duration, Instant};

/// The wait is checked this many times. If no publisher has come back by the next check, the wait
/// ends. With 2 checks, absent publishers would delay events for too long. With 10, the time
/// between checks would be shorter than the usual lateness of a timer.
const CHECKS: u32 = 4;

/// If all publishers would be back only after this many times the duration of a commit, the writer
/// goes on waiting. Most of them then still work while the next commit runs, so the processor stays
/// busy. With 2, all of them would be back during that commit and wait for its end.
const LARGE: u32 = 3;

/// The longest wait. A disk that stalled for seconds must not make the writer wait for seconds. A
/// flush of a spinning disk takes a tenth of this.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Which publishers the next commit waits for, and for how long. The caller passes the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommitPacing {
    /// The number of batches that were committed or waiting when the last commit ended. When this
    /// many wait again, no other publisher is expected.
    pub(crate) batches: usize,
    /// The number of batches that were waiting before any publisher was answered.
    waited: usize,
    since: Instant,
    took: Duration,
    /// The number of batches that were waiting at the last check.
    came: usize,
}

impl CommitPacing {
    /// Expects the publishers of the committed batches, and those whose batches came during the
    /// commit.
    pub(crate) fn after(committed: usize, waited: usize, started: Instant, ended: Instant) -> Self {
        let took = ended.saturating_duration_since(started).min(WAIT_MAX);
        Self { batches: committed + waited, waited, since: ended, took, came: 0 }
    }

    /// The time of the next check if this many batches wait now. `None` means: commit now.
    pub(crate) fn wait_until(&mut self, now: Instant, batches: usize) -> Option<Instant> {
        let until = self.since + self.took;
        let is_over = batches >= self.batches || batches <= self.came || now >= until;
        if is_over || (self.came > 0 && self.is_too_late(now, batches)) {
            return None;
        }
        self.came = batches;
        Some(until.min(now + self.took / CHECKS))
    }

    /// Whether, at this pace, a commit that begins now could end before the last publisher is back.
    /// Then the writer commits at once, while the other publishers work.
    fn is_too_late(&self, now: Instant, batches: usize) -> bool {
        let came = batches.saturating_sub(self.waited).max(1) as f64;
        let passed = now.saturating_duration_since(self.since);
        let all = passed.mul_f64((self.batches - self.waited) as f64 / came);
        all > self.took && all < self.took * LARGE
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// The pacing after a commit of this many batches that took 8 ms, and the time when the commit
    /// ended.
    fn after_commit(batches: usize, waiting: usize) -> (CommitPacing, Instant) {
        let started = Instant::now();
        let ended = started + ms(8);
        (CommitPacing::after(batches, waiting, started, ended), ended)
    }

    #[test]
    fn a_lone_publisher_is_not_delayed() {
        let (mut pacing, ended) = after_commit(1, 0);
        assert_eq!(pacing.wait_until(ended, 1), None);
    }

    #[test]
    fn the_writer_waits_for_returning_publishers() {
        let (mut pacing, ended) = after_commit(3, 2);
        assert_eq!(pacing.batches, 5);
        assert_eq!(pacing.wait_until(ended, 2), Some(ended + ms(2)));
        assert_eq!(pacing.wait_until(ended + ms(2), 4), Some(ended + ms(4)));
        assert_eq!(pacing.wait_until(ended + ms(3), 5), None, "all are back");
    }

    #[test]
    fn a_check_that_finds_no_new_batch_ends_the_wait() {
        let (mut pacing, ended) = after_commit(3, 0);
        assert_eq!(pacing.wait_until(ended + ms(1), 1), Some(ended + ms(3)));
        assert_eq!(pacing.wait_until(ended + ms(3), 1), None);
    }

    #[test]
    fn no_wait_is_longer_than_the_last_commit() {
        let (mut pacing, ended) = after_commit(9, 0);
        assert_eq!(pacing.wait_until(ended + ms(7), 1), Some(ended + ms(8)));
        assert_eq!(pacing.wait_until(ended + ms(8), 8), None);
        let (mut pacing, ended) = after_commit(9, 0);
        assert_eq!(pacing.wait_until(ended + ms(60), 1), None, "after a pause");
    }

    /// Whether the writer goes on waiting. 100 publishers are expected; `came` of them are back
    /// after a quarter of the last commit's time.
    fn is_waited_for(came: usize) -> bool {
        let (mut pacing, ended) = after_commit(100, 10);
        assert_eq!(pacing.wait_until(ended, 10), Some(ended + ms(2)));
        pacing.wait_until(ended + ms(2), 10 + came).is_some()
    }

    #[test]
    fn the_writer_waits_for_publishers_that_are_in_time_or_many() {
        assert!(is_waited_for(25), "in time");
        assert!(!is_waited_for(24), "a little too late");
        assert!(!is_waited_for(9));
        assert!(is_waited_for(8), "most stay away, however long the writer waits");
    }
}
