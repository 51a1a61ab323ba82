//! The part of a reader that other threads use: publishers wake it, and overviews show it.

use std::time::Duration;

use crate::readers::WakeSlot;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::types::{ClientId, Timestamp};

/// The state that one reader shares with publishers and overviews. It has a copy of the reader's
/// next offset, but not the reader's position itself. Only the reader uses its position, and needs
/// no lock for it. So a publisher never waits while a reader reads.
///
/// The order of the fields puts the fields that a wake-up uses into one cache line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct ReaderState {
    /// The next offset to read. Only the reader writes it. Relaxed is enough, because overviews
    /// only show it.
    pub(crate) next: AtomicU64,
    /// The offset of the newest event for which the reader was woken. Publishers raise it. Relaxed
    /// is enough, because overviews only show it.
    newest: AtomicU64,
    pub(crate) slot: WakeSlot,
    /// The reader's number, unique among the readers of a log. A reader that is opened later has a
    /// higher number.
    pub(crate) number: u64,
    /// The offset of the last event for which a publisher counted this reader as a recipient. With
    /// it, a publisher counts each reader of an event only once, even if the reader is on several
    /// lists. Relaxed is enough, because publishers count while they hold the sequence lock, which
    /// only one thread can hold.
    counted: AtomicU64,
    pub(crate) client: Option<ClientId>,
    /// The bytes that the reader has read. Only the reader writes it. Relaxed is enough, because
    /// overviews only show it.
    bytes: AtomicU64,
    /// Two numbers of the program that opened the reader. Relaxed is enough, because overviews only
    /// show them.
    tag: [AtomicU64; 2],
    /// The log time at which the reader was opened.
    opened: Timestamp,
    /// The events that the reader has read. Only the reader writes it. Relaxed is enough, because
    /// overviews only show it.
    events: AtomicU32,
    /// The number of topics and patterns that the reader subscribed to, for overviews.
    pub(crate) selectors: u16,
    /// Whether the reader is on more than one list. The list of everyone's topic does not count,
    /// because every reader is on it.
    pub(crate) has_several: bool,
}

/// An overview of one reader.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ReaderOverview {
    /// The reader's number, unique among the readers of a log.
    pub number: u64,
    /// The client whose inbox the reader reads.
    pub client: Option<ClientId>,
    /// The newest offset for which the reader was woken, minus the last offset that the reader has
    /// read.
    pub lag: u64,
    /// The number of topics and patterns that the reader subscribed to, or 65,535 if there are
    /// more.
    pub selectors: usize,
    /// How long the reader has been open.
    pub age: Duration,
    /// The events that the reader has read, as far as its program has noted them with
    /// [`Reader::note_read`](crate::Reader::note_read), or 4,294,967,295 if there are more.
    pub events: u64,
    /// The bytes that the reader has read, as far as its program has noted them with
    /// [`Reader::note_read`](crate::Reader::note_read).
    pub bytes: u64,
    /// The numbers that the program gave the reader with
    /// [`Reader::set_tag`](crate::Reader::set_tag); 0 if it gave none.
    pub tag: [u64; 2],
}

impl ReaderState {
    pub(crate) fn new(
        number: u64,
        client: Option<ClientId>,
        selectors: usize,
        now: Timestamp,
    ) -> Self {
        let has_several = selectors + usize::from(client.is_some()) > 1;
        Self {
            next: AtomicU64::new(u64::MAX),
            newest: AtomicU64::new(0),
            slot: WakeSlot::new(),
            number,
            counted: AtomicU64::new(0),
            client,
            bytes: AtomicU64::new(0),
            tag: [AtomicU64::new(0), AtomicU64::new(0)],
            opened: now,
            events: AtomicU32::new(0),
            selectors: u16::try_from(selectors).unwrap_or(u16::MAX),
            has_several,
        }
    }

    /// The log time at which the reader was opened.
    pub(crate) fn opened(&self) -> Timestamp {
        self.opened
    }

    pub(crate) fn note_newest(&self, offset: u64) {
        self.newest.fetch_max(offset, Ordering::Relaxed);
    }

    /// The newest offset for which the reader was woken, minus the last offset that the reader has
    /// read.
    pub(crate) fn lag(&self) -> u64 {
        // A reader that has not begun to read has the highest number here, so its lag is 0.
        let next = self.next.load(Ordering::Relaxed);
        (self.newest.load(Ordering::Relaxed) + 1).saturating_sub(next)
    }

    /// Adds to the events and bytes that the reader has read. Only the reader may call this.
    pub(crate) fn note_read(&self, events: usize, bytes: usize) {
        let before = self.bytes.load(Ordering::Relaxed);
        self.bytes.store(before.wrapping_add(bytes as u64), Ordering::Relaxed);
        let (before, more) =
            (self.events.load(Ordering::Relaxed), u32::try_from(events).unwrap_or(u32::MAX));
        self.events.store(before.saturating_add(more), Ordering::Relaxed);
    }

    pub(crate) fn set_tag(&self, tag: [u64; 2]) {
        self.tag.iter().zip(tag).for_each(|(number, new)| number.store(new, Ordering::Relaxed));
    }

    pub(crate) fn overview(&self, now: Timestamp) -> ReaderOverview {
        ReaderOverview {
            number: self.number,
            client: self.client.clone(),
            lag: self.lag(),
            selectors: self.selectors.into(),
            age: Duration::from_millis(now.as_millis().saturating_sub(self.opened.as_millis())),
            events: self.events.load(Ordering::Relaxed).into(),
            bytes: self.bytes.load(Ordering::Relaxed),
            tag: self.tag.each_ref().map(|number| number.load(Ordering::Relaxed)),
        }
    }

    /// Marks the reader as counted for the event at `offset`. Returns `false` if it was already
    /// counted for this event.
    pub(crate) fn count_once(&self, offset: u64) -> bool {
        self.counted.swap(offset, Ordering::Relaxed) != offset
    }
}
