//! How long the commits of a store take, as a histogram.

use std::time::Duration;

/// The upper bounds of the buckets of [`CommitTimes`], in seconds, in ascending order.
///
/// A commit takes less than a millisecond if the disk only copies the bytes, and some milliseconds
/// if it flushes them. A commit of a second means that the disk is overloaded or broken.
pub const COMMIT_SECONDS: [f64; 11] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// A histogram of the commits of a store. Failed commits count too.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CommitTimes {
    /// The number of commits in each bucket of [`COMMIT_SECONDS`], and then the number of longer
    /// commits.
    pub counts: [u64; COMMIT_SECONDS.len() + 1],
    /// The total time of all commits.
    pub sum: Duration,
}

impl CommitTimes {
    pub(crate) fn note(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = COMMIT_SECONDS.iter().take_while(|bound| seconds > **bound).count();
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(took);
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_commit_counts_in_the_bucket_of_its_time() {
        let mut times = CommitTimes::default();
        for micros in [500, 501, 2_000_000, 5_000_001] {
            times.note(Duration::from_micros(micros));
        }
        assert_eq!(times.counts, [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(times.sum, Duration::from_micros(7_001_002));
    }
}
