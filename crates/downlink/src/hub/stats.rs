//! The numbers of a hub: its current sizes, and counts since the hub was made.

use std::sync::atomic::{AtomicU64, Ordering};

use downlink_log::{Lags, StoreTotals, Totals};

use super::{DisconnectReason, GapReason, Refusals};

/// Counts since the hub was made.
#[derive(Debug, Default)]
pub(super) struct Counters {
    read: AtomicU64,
    connected: AtomicU64,
    refused: AtomicU64,
    disconnected: [AtomicU64; DisconnectReason::ALL.len()],
    gaps: [AtomicU64; GapReason::ALL.len()],
}

/// The numbers of a hub, from [`Hub::stats`](super::Hub::stats). All counts begin at 0 when the hub
/// is made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// The number of open subscriptions.
    pub subscribers: usize,
    /// The number of topics and clients' inboxes (the events to one client). A topic counts if it
    /// has events, is finished, or has a subscription that names it.
    pub topics: usize,
    /// The number of retained events. An event in several topics counts once in each topic.
    pub events: usize,
    /// The size of the retained events in bytes.
    pub bytes: usize,
    /// The number of published events. With a store, only committed events count.
    pub published: u64,
    /// The number of publishes that were refused because of the store, by reason.
    pub publishes_refused: Refusals,
    /// The number of events that subscriptions have read. An event counts once for each
    /// subscription that reads it.
    pub delivered: u64,
    /// The number of subscriptions opened.
    pub connects: u64,
    /// The number of subscriptions that were refused because a limit was reached, because the hub
    /// was closed or draining, or because the store could not be read.
    pub refused: u64,
    /// The number of subscriptions ended, by reason.
    pub disconnects: Vec<(DisconnectReason, u64)>,
    /// The number of gaps reported, by reason.
    pub gaps: Vec<(GapReason, u64)>,
    /// The queue and the commits of the store. `None` if the hub has no store.
    pub store: Option<StoreTotals>,
    /// The lags of the open subscriptions, from
    /// [`Hub::stats_with_lags`](super::Hub::stats_with_lags). `None` from
    /// [`Hub::stats`](super::Hub::stats), which does not look at each subscription.
    pub lags: Option<Lags>,
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
        note(&self.gaps, &GapReason::ALL, reason);
    }

    /// Combines these counts with the log's totals.
    pub(super) fn stats(&self, totals: &Totals) -> Stats {
        Stats {
            subscribers: totals.subscribers,
            topics: totals.topics,
            events: totals.events,
            bytes: totals.bytes,
            published: totals.published,
            publishes_refused: totals.refusals,
            delivered: self.read.load(Ordering::Relaxed),
            connects: self.connected.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            disconnects: counts(&self.disconnected, DisconnectReason::ALL),
            gaps: counts(&self.gaps, GapReason::ALL),
            store: totals.store,
            lags: None,
        }
    }
}

fn note<R: PartialEq>(counts: &[AtomicU64], reasons: &[R], reason: R) {
    if let Some((_, count)) = reasons.iter().zip(counts).find(|(known, _)| **known == reason) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn counts<R, const N: usize>(counts: &[AtomicU64], reasons: [R; N]) -> Vec<(R, u64)> {
    let loaded = counts.iter().map(|count| count.load(Ordering::Relaxed));
    reasons.into_iter().zip(loaded).collect()
}
