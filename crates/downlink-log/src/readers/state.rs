//! One reader, as the lists that it is on see it.

use crate::readers::WakeSlot;
use crate::sync::{AtomicU64, Ordering};
use crate::types::ClientId;

/// The part of a reader that publishers and overviews use. The position belongs to the reader alone
/// (see `read`), so a publisher never waits for a reader that reads.
///
/// The order of the fields keeps those of a wake-up in one cache line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ReaderState {
    /// The next offset to read. The reader alone writes it; others only show it (Relaxed).
    pub(crate) next: AtomicU64,
    /// The newest offset that the reader was woken for. Publishers raise it; it is only shown
    /// (Relaxed).
    newest: AtomicU64,
    pub(crate) slot: WakeSlot,
    /// Unique among the readers of a log, in the order of their opening.
    pub(crate) number: u64,
    /// The newest offset whose publisher counted this reader, so that each counts it once. Relaxed:
    /// publishers take turns by the sequence lock.
    counted: AtomicU64,
    pub(crate) client: Option<ClientId>,
    /// Topics and patterns that it subscribed to; only shown.
    pub(crate) selectors: u32,
    /// Whether it is on more lists than one, besides that of everyone.
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

    /// The newest offset that it was woken for, less the last that it has read.
    pub(crate) fn lag(&self, tail: u64) -> u64 {
        let next = self.next.load(Ordering::Relaxed).min(tail);
        (self.newest.load(Ordering::Relaxed) + 1).saturating_sub(next)
    }

    /// Whether the publisher of `offset` meets the reader for the first time.
    pub(crate) fn count_once(&self, offset: u64) -> bool {
        self.counted.swap(offset, Ordering::Relaxed) != offset
    }
}
