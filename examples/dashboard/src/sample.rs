//! The metrics: three numbers about this process, and a random walk.

use serde::Serialize;

/// The names of all metrics. On systems without `/proc`, `memory` has no samples.
pub const METRICS: [&str; 4] = ["uptime", "walk", "memory", "streams"];

/// One value of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// The name of the metric, one of [`METRICS`].
    pub metric: &'static str,
    /// Milliseconds since the program began to measure.
    pub at_ms: u128,
    /// The value. `uptime` is in seconds, `memory` in mebibytes, and `streams` is the number of
    /// open streams. `walk` has no unit.
    pub value: f64,
}

/// A random walk: a number that changes a little with each step and stays between 0 and 100. The
/// same seed gives the same walk.
#[derive(Debug)]
pub struct Walk {
    random: fastrand::Rng,
    value: f64,
}

impl Walk {
    /// The maximum size of a step. It is 4 % of the range, so the plot of the walk is neither flat
    /// nor noisy.
    const STEP_MAX: f64 = 4.0;

    /// A walk that begins in the middle of the range.
    pub fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), value: 50.0 }
    }

    /// Takes one step and returns the new value.
    pub fn step(&mut self) -> f64 {
        let step = (self.random.f64() * 2.0 - 1.0) * Self::STEP_MAX;
        self.value = (self.value + step).clamp(0.0, 100.0);
        self.value
    }
}

/// The resident memory of this process in MiB. Returns `None` on systems without `/proc`.
pub(crate) async fn resident_mebibytes() -> Option<f64> {
    resident_in(&tokio::fs::read_to_string("/proc/self/status").await.ok()?)
}

fn resident_in(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes / 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walk_depends_only_on_the_seed_and_stays_in_the_range() {
        let steps = |seed| {
            let mut walk = Walk::new(seed);
            (0..10_000).map(|_| walk.step()).collect::<Vec<_>>()
        };
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
        assert!(steps(7).iter().all(|value| (0.0..=100.0).contains(value)));
        assert!(steps(7).windows(2).all(|pair| (pair[1] - pair[0]).abs() <= Walk::STEP_MAX));
    }

    #[test]
    fn memory_is_none_without_a_valid_line_in_the_status_file() {
        assert_eq!(resident_in("Name:\tx\nVmRSS:\t    3072 kB\nThreads:\t1\n"), Some(3.0));
        for status in ["", "VmRSS:", "VmRSS: 12 MB", "VmRSS: x kB"] {
            assert_eq!(resident_in(status), None, "{status:?}");
        }
    }
}
