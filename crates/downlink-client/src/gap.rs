//! The notice that events were missed.
//!
//! A notice that cannot be read in full is still a gap: what is unknown stays empty.

use serde::Deserialize;
use std::time::Duration;

/// The event type of a server's gap notice.
pub(crate) const GAP_EVENT_TYPE: &str = "downlink.gap";

/// Events were missed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The last event id that the client gave; what it received up to there is complete.
    pub after: Option<String>,
    /// The first event that the server still has, if it has any.
    pub oldest: Option<String>,
    /// How long to wait before fetching anew what was missed, so that not all readers do at once.
    pub wait: Duration,
}

/// Why events were missed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum GapReason {
    /// They are older than what the server keeps.
    Evicted,
    /// The server cannot tell where the client's last event id was.
    UnknownId,
    /// The server's history began anew since.
    NewEpoch,
    /// The client read too slowly.
    Lagged,
    /// The server lost them.
    Lost,
    /// The last event id cannot be a header, so the server was not told where to resume. Made by
    /// this client: see [`LAST_EVENT_ID_BYTES_MAX`](crate::LAST_EVENT_ID_BYTES_MAX).
    UnsendableId,
    /// A reason that this version does not know; empty if the server gave none.
    Other(String),
    /// The notice cannot be read.
    #[default]
    Unreadable,
}

impl GapReason {
    fn parse(word: String) -> Self {
        match &*word {
            "evicted" => Self::Evicted,
            "unknown_id" => Self::UnknownId,
            "new_epoch" => Self::NewEpoch,
            "lagged" => Self::Lagged,
            "lost" => Self::Lost,
            _ => Self::Other(word),
        }
    }
}

#[derive(Deserialize)]
struct Notice {
    #[serde(default)]
    reason: String,
    after: Option<String>,
    oldest: Option<String>,
    #[serde(default)]
    wait_ms: u64,
}

impl Gap {
    /// Reads the data of a gap notice.
    pub(crate) fn parse(data: &str) -> Self {
        match serde_json::from_str::<Notice>(data) {
            Ok(Notice { reason, after, oldest, wait_ms }) => Self {
                reason: GapReason::parse(reason),
                after,
                oldest,
                wait: Duration::from_millis(wait_ms),
            },
            Err(_) => Self::default(),
        }
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
        assert_eq!(reason("flood"), GapReason::Other("flood".into()));
        assert_eq!(Gap::parse("{}").reason, GapReason::Other(String::new()));
    }

    #[test]
    fn an_unreadable_notice_is_still_a_gap() {
        assert_eq!(Gap::parse("evicted").reason, GapReason::Unreadable);
        assert_eq!(Gap::parse(r#"{"wait_ms":-1}"#).reason, GapReason::Unreadable);
    }
}
