//! A short summary of the evictions from all topics that a pattern matches. A log numbers its
//! evictions in the order in which they happen.
//!
//! For a given eviction, the summary gives the highest offset that was evicted later. The summary
//! is a list of steps. A step holds the number of an eviction and the offset of the evicted event.
//! When a later eviction has a higher offset, the earlier step is removed, because its offset can
//! no longer be the highest. So from step to step, the numbers rise and the offsets fall.
//!
//! The list has at most [`STEPS_MAX`] steps. If it gets longer, two neighbouring steps are replaced
//! by one step with the higher number and the higher offset of the two. So an answer may be too
//! high, and a reader then gets a gap although it has missed nothing. An answer is never too low,
//! so no gap is hidden.

use smallvec::SmallVec;

use crate::types::EvictionNumber;

/// The maximum number of steps. One or two steps are usual, because old events are evicted first.
/// Sixteen steps take 256 bytes, which is four cache lines.
pub(crate) const STEPS_MAX: usize = 16;

/// Invariant: from step to step, the numbers rise and the offsets fall.
#[derive(Debug, Default)]
pub(crate) struct Evictions {
    steps: SmallVec<[(EvictionNumber, u64); 1]>,
}

impl Evictions {
    /// Notes that the eviction with this number evicted the event at `offset`.
    pub(crate) fn note(&mut self, number: EvictionNumber, offset: u64) {
        let is_covered = |step: &(EvictionNumber, u64)| step.0 >= number && step.1 >= offset;
        if self.steps.iter().any(is_covered) {
            return;
        }
        self.steps.retain(|step| step.0 > number || step.1 > offset);
        let at = self.steps.partition_point(|step| step.0 < number);
        self.steps.insert(at, (number, offset));
        if self.steps.len() > STEPS_MAX {
            self.merge();
        }
    }

    /// The highest offset that was evicted after the eviction `after`. With `None`, all evictions
    /// count.
    pub(crate) fn highest_after(&self, after: Option<EvictionNumber>) -> Option<u64> {
        self.steps.iter().find(|step| after.is_none_or(|after| step.0 > after)).map(|step| step.1)
    }

    /// Merges the two neighbouring steps whose offsets are closest to each other.
    fn merge(&mut self) {
        let pairs = self.steps.iter().zip(self.steps.iter().skip(1));
        let distances = pairs.map(|(first, second)| first.1 - second.1).enumerate();
        let Some((at, _)) = distances.min_by_key(|&(_, distance)| distance) else { return };
        let (_, offset) = self.steps.remove(at);
        if let Some(step) = self.steps.get_mut(at) {
            step.1 = offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: u64) -> EvictionNumber {
        EvictionNumber::new(number)
    }

    #[test]
    fn a_later_eviction_with_a_higher_offset_replaces_earlier_steps() {
        let mut evictions = Evictions::default();
        for (at, offset) in [(1, 5), (2, 9), (3, 4), (5, 7)] {
            evictions.note(number(at), offset);
        }
        let highest = |after| evictions.highest_after(Some(number(after)));
        assert_eq!(evictions.highest_after(None), Some(9));
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(highest),
            [Some(9), Some(9), Some(7), Some(7), Some(7), None]
        );
        assert_eq!(evictions.steps.len(), 2);
    }

    /// Compares the answers of the summary with the answers from a list of all evictions.
    #[test]
    fn an_answer_is_never_too_low() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let (mut evictions, mut all) = (Evictions::default(), Vec::new());
            for at in 1..=60 {
                let at = if rng.u8(0..10) == 0 { rng.u64(1..=at) } else { at };
                let offset = rng.u64(1..1_000) * 1_000 / (at + 1);
                evictions.note(number(at), offset);
                all.push((at, offset));
                assert!(evictions.steps.len() <= STEPS_MAX);
                for after in 0..=at {
                    let exact = all.iter().filter(|step| step.0 > after).map(|step| step.1).max();
                    let answer = evictions.highest_after(Some(number(after)));
                    assert!(answer >= exact, "{answer:?} is below {exact:?}");
                }
            }
        }
    }
}
