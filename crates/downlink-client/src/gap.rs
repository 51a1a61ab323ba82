//! The notice of missed events.
//!
//! An unreadable notice is still a gap. Fields that cannot be read stay empty.

use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// The event type of a server's gap notice.
pub(crate) const GAP_EVENT_TYPE: &str = "downlink.gap";

/// Events were missed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
pub struct Gap {
    /// Why.
    #[serde(default = "GapReason::none")]
    pub reason: GapReason,
    /// The last event id that the client sent. The client has received everything up to that event.
    pub after: Option<String>,
    /// The oldest event that the server still has. `None` if it has none.
    pub oldest: Option<String>,
    /// How long to wait before fetching anew what was missed, so that not all readers do at once.
    #[serde(default, rename = "wait_ms", deserialize_with = "millis")]
    pub wait: Duration,
}

fn millis<'de, D: Deserializer<'de>>(number: D) -> Result<Duration, D::Error> {
    u64::deserialize(number).map(Duration::from_millis)
}

/// Why events were missed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GapReason {
    /// The server has evicted them.
    Evicted,
    /// The server does not know the position of the client's last event id.
    UnknownId,
    /// The server's history has started anew since then.
    NewEpoch,
    /// The client read too slowly.
    Lagged,
    /// The server lost them, as after a power cut.
    Lost,
    /// The server has them in its store and cannot read them.
    Unreadable,
    /// The last event id cannot be a header, so the server was not told where to resume. Made by
    /// this client: see [`LAST_EVENT_ID_BYTES_MAX`](crate::LAST_EVENT_ID_BYTES_MAX).
    #[serde(skip)]
    UnsendableId,
    /// The notice cannot be read.
    #[default]
    #[serde(skip)]
    UnreadableNotice,
    /// A reason that this version does not know; empty if the server gave none.
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
    fn a_full_notice() {
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
    fn nothing_retained_is_null() {
        assert_eq!(Gap::parse(r#"{"reason":"lost","after":"a","oldest":null}"#).oldest, None);
    }

    #[test]
    fn every_reason() {
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
