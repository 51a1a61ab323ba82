//! The notice of a gap, which says that events are missing.
//!
//! A notice that this client cannot parse still counts as a gap. The fields of that gap are empty.

use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// The event type of a server's gap notice.
pub(crate) const GAP_EVENT_TYPE: &str = "downlink.gap";

/// A notice that events are missing.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
pub struct Gap {
    /// The reason why events are missing.
    #[serde(default = "GapReason::none")]
    pub reason: GapReason,
    /// The last event id of the client. The missing events come after the event with this id.
    pub after: Option<String>,
    /// The id of the oldest event that the server still has. `None` if it has no event.
    pub oldest: Option<String>,
    /// How long the app should wait before it fetches the missing data. The server chooses this
    /// time at random, so that not all clients fetch at once.
    #[serde(default, rename = "wait_ms", deserialize_with = "millis")]
    pub wait: Duration,
}

fn millis<'de, D: Deserializer<'de>>(number: D) -> Result<Duration, D::Error> {
    u64::deserialize(number).map(Duration::from_millis)
}

/// The reason why events are missing.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GapReason {
    /// The server has evicted the events.
    Evicted,
    /// The server does not know the client's last event id.
    UnknownId,
    /// The client's last event id is from an earlier epoch. The server begins a new epoch when it
    /// may have lost its history.
    NewEpoch,
    /// The client read too slowly, and the server evicted the events before it could send them.
    Lagged,
    /// The server lost the events, for example in a power cut.
    Lost,
    /// The server has the events in its store but cannot read them.
    Unreadable,
    /// The last event id is too long for a header, or has a character that a header cannot carry.
    /// So the client connected without the id, and the server did not resume. This reason comes
    /// from the client, not from a server. See
    /// [`LAST_EVENT_ID_BYTES_MAX`](crate::LAST_EVENT_ID_BYTES_MAX).
    #[serde(skip)]
    UnsendableId,
    /// The notice cannot be parsed.
    #[default]
    #[serde(skip)]
    UnreadableNotice,
    /// A reason that this version of the client does not know. Empty if the server gave no reason.
    #[serde(untagged)]
    Other(String),
}

impl GapReason {
    fn none() -> Self {
        Self::Other(String::new())
    }
}

impl Gap {
    /// Parses the data of a gap notice.
    pub(crate) fn parse(data: &str) -> Self {
        serde_json::from_str(data).unwrap_or_default()
    }

    /// The gap after an id that cannot be sent.
    pub(crate) fn after_unsendable(id: &str) -> Self {
        Self { reason: GapReason::UnsendableId, after: Some(id.to_owned()), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(word: &str) -> GapReason {
        Gap::parse(&format!(r#"{{"reason":"{word}"}}"#)).reason
    }

    #[test]
    fn a_notice_with_all_fields_is_parsed() {
        let gap =
            Gap::parse(r#"{"reason":"evicted","after":"e-1","oldest":"e-9","wait_ms":250,"x":1}"#);
        let expected = Gap {
            reason: GapReason::Evicted,
            after: Some("e-1".into()),
            oldest: Some("e-9".into()),
            wait: Duration::from_millis(250),
        };
        assert_eq!(gap, expected);
    }

    #[test]
    fn oldest_is_null_if_no_event_is_retained() {
        assert_eq!(Gap::parse(r#"{"reason":"lost","after":"a","oldest":null}"#).oldest, None);
    }

    #[test]
    fn every_reason_is_parsed() {
        assert_eq!(reason("evicted"), GapReason::Evicted);
        assert_eq!(reason("unknown_id"), GapReason::UnknownId);
        assert_eq!(reason("new_epoch"), GapReason::NewEpoch);
        assert_eq!(reason("lagged"), GapReason::Lagged);
        assert_eq!(reason("lost"), GapReason::Lost);
        assert_eq!(reason("unreadable"), GapReason::Unreadable);
        assert_eq!(reason("flood"), GapReason::Other("flood".into()));
        assert_eq!(Gap::parse("{}").reason, GapReason::Other(String::new()));
    }

    #[test]
    fn an_unreadable_notice_is_still_a_gap() {
        assert_eq!(Gap::parse("evicted").reason, GapReason::UnreadableNotice);
        assert_eq!(Gap::parse(r#"{"wait_ms":-1}"#).reason, GapReason::UnreadableNotice);
    }
}
