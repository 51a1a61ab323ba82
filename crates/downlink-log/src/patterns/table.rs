//! All patterns of a log, found by the names that they match.
//!
//! A publisher that appends or evicts holds the table for reading, from before the change until the
//! change is noted in the patterns. A reader that adds a pattern holds the table for writing. So
//! each change is either noted in the pattern, or was complete before the pattern was added, and
//! then the reader sees it.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::patterns::Pattern;
use crate::readers::ReaderState;
use crate::sync::{RwLock, RwLockReadGuard};
use crate::topics::Lost;
use crate::types::{Address, EvictionNumber, OpenError, PatternTrie, TopicSelector};

/// The patterns that match one topic; rarely more than fifteen.
pub(crate) type Matching<P> = SmallVec<[Arc<Pattern<P>>; 2]>;

#[derive(Debug)]
pub(crate) struct Patterns<P> {
    /// Outside of every ring.
    table: RwLock<PatternTrie<Arc<Pattern<P>>>>,
    patterns_max: usize,
}

/// A pattern, and the reader's key in its list.
#[derive(Debug)]
pub(crate) struct PatternSeat<P> {
    pub(crate) pattern: Arc<Pattern<P>>,
    key: u32,
}

/// The table, held for reading.
pub(crate) struct Held<'a, P>(RwLockReadGuard<'a, PatternTrie<Arc<Pattern<P>>>>);

impl<P> Patterns<P> {
    pub(crate) fn new(patterns_max: usize) -> Self {
        Self { table: RwLock::new(PatternTrie::new()), patterns_max }
    }

    /// Holds the table: no pattern is added until the guard is dropped.
    pub(crate) fn hold(&self) -> Held<'_, P> {
        Held(self.table.read())
    }

    /// Notes the losses of a topic that is being made or collected.
    pub(crate) fn note_lost(&self, address: &Address, lost: Lost) {
        let last = lost.floor.offset.get() - 1;
        self.hold().note_eviction(address, lost.number, last);
    }

    /// Puts a reader on the lists of its patterns. Patterns that [have not
    /// begun](Pattern::has_begun) are new: the caller begins them under the sequence lock.
    ///
    /// # Errors
    ///
    /// [`OpenError::TooManyPatterns`]; then nothing was changed.
    pub(crate) fn enter(
        &self,
        patterns: &[TopicSelector],
        reader: &Arc<ReaderState>,
    ) -> Result<Box<[PatternSeat<P>]>, OpenError> {
        let mut table = self.table.write();
        let mut seats = Vec::with_capacity(patterns.len());
        for selector in patterns {
            let new = || Arc::new(Pattern::new(selector.clone()));
            let pattern = Arc::clone(table.get_or_insert_with(selector, new));
            let key = pattern.readers.lock().insert(Arc::clone(reader));
            seats.push(PatternSeat { pattern, key });
            if table.len() > self.patterns_max {
                leave(&mut table, &seats);
                return Err(OpenError::TooManyPatterns { patterns_max: self.patterns_max });
            }
        }
        Ok(seats.into())
    }

    /// Takes a reader off the lists, and removes the patterns that it alone had.
    pub(crate) fn leave(&self, seats: &[PatternSeat<P>]) {
        leave(&mut self.table.write(), seats);
    }
}

fn leave<P>(table: &mut PatternTrie<Arc<Pattern<P>>>, seats: &[PatternSeat<P>]) {
    for seat in seats {
        let mut readers = seat.pattern.readers.lock();
        readers.remove(seat.key);
        if readers.is_empty() {
            table.remove(&seat.pattern.selector);
        }
    }
}

impl<P> Held<'_, P> {
    /// The patterns that match an address.
    pub(crate) fn matching(&self, address: &Address) -> Matching<P> {
        let mut matching = Matching::new();
        if let Some(topic) = address.topic() {
            self.0.each_match(topic.as_str(), |pattern| {
                matching.push(Arc::clone(pattern));
                true
            });
        }
        matching
    }

    /// Notes an eviction in the patterns that match its topic.
    pub(crate) fn note_eviction(&self, address: &Address, number: EvictionNumber, offset: u64) {
        if let Some(topic) = address.topic() {
            self.0.each_match(topic.as_str(), |pattern| {
                pattern.note_eviction(number, offset);
                true
            });
        }
    }
}
