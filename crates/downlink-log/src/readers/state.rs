//! The part of a reader that publishers and overviews use.

use crate::readers::WakeSlot;
use crate::sync::{AtomicU64, Ordering};
use crate::types::ClientId;

/// The state that one reader shares with publishers and overviews. The reader's position is not
/// part of this state: only the reader uses its position (see `read`), so a publisher never waits
/// while a reader reads.
///
/// The order of the fields keeps those that a wake-up uses in one cache line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ReaderState {
    /// The next offset to read. Only the reader writes it. Relaxed, because overviews only show it.
    pub(crate) next: AtomicU64,
    /// The newest offset that the reader was woken for. Publishers raise it. Relaxed, because
    /// overviews only show it.
    newest: AtomicU64,
    pub(crate) slot: WakeSlot,
    /// The reader's number, unique among the readers of a log. A reader that is opened later has a
    /// higher number.
    pub(crate) number: u64,
    /// The offset of the event whose publisher last counted this reader, so that each publisher
    /// counts the reader once. Relaxed, because only one publisher at a time holds the sequence
    /// lock.
    counted: AtomicU64,
    pub(crate) client: Option<ClientId>,
    /// The number of topics and patterns that the reader subscribed to, for overviews.
    pub(crate) selectors: u32,
    /// Whether the reader is on more than one list. The list of everyone's topic does not count.
    pub(crate) has_several: bool,
}

impl ReaderState {
    pub(crate) fn new(number: u64, client: Option<ClientId>, selectors: usize) -> Self {
        let has_several = selectors + usize::from(client.is_some()) > 1;
        Self {
            next: AtomicU64::new(u64::MAX),
            newest: AtomicU64::new(0),
            slot: WakeSlot::new(),
            number,
            counted: AtomicU64::new(0),
            client,
            selectors: u32::try_from(selectors).unwrap_or(u32::MAX),
            has_several,
        }
    }

    pub(crate) fn note_newest(&self, offset: u64) {
        self.newest.fetch_max(offset, Ordering::Relaxed);
    }

    /// The newest offset that the reader was woken for, minus the last offset that it has read.
    pub(crate) fn lag(&self, tail: u64) -> u64 {
        let next = self.next.load(Ordering::Relaxed).min(tail);
        (self.newest.load(Ordering::Relaxed) + 1).saturating_sub(next)
    }

    /// Whether the publisher of `offset` counts the reader now for the first time.
    pub(crate) fn count_once(&self, offset: u64) -> bool {
        self.counted.swap(offset, Ordering::Relaxed) != offset
    }
}
