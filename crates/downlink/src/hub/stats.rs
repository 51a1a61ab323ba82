//! Numbers of a hub: sizes now, and counts since it was made.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{DisconnectReason, GapReason, Hub};

/// The reasons that gaps are counted by.
const GAP_REASONS: [GapReason; 6] = [
    GapReason::Evicted,
    GapReason::UnknownId,
    GapReason::NewEpoch,
    GapReason::Lagged,
    GapReason::Lost,
    GapReason::Unreadable,
];

/// Counts since the hub was made.
#[derive(Debug, Default)]
pub(super) struct Counters {
    read: AtomicU64,
    connected: AtomicU64,
    refused: AtomicU64,
    disconnected: [AtomicU64; DisconnectReason::ALL.len()],
    gaps: [AtomicU64; GAP_REASONS.len()],
}

/// Numbers of a hub at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Subscriptions there are.
    pub subscribers: usize,
    /// Topics and clients' inboxes that exist: with events, finished, or subscribed to by name.
    pub topics: usize,
    /// Events kept; one that is in several topics counts in each.
    pub events: usize,
    /// Bytes kept.
    pub bytes: usize,
    /// Events published; with a store, those that are committed.
    pub published: u64,
    /// Events taken from the log by subscriptions.
    pub delivered: u64,
    /// Subscriptions opened.
    pub connects: u64,
    /// Subscriptions refused at a limit, or by a hub that is closed or drains.
    pub refused: u64,
    /// Subscriptions ended, by reason.
    pub disconnects: Vec<(DisconnectReason, u64)>,
    /// Gaps told, by reason.
    pub gaps: Vec<(GapReason, u64)>,
}

impl Counters {
    pub(super) fn note_read(&self, events: usize) {
        self.read.fetch_add(events as u64, Ordering::Relaxed);
    }

    pub(super) fn note_connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_disconnected(&self, reason: DisconnectReason) {
        note(&self.disconnected, &DisconnectReason::ALL, reason);
    }

    pub(super) fn note_gap(&self, reason: GapReason) {
        note(&self.gaps, &GAP_REASONS, reason);
    }
}

fn note<R: PartialEq>(counts: &[AtomicU64], reasons: &[R], reason: R) {
    let counted = reasons.iter().zip(counts).find(|(counted, _)| **counted == reason);
    if let Some((_, count)) = counted {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn counts<R: Copy>(counts: &[AtomicU64], reasons: &[R]) -> Vec<(R, u64)> {
    let load = |(reason, count): (&R, &AtomicU64)| (*reason, count.load(Ordering::Relaxed));
    reasons.iter().zip(counts).map(load).collect()
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// The numbers now. Each is right at some moment during the call.
    pub fn stats(&self) -> Stats {
        let totals = self.0.log.totals(self.now());
        let counters = &self.0.counters;
        Stats {
            subscribers: totals.subscribers,
            topics: totals.topics,
            events: totals.events,
            bytes: totals.bytes,
            published: totals.published,
            delivered: counters.read.load(Ordering::Relaxed),
            connects: counters.connected.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            disconnects: counts(&counters.disconnected, &DisconnectReason::ALL),
            gaps: counts(&counters.gaps, &GAP_REASONS),
        }
    }
}
