//! How long a durable commit waits for publishers who are about to come back.
//!
//! Whoever publishes one event after the other comes back a moment after each commit, just too late
//! for the next. Waiting that moment lets one flush serve them all, which on a slow disk nearly
//! doubles what they publish. Nobody waits for a publisher who is alone, and nothing waits longer
//! than the last commit took, nor than a tenth of a second.

use std::time::{Duration, Instant};

/// A wait that brings nobody ends after this part of the time that it may take. Half would hold
/// events up for publishers who stay away; a tenth is less than a timer is late.
const LOOKS: u32 = 4;

/// From so many times a commit on, most of the crowd are still under way when the next one begins,
/// and keep the processor busy meanwhile. With twice a commit everybody would wait for the same one.
const LARGE: u32 = 3;

/// The longest wait: a disk that stood still for seconds is no reason to do so too. A spinning disk's
/// flush takes a tenth of this.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// What the last commit was like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastCommit {
    pub(crate) batches: usize,
    /// Batches that had come by its end, before anybody heard of it.
    pub(crate) waiting: usize,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
}

/// Who is expected for the next commit. Time comes from the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    /// Batches that were under way or waiting when the last commit ended.
    batches: usize,
    /// Those that were waiting.
    waited: usize,
    since: Instant,
    took: Duration,
    /// Batches that had come at the last look.
    came: usize,
}

impl Crowd {
    /// Those whose batches were committed, and those whose batches have come meanwhile.
    pub(crate) fn after(last: LastCommit) -> Self {
        let waiting = last.waiting;
        let took = last.ended.saturating_duration_since(last.started).min(WAIT_MAX);
        let batches = last.batches + waiting;
        Self { batches, waited: waiting, since: last.ended, took, came: 0 }
    }

    /// With so many batches nobody else is expected.
    pub(crate) fn batches(&self) -> usize {
        self.batches
    }

    /// Until when it is worth waiting, if so many batches have come.
    pub(crate) fn wait_until(&mut self, now: Instant, batches: usize) -> Option<Instant> {
        let is_first = self.came == 0;
        let nobody_came = batches <= self.came;
        let until = self.since + self.took;
        if batches >= self.batches || nobody_came || now >= until {
            return None;
        }
        if !is_first && self.is_too_late(now, batches) {
            return None;
        }
        self.came = batches;
        Some(until.min(now + self.took / LOOKS))
    }

    /// Whether at this pace the last would be back when the next commit could have ended: then what
    /// they do meanwhile is worth more than a flush.
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

    /// Who is expected after a commit of so many batches that took 8 ms, and when it ended.
    fn after_commit(batches: usize, waiting: usize) -> (Crowd, Instant) {
        let started = Instant::now();
        let ended = started + ms(8);
        (Crowd::after(LastCommit { batches, waiting, started, ended }), ended)
    }

    #[test]
    fn a_publisher_who_is_alone_is_not_delayed() {
        let (mut crowd, ended) = after_commit(1, 0);
        assert_eq!(crowd.wait_until(ended, 1), None);
    }

    #[test]
    fn those_who_come_back_are_waited_for() {
        let (mut crowd, ended) = after_commit(3, 2);
        assert_eq!(crowd.batches(), 5);
        assert_eq!(crowd.wait_until(ended, 2), Some(ended + ms(2)));
        assert_eq!(crowd.wait_until(ended + ms(2), 4), Some(ended + ms(4)));
        assert_eq!(crowd.wait_until(ended + ms(3), 5), None, "everybody is back");
    }

    #[test]
    fn a_look_that_finds_nobody_new_is_the_last() {
        let (mut crowd, ended) = after_commit(3, 0);
        assert_eq!(crowd.wait_until(ended + ms(1), 1), Some(ended + ms(3)));
        assert_eq!(crowd.wait_until(ended + ms(3), 1), None);
    }

    #[test]
    fn nothing_waits_longer_than_the_last_commit_took() {
        let (mut crowd, ended) = after_commit(9, 0);
        assert_eq!(crowd.wait_until(ended + ms(7), 1), Some(ended + ms(8)));
        assert_eq!(crowd.wait_until(ended + ms(8), 8), None);
        let (mut crowd, ended) = after_commit(9, 0);
        assert_eq!(crowd.wait_until(ended + ms(60), 1), None, "after a pause");
    }

    /// 100 are on their way back; after a quarter of a commit's time so many have come.
    fn is_waited_for(came: usize) -> bool {
        let (mut crowd, ended) = after_commit(100, 10);
        assert_eq!(crowd.wait_until(ended, 10), Some(ended + ms(2)));
        crowd.wait_until(ended + ms(2), 10 + came).is_some()
    }

    #[test]
    fn a_crowd_that_comes_back_in_time_or_is_large_is_waited_for() {
        assert!(is_waited_for(25), "in time");
        assert!(!is_waited_for(24), "a little too late");
        assert!(!is_waited_for(9));
        assert!(is_waited_for(8), "most stay away whatever waits");
    }
}
