//! The counts of one server for `GET /metrics`: the results of publishes, the failures of access
//! control, and the connections of each listener. All listeners of a server share one [`Counters`].
//!
//! All requests pass through the module `guard`. It counts a refused request when it has the
//! answer, so it counts the refusals of all routes. The hub counts published events, because only
//! the hub knows when an event is committed.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use axum::http::StatusCode;
use downlink::{
    hub::{Confirmed, PublishError, StoreError},
    serve::ServeStats,
};
use downlink_access::AccessError;
use parking_lot::Mutex;

/// The result of a publish that did not publish a new event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum PublishResult {
    /// The event had already been published, with the same id or idempotency key.
    Repeated,
    /// The request breaks a rule for publishes.
    Invalid,
    /// The credential is bad, or its grant does not cover the publish.
    Denied,
    RateLimited,
    TooLarge,
    /// The topic is finished.
    Finished,
    /// The id or the idempotency key belongs to another event.
    Conflict,
    TooManyTopics,
    /// Too many events waited for the store.
    Busy,
    DiskFull,
    StoreFailed,
    /// The engine (the NATS servers that keep the events of a cluster) did not take the event, or
    /// the node does not know whether the engine has it.
    EngineAway,
    EngineFull,
    /// The server was shutting down, or could not fetch the keys of a token.
    Unavailable,
    /// The server itself failed.
    Failed,
}

impl PublishResult {
    pub(super) const ALL: [(Self, &'static str); 15] = [
        (Self::Repeated, "repeated"),
        (Self::Invalid, "invalid"),
        (Self::Denied, "denied"),
        (Self::RateLimited, "rate_limited"),
        (Self::TooLarge, "too_large"),
        (Self::Finished, "finished"),
        (Self::Conflict, "conflict"),
        (Self::TooManyTopics, "too_many_topics"),
        (Self::Busy, "busy"),
        (Self::DiskFull, "disk_full"),
        (Self::StoreFailed, "store_failed"),
        (Self::EngineAway, "engine_away"),
        (Self::EngineFull, "engine_full"),
        (Self::Unavailable, "unavailable"),
        (Self::Failed, "failed"),
    ];

    /// The result of a publish that was refused with this status.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied,
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            status if status.is_server_error() => Self::Failed,
            _ => Self::Invalid,
        }
    }

    /// The result of a publish that the hub refused. `None` if the status of the answer already
    /// tells the result.
    pub(super) fn of_error(error: &PublishError) -> Option<Self> {
        Some(match error {
            PublishError::Finished => Self::Finished,
            PublishError::IdTaken | PublishError::KeyReused => Self::Conflict,
            PublishError::TooManyTopics { .. } => Self::TooManyTopics,
            PublishError::Busy => Self::Busy,
            PublishError::Store(StoreError::DiskFull) => Self::DiskFull,
            PublishError::Store(_) => Self::StoreFailed,
            PublishError::EngineAway | PublishError::OutcomeUnknown => Self::EngineAway,
            PublishError::EngineFull => Self::EngineFull,
            PublishError::EntryTooLarge => Self::TooLarge,
            _ => return None,
        })
    }
}

/// The counts of one server. They begin at 0 when the server starts.
#[derive(Debug)]
pub struct Counters {
    pub(super) started: SystemTime,
    /// Every access is Relaxed, because the counts are only shown.
    confirmed: AtomicU64,
    publishes: [AtomicU64; PublishResult::ALL.len()],
    auth_failures: [AtomicU64; AccessError::CODES.len()],
    /// The name and the connections of each listener. The lock is held alone, for a moment.
    listeners: Mutex<Vec<(&'static str, ServeStats)>>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            started: SystemTime::now(),
            confirmed: AtomicU64::new(0),
            publishes: Default::default(),
            auth_failures: Default::default(),
            listeners: Mutex::default(),
        }
    }
}

impl Counters {
    /// Adds a listener. The result is for [`record_stats`](downlink::serve::Serve::record_stats).
    pub fn listener(&self, name: &'static str) -> ServeStats {
        let stats = ServeStats::new();
        self.listeners.lock().push((name, stats.clone()));
        stats
    }

    pub(crate) fn listeners(&self) -> Vec<(&'static str, ServeStats)> {
        self.listeners.lock().clone()
    }

    pub(super) fn note_publish(&self, result: PublishResult) {
        self.publishes[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a confirmed event.
    pub(super) fn note_confirmed(&self, confirmed: &Confirmed) {
        if confirmed.is_repeated() {
            self.note_publish(PublishResult::Repeated);
        } else {
            self.confirmed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of events that were published through this server.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// Counts a refusal of access control. Other codes are ignored.
    pub(super) fn note_auth_failure(&self, code: &str) {
        let known = AccessError::CODES.iter().zip(&self.auth_failures);
        if let Some((_, count)) = known.into_iter().find(|(known, _)| **known == code) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of publishes with each result, except for published events.
    pub(crate) fn publishes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.publishes.iter().map(|count| count.load(Ordering::Relaxed));
        PublishResult::ALL.into_iter().map(|(_, name)| name).zip(counts)
    }

    /// The number of failures with each code.
    pub(crate) fn auth_failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.auth_failures.iter().map(|count| count.load(Ordering::Relaxed));
        AccessError::CODES.into_iter().zip(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_has_its_own_count() {
        for (index, (result, _)) in PublishResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, index);
        }
    }

    #[test]
    fn only_codes_of_access_control_are_counted() {
        let counters = Counters::default();
        for code in ["token_missing", "revoked", "revoked", "host_denied"] {
            counters.note_auth_failure(code);
        }
        let counted: Vec<_> = counters.auth_failures().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("token_missing", 1), ("revoked", 2)]);
    }
}
