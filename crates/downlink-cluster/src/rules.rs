//! The limits that all nodes of a hub must share, because the decisions of a node depend on them.
//!
//! The version of the format stands for these limits: a release that changes one of them also
//! raises [`FORMAT_VERSION`](crate::FORMAT_VERSION). Only tests use other values.

use std::time::Duration;

/// The maximum number of positions between the position that an entry has seen and the entry's own
/// position. An entry has seen the last position that its writer had applied when it planned the
/// events (asked its log which of them are new). Each node keeps this many positions in memory. At
/// 1,000 entries a second, about this many entries arrive in the lifetime of an entry.
const POSITIONS_MAX: u64 = 16_384;
/// The maximum number of claims (see [`crate::Window`]) between the position that an entry has
/// seen and the entry's own position. The table of the claims takes 4 MiB. Half as many are not
/// enough for 15,000 keyed events a second.
const CLAIMS_MAX: usize = 262_144;
/// The time, measured by the engine, in which an entry has to arrive. It is twice the duration of a
/// usual failover of an engine. A longer time would delay the first event of a node that begins.
const LIFETIME: Duration = Duration::from_secs(15);
/// The maximum step of engine time between two entries. It is longer than the time between two
/// heartbeats, and shorter than the lifetime of an entry. So an engine clock that jumps ahead
/// expires no entry by itself.
const STEP_MAX: Duration = Duration::from_secs(10);

/// The limits for deciding about entries. All nodes of a hub must use equal rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Rules {
    /// The maximum number of positions between an entry and the position that it has seen.
    pub positions_max: u64,
    /// The maximum number of claims between an entry and the position that it has seen.
    pub claims_max: usize,
    /// The maximum engine time between an entry and the position that it has seen.
    pub lifetime: Duration,
    /// The maximum engine time from one entry to the next.
    pub step_max: Duration,
    #[cfg(feature = "mutants")]
    #[doc(hidden)]
    pub mutant: Option<Mutant>,
}

impl Default for Rules {
    /// The rules of this version.
    fn default() -> Self {
        Self {
            positions_max: POSITIONS_MAX,
            claims_max: CLAIMS_MAX,
            lifetime: LIFETIME,
            step_max: STEP_MAX,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

impl Rules {
    /// Whether these rules make this deliberate mistake. Only tests set one.
    #[cfg(feature = "mutants")]
    pub(crate) fn has(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Without the feature `mutants`, no mistake is made, and the compiler removes its code.
    #[cfg(not(feature = "mutants"))]
    pub(crate) const fn has(&self, _: Mutant) -> bool {
        false
    }

    pub(crate) fn lifetime_ms(&self) -> u64 {
        millis(self.lifetime)
    }

    pub(crate) fn step_max_ms(&self) -> u64 {
        millis(self.step_max)
    }
}

/// The whole milliseconds of a time span.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A deliberate mistake. The tests of this crate check that the simulation finds each of them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(
    not(feature = "mutants"),
    expect(unreachable_pub, reason = "the crate exports it only with the feature")
)]
pub enum Mutant {
    /// The mark of an entry depends on the entry alone, not on the entries before it.
    RandomMarks,
    /// An id contains a name that changes only when a loss is noticed.
    EpochNames,
    /// An entry contains the position at which it was packed, not the position at which its events
    /// were planned.
    SeenAtPacking,
    /// A node compares an event only with earlier events that were applied. Correct nodes compare
    /// it with all events of the earlier entries.
    CompareOutcomes,
    /// A node takes publishes as soon as it shows events.
    YoungPublishers,
    /// An id ahead of the node counts as lost at once.
    AheadIsLost,
    /// An id contains the time at which the engine's stream was created.
    CreationTimeAsEpoch,
}
