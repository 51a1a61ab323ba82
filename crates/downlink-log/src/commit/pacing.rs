//! How long a durable commit waits for publishers that are about to come back.
//!
//! A publisher that sends one event after the other comes back a moment after each commit, just too
//! late for the next one. Waiting that moment lets one flush serve them all, which on a slow disk
//! nearly doubles what they publish. A publisher that is alone is not delayed, and nothing waits
//! longer than the last commit took, nor than a tenth of a second.

use std::time::{Duration, Instant};

/// A wait in which no publisher comes ends after this part of the time that it may take. Half would
/// delay events for publishers that stay away; a tenth is less than a timer is late.
const LOOKS: u32 = 4;

/// If all publishers would be back only after this many times a commit, most are still under way
/// when the next commit begins, and keep the processor busy meanwhile. With twice, all would wait
/// for the same commit.
const LARGE: u32 = 3;

/// The longest wait. A disk that stalled for seconds must not cause a wait of seconds. The flush of
/// a spinning disk takes a tenth of this.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Which publishers the next commit waits for, and how long. Time comes from the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommitPacing {
    /// Batches that were under way or waiting when the last commit ended: with so many no other
    /// publisher is expected.
    pub(crate) batches: usize,
    /// Batches that were waiting before any publisher was answered.
    waited: usize,
    since: Instant,
    took: Duration,
    /// Batches that had come at the last look.
    came: usize,
}

impl CommitPacing {
    /// Expects the publishers of the committed batches, and those whose batches have come
    /// meanwhile.
    pub(crate) fn after(committed: usize, waited: usize, started: Instant, ended: Instant) -> Self {
        let took = ended.saturating_duration_since(started).min(WAIT_MAX);
        Self { batches: committed + waited, waited, since: ended, took, came: 0 }
    }

    /// The end of the wait, if this many batches have come. `None`: commit now.
    pub(crate) fn wait_until(&mut self, now: Instant, batches: usize) -> Option<Instant> {
        let until = self.since + self.took;
        let is_over = batches >= self.batches || batches <= self.came || now >= until;
        if is_over || (self.came > 0 && self.is_too_late(now, batches)) {
            return None;
        }
        self.came = batches;
        Some(until.min(now + self.took / LOOKS))
    }

    /// Whether, at this pace, the next commit could end before the last publisher is back. Then the
    /// publishers' work meanwhile is worth more than a flush.
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

    /// The pacing after a commit of this many batches that took 8 ms, and when it ended.
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
    fn returning_publishers_are_waited_for() {
        let (mut pacing, ended) = after_commit(3, 2);
        assert_eq!(pacing.batches, 5);
        assert_eq!(pacing.wait_until(ended, 2), Some(ended + ms(2)));
        assert_eq!(pacing.wait_until(ended + ms(2), 4), Some(ended + ms(4)));
        assert_eq!(pacing.wait_until(ended + ms(3), 5), None, "all are back");
    }

    #[test]
    fn a_look_that_finds_no_new_batch_is_the_last() {
        let (mut pacing, ended) = after_commit(3, 0);
        assert_eq!(pacing.wait_until(ended + ms(1), 1), Some(ended + ms(3)));
        assert_eq!(pacing.wait_until(ended + ms(3), 1), None);
    }

    #[test]
    fn nothing_waits_longer_than_the_last_commit_took() {
        let (mut pacing, ended) = after_commit(9, 0);
        assert_eq!(pacing.wait_until(ended + ms(7), 1), Some(ended + ms(8)));
        assert_eq!(pacing.wait_until(ended + ms(8), 8), None);
        let (mut pacing, ended) = after_commit(9, 0);
        assert_eq!(pacing.wait_until(ended + ms(60), 1), None, "after a pause");
    }

    /// 100 publishers are on their way back; this many have come after a quarter of a commit's
    /// time.
    fn is_waited_for(came: usize) -> bool {
        let (mut pacing, ended) = after_commit(100, 10);
        assert_eq!(pacing.wait_until(ended, 10), Some(ended + ms(2)));
        pacing.wait_until(ended + ms(2), 10 + came).is_some()
    }

    #[test]
    fn publishers_that_come_back_in_time_or_are_many_are_waited_for() {
        assert!(is_waited_for(25), "in time");
        assert!(!is_waited_for(24), "a little too late");
        assert!(!is_waited_for(9));
        assert!(is_waited_for(8), "most stay away however long the wait");
    }
}
