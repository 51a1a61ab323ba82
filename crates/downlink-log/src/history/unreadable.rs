//! The events of a replica that could not be decoded. Memory does not have them, so readers get a
//! gap for them. With this list, the gap says why.

use std::collections::BTreeSet;

use crate::sync::Mutex;

/// The maximum number of offsets of unreadable events that a replica keeps. A reader that is
/// further behind gets its gap with another reason.
const UNREADABLE_MAX: usize = 1_024;

/// The newest offsets whose events could not be decoded, at most [`UNREADABLE_MAX`].
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// No other lock is taken while this lock is held.
    offsets: Mutex<BTreeSet<u64>>,
}

impl Unreadable {
    pub(crate) fn new() -> Self {
        Self { offsets: Mutex::new(BTreeSet::new()) }
    }

    /// Notes that the event at an offset could not be decoded.
    pub(crate) fn note(&self, offset: u64) {
        let mut offsets = self.offsets.lock();
        offsets.insert(offset);
        if offsets.len() > UNREADABLE_MAX {
            offsets.pop_first();
        }
    }

    /// Whether the event at an offset could not be decoded.
    pub(crate) fn contains(&self, offset: u64) -> bool {
        self.offsets.lock().contains(&offset)
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_offset_is_removed_at_the_limit() {
        let unreadable = Unreadable::new();
        (0..=UNREADABLE_MAX as u64).for_each(|offset| unreadable.note(offset));
        assert_eq!(
            [0, 1, UNREADABLE_MAX as u64].map(|at| unreadable.contains(at)),
            [false, true, true]
        );
    }
}
