//! The lines of the log about limits that are reached and requests that are refused.
//!
//! A client can cause many of these events in a second. So no event writes a line: a task looks at
//! the counters of the server every second, and writes a line about each counter that has grown.
//! After a line, the next line about the same counter comes a minute later at the earliest, with
//! the number of events since then. So the log delays no request, and the lines do not fill the
//! disk.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use downlink::{
    hub::{DisconnectReason, Hub},
    serve::RefusedConnection,
};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};

use crate::{app::Counters, logs};

/// How often the task looks at the counters. An operator who tries something and watches the log
/// sees the line at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The time between two lines about the same counter. With a tenth of this time, a long attack
/// would write thousands of lines in a day for each counter. With ten times as much, the log would
/// not show when an attack ends.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// The events that a counter counts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum What {
    /// Connections to a listener, refused because of a limit.
    Connections {
        listener: &'static str,
    },
    /// Requests that access control refused.
    AuthFailures,
    /// Publishes that were refused because of the state of the server.
    Publishes,
    /// Publishes that were refused because of a mistake in the request.
    InvalidPublishes,
    Subscriptions,
    /// Streams that the server ended early.
    Streams,
    Gaps,
    LeftOut,
}

/// A counter: the events that it counts, their reason, and the count.
type Counter = (What, &'static str, u64);

/// Writes the lines until `end` is notified. Then looks once more, and returns.
pub(super) async fn write(hub: Hub<String>, counters: Arc<Counters>, end: Arc<Notify>) {
    let mut notices = Notices::default();
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_end = false;
    while !is_end {
        tokio::select! {
            _ = looks.tick() => {}
            () = end.notified() => is_end = true,
        }
        for (what, reason, count) in counted(&hub, &counters) {
            if let Some(count) = notices.due((what, reason), count, Instant::now(), is_end) {
                line(what, reason, count);
            }
        }
    }
}

fn counted(hub: &Hub<String>, counters: &Counters) -> Vec<Counter> {
    let mut all = Vec::new();
    for (listener, stats) in counters.listeners() {
        let refused = RefusedConnection::ALL.map(|reason| {
            let count = stats.connections_refused(reason);
            (What::Connections { listener }, reason.as_str(), count)
        });
        all.extend(refused);
    }
    all.extend(counters.auth_failures().map(|(code, count)| (What::AuthFailures, code, count)));
    all.extend(counters.publishes().filter_map(|(result, count)| match result {
        "repeated" => None,
        "invalid" | "denied" | "too_large" | "finished" | "conflict" => {
            Some((What::InvalidPublishes, result, count))
        }
        _ => Some((What::Publishes, result, count)),
    }));
    let stats = hub.stats();
    all.push((What::Subscriptions, "", stats.refused));
    let is_early = |reason: DisconnectReason| {
        use DisconnectReason as Reason;
        matches!(reason, Reason::Stalled | Reason::Lagged | Reason::Unreadable)
    };
    let streams = stats.disconnects.iter().filter(|(reason, _)| is_early(*reason));
    all.extend(streams.map(|(reason, count)| (What::Streams, reason.as_str(), *count)));
    all.extend(stats.gaps.iter().map(|(reason, count)| (What::Gaps, reason.as_str(), *count)));
    all.push((What::LeftOut, "", logs::left_out()));
    all
}

/// Writes a line about this many events.
fn line(what: What, reason: &str, count: u64) {
    match what {
        What::Connections { listener } => tracing::warn!(
            count,
            limit = reason,
            listener,
            "connections were refused, because a limit is reached"
        ),
        What::AuthFailures => {
            tracing::warn!(count, code = reason, "requests were refused by access control");
        }
        What::Publishes => tracing::warn!(count, reason, "publishes were refused"),
        What::InvalidPublishes => tracing::info!(count, reason, "publishes were refused"),
        What::Subscriptions => tracing::warn!(
            count,
            "subscriptions were refused, because a limit is reached, the store cannot be read, or \
             the server is shutting down"
        ),
        What::Streams => tracing::warn!(count, reason, "streams were cut"),
        What::Gaps => tracing::info!(count, reason, "subscribers got gaps"),
        What::LeftOut => tracing::warn!(
            count,
            "lines were left out of the log, because the program that reads stderr is too slow, or \
             a write failed"
        ),
    }
}

/// The last line of the log about each counter.
#[derive(Debug, Default)]
struct Notices(HashMap<(What, &'static str), Noticed>);

#[derive(Debug, Default)]
struct Noticed {
    /// The count at the last line.
    count: u64,
    /// The time of the last line.
    at: Option<Instant>,
}

impl Notices {
    /// The number of events that a line should report now. `None` if no line is due. At the end of
    /// the server, a line is due even if the last line is not a minute old.
    fn due(
        &mut self,
        counter: (What, &'static str),
        count: u64,
        now: Instant,
        is_end: bool,
    ) -> Option<u64> {
        if count == 0 {
            return None;
        }
        let noticed = self.0.entry(counter).or_default();
        let is_early = noticed.at.is_some_and(|at| now.duration_since(at) < LINE_EVERY);
        let new = count.saturating_sub(noticed.count);
        if is_early && !is_end || new == 0 {
            return None;
        }
        *noticed = Noticed { count, at: Some(now) };
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_event_is_reported_at_once_and_the_next_ones_after_a_minute() {
        let (mut notices, start) = (Notices::default(), Instant::now());
        let mut due = |count, after: u64| {
            let now = start + Duration::from_secs(after);
            notices.due((What::Gaps, "lagged"), count, now, false)
        };
        assert_eq!(due(0, 0), None);
        assert_eq!(due(2, 1), Some(2));
        assert_eq!(due(2, 2), None);
        assert_eq!(due(9, 60), None, "the last line is not a minute old");
        assert_eq!(due(10, 61), Some(8));
        assert_eq!(due(10, 200), None);
        assert_eq!(due(11, 201), Some(1), "the first event after a quiet time is reported at once");
        let now = start + Duration::from_secs(202);
        assert_eq!(notices.due((What::Gaps, "lagged"), 13, now, true), Some(2), "the end");
    }

    #[test]
    fn each_counter_has_its_own_lines() {
        let (mut notices, now) = (Notices::default(), Instant::now());
        let connections = |listener| What::Connections { listener };
        assert_eq!(notices.due((connections("public"), "connections_max"), 1, now, false), Some(1));
        assert_eq!(notices.due((connections("admin"), "connections_max"), 1, now, false), Some(1));
        assert_eq!(
            notices.due((connections("public"), "connects_per_address"), 1, now, false),
            Some(1)
        );
    }
}
