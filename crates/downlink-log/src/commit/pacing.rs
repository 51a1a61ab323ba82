//! Decides how long a durable commit waits for publishers that are about to publish again. A
//! durable commit ends with a flush, in which the disk confirms that it has the data.
//!
//! Some publishers send the next event only after their last event was committed. Their next events
//! arrive a moment after each commit ends. In this file, such a publisher "comes back" when it
//! publishes its next event.
//!
//! The writer is the thread that commits batches of events to the store. If it began the next
//! commit at once, the events of these publishers would miss this commit and wait for the following
//! commit. If it waits for a moment, the events of all these publishers go into the next commit. On
//! a slow disk, the wait nearly doubles the number of events that they publish.
//!
//! A lone publisher is not delayed. No wait is longer than the last commit took, and no wait is
//! longer than a tenth of a second.

use std::time::{Duration, Instant};

/// The writer checks this many times during the wait whether publishers have come back. If none has
/// come back since the last check, the wait ends. With 2 checks, publishers that stay away would
/// delay events for too long. With 10 checks, the time between checks would be shorter than the
/// usual lateness of a timer.
const CHECKS: u32 = 4;

/// During a wait, the writer estimates the time until all publishers are back. It compares the
/// estimate with the time that the last commit took, because it never waits longer than that.
///
/// - If the estimate is not longer, all publishers will be back in time for the next commit. The
///   writer goes on waiting.
/// - If the estimate is longer, but less than `LARGE` times as long, the last publishers would miss
///   the next commit even if the writer waited. So the writer commits at once.
/// - If the estimate is at least `LARGE` times as long, few publishers are back so far. A commit at
///   once would contain only a few events, and most publishers would still be away when it ends. So
///   the writer goes on waiting.
///
/// With 2 instead of 3, the writer would also go on waiting if the estimate is two to three times
/// as long. Then the last publishers would come back during the next commit, and would have to wait
/// until it ends.
const LARGE: u32 = 3;

/// The maximum wait. Without this limit, a commit that took seconds on a stalled disk would be
/// followed by a wait of seconds. A usual flush takes at most a tenth of this time, even on a
/// spinning disk.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Tells how many batches the next commit waits for, and for how long. The caller passes the
/// current time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommitPacing {
    /// The number of batches in the last commit, plus the number of batches that waited when it
    /// ended. When this many batches wait again, the writer expects no other publisher.
    pub(crate) batches: usize,
    /// The number of batches that already waited when the last commit ended, before its publishers
    /// got their answers.
    waited: usize,
    since: Instant,
    took: Duration,
    /// The number of batches that waited at the last check.
    came: usize,
}

impl CommitPacing {
    /// The pacing after a commit of `committed` batches, when `waited` other batches have come
    /// during the commit. The publishers of all these batches are expected.
    pub(crate) fn after(committed: usize, waited: usize, started: Instant, ended: Instant) -> Self {
        let took = ended.saturating_duration_since(started).min(WAIT_MAX);
        Self { batches: committed + waited, waited, since: ended, took, came: 0 }
    }

    /// Checks whether to wait longer, when `batches` batches wait now. Returns the time of the next
    /// check, or `None` if the writer must commit now.
    pub(crate) fn wait_until(&mut self, now: Instant, batches: usize) -> Option<Instant> {
        let until = self.since + self.took;
        let is_over = batches >= self.batches || batches <= self.came || now >= until;
        if is_over || (self.came > 0 && self.is_too_late(now, batches)) {
            return None;
        }
        self.came = batches;
        Some(until.min(now + self.took / CHECKS))
    }

    /// Whether the writer should stop waiting, because the last publisher would miss the next
    /// commit anyway. The estimate assumes that publishers come back at a steady rate. See
    /// [`LARGE`].
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

    /// The pacing after a commit of `batches` batches that took 8 ms, and the time when the commit
    /// ended. At this time, `waiting` other batches waited.
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
        assert_eq!(pacing.wait_until(ended + ms(3), 5), None, "all publishers are back");
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
        assert_eq!(
            pacing.wait_until(ended + ms(60), 1),
            None,
            "60 ms is longer than the commit took"
        );
    }

    /// Whether the writer goes on waiting if 100 publishers are expected, and `came` of them are
    /// back after a quarter of the time that the last commit took.
    fn is_waited_for(came: usize) -> bool {
        let (mut pacing, ended) = after_commit(100, 10);
        assert_eq!(pacing.wait_until(ended, 10), Some(ended + ms(2)));
        pacing.wait_until(ended + ms(2), 10 + came).is_some()
    }

    #[test]
    fn the_writer_waits_if_all_publishers_are_back_soon_or_most_stay_away() {
        assert!(is_waited_for(25), "all publishers will be back in time");
        assert!(!is_waited_for(24), "the last publisher would miss the next commit");
        assert!(!is_waited_for(9));
        assert!(is_waited_for(8), "most publishers would still be away after the commit");
    }
}
