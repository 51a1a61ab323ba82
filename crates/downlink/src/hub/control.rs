//! The hub's own events: `downlink.open`, `downlink.gap`, `downlink.alive`.
//!
//! Each carries an id only where that is the reader's own cursor, so that it never moves a client
//! past an event that it was not given. Their data is JSON, written here by hand because every
//! value but one is a number or an id; the exception is escaped.

use std::{fmt::Write, time::Duration};

use downlink_proto::{Event, EventId, EventType};

use super::GapReason;

/// What our own event types begin with. Nobody else may use it.
pub(super) const PREFIX: &str = "downlink.";

fn event_type(name: &str) -> EventType {
    EventType::new(&format!("{PREFIX}{name}")).expect("our own types are short ASCII")
}

/// The first event of a subscription: what it has been connected to, and from where.
pub(super) fn open(
    id: Option<EventId>,
    number: u64,
    resumed: bool,
    keep_alive: Option<Duration>,
) -> Event {
    let millis = keep_alive.map_or(0, |interval| interval.as_millis());
    let data =
        format!(r#"{{"resumed":{resumed},"connection":"{number}","keep_alive_ms":{millis}}}"#);
    with_id(Event::new(data).with_type(event_type("open")), id)
}

/// Life on a silent connection, and where the reader stands now if that has moved.
pub(super) fn alive(id: Option<EventId>) -> Event {
    with_id(Event::new("{}").with_type(event_type("alive")), id)
}

fn with_id(event: Event, id: Option<EventId>) -> Event {
    match id {
        Some(id) => event.with_id(id),
        None => event,
    }
}

/// Events are missing: those after the id `after` and up to `until`. `oldest` is the first one that
/// follows.
pub(super) fn gap(
    id: EventId,
    reason: GapReason,
    [after, until, oldest]: [Option<&str>; 3],
    wait: Duration,
) -> Event {
    let text = |id: Option<&str>| id.map_or_else(|| "null".to_owned(), json_text);
    let data = format!(
        r#"{{"reason":"{}","after":{},"until":{},"oldest":{},"wait_ms":{}}}"#,
        reason_word(reason),
        text(after),
        text(until),
        text(oldest),
        wait.as_millis(),
    );
    Event::new(data).with_type(event_type("gap")).with_id(id)
}

/// The reasons for gaps, each with its word on the wire and in metrics.
pub(super) const GAP_REASONS: [(GapReason, &str); 6] = [
    (GapReason::Evicted, "evicted"),
    (GapReason::UnknownId, "unknown_id"),
    (GapReason::NewEpoch, "new_epoch"),
    (GapReason::Lagged, "lagged"),
    (GapReason::Lost, "lost"),
    (GapReason::Unreadable, "unreadable"),
];

/// The word for a reason.
pub(super) fn reason_word(reason: GapReason) -> &'static str {
    GAP_REASONS.iter().find(|(known, _)| *known == reason).map_or("unknown", |(_, word)| word)
}

fn json_text(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(json, "\\u{:04x}", u32::from(control));
            }
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_gave_is_escaped() {
        assert_eq!(json_text("a\"b\\c\nd<é"), r#""a\"b\\c\u000ad<é""#);
    }
}
