//! The requests and answers of the JetStream API, as far as this crate uses them. A *subject* is
//! the address to which a message is published. A *sequence* is the number of a message in a
//! stream.
//!
//! The answers of the server have a code for each kind of error. This file turns the codes into
//! errors of a journal. A code that is not listed here leaves the outcome unknown.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use downlink_cluster::{Bounds, JournalError, JournalId, Position, RawEntry};
use downlink_log::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The prefix of all subjects of the API.
pub(crate) const PREFIX: &str = "$JS.API";
/// The server knows no such stream.
pub(crate) const STREAM_NOT_FOUND: u32 = 10_059;
/// There is no message with this sequence.
pub(crate) const NO_MESSAGE_FOUND: u32 = 10_037;
/// A stream with this name has another configuration.
pub(crate) const STREAM_NAME_EXISTS: u32 = 10_058;
/// The subject belongs to another stream than the expected one.
const STREAM_NOT_MATCH: u32 = 10_060;
/// The last sequence is not the expected one. With the first of these codes, the description ends
/// with the last sequence.
pub(crate) const WRONG_LAST_SEQUENCE: [u32; 2] = [10_071, 10_164];
/// The message is larger than the stream allows.
const MESSAGE_EXCEEDS_MAXIMUM: u32 = 10_054;
/// The headers are larger than the server allows.
const HEADER_EXCEEDS_MAXIMUM: u32 = 10_097;
/// The account has no JetStream.
pub(crate) const NOT_ENABLED_FOR_ACCOUNT: u32 = 10_039;
/// The server has no JetStream.
pub(crate) const NOT_ENABLED: u32 = 10_076;
/// The cluster has no leader.
pub(crate) const CLUSTER_NOT_AVAILABLE: u32 = 10_008;
/// Too few servers are known for the replicas of the stream. Servers answer so for some seconds
/// after they have started.
pub(crate) const NO_SUITABLE_PEERS: u32 = 10_005;
/// The stream is read-only for good.
const STREAM_SEALED: u32 = 10_109;
/// The storage limits of the server are reached.
const INSUFFICIENT_RESOURCES: u32 = 10_023;
/// The storage limits of the account are reached.
const ACCOUNT_RESOURCES_EXCEEDED: u32 = 10_002;
/// The message was not stored; the description has the reason.
const STORE_FAILED: u32 = 10_077;
/// The descriptions of [`STORE_FAILED`] if a stream with the policy "discard new" is full. For
/// other reasons, other servers of the stream may have stored the message.
const FULL: [&str; 2] = ["maximum bytes exceeded", "maximum messages exceeded"];
/// The description of [`STORE_FAILED`] if the message is too large.
const TOO_LARGE: &str = "message too large";

/// An error in an answer of the server.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ApiError {
    #[serde(default)]
    pub(crate) err_code: u32,
    #[serde(default)]
    pub(crate) description: String,
}

impl ApiError {
    /// The error of the journal. The outcome is unknown unless the code says that the server has
    /// refused the request before it stored anything.
    pub(crate) fn journal_error(&self) -> JournalError {
        let is = |texts: &[&str]| texts.contains(&self.description.as_str());
        match self.err_code {
            STREAM_NOT_FOUND | STREAM_NOT_MATCH => JournalError::Replaced,
            MESSAGE_EXCEEDS_MAXIMUM | HEADER_EXCEEDS_MAXIMUM | STREAM_SEALED => {
                JournalError::Refused
            }
            STORE_FAILED if is(&[TOO_LARGE]) => JournalError::Refused,
            STORE_FAILED if is(&FULL) => JournalError::Full,
            INSUFFICIENT_RESOURCES | ACCOUNT_RESOURCES_EXCEEDED => JournalError::Full,
            _ => JournalError::Unavailable,
        }
    }

    /// The last sequence in the description of [`WRONG_LAST_SEQUENCE`].
    pub(crate) fn last_sequence(&self) -> Option<u64> {
        self.description.rsplit(' ').next()?.parse().ok()
    }
}

/// The reason why a request has no result.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// There was no answer in time, or it was unreadable.
    Unavailable,
    /// No server listens to the subject of the request.
    NoResponders,
    /// The request is larger than the server allows. It was not sent.
    TooLarge,
    /// The server has refused the request.
    Refused(ApiError),
}

impl Failure {
    pub(crate) fn journal_error(&self) -> JournalError {
        match self {
            Self::Unavailable | Self::NoResponders => JournalError::Unavailable,
            Self::TooLarge => JournalError::Refused,
            Self::Refused(error) => error.journal_error(),
        }
    }
}

/// Decodes an answer.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    #[derive(Deserialize)]
    struct Outcome {
        error: Option<ApiError>,
    }
    let unreadable = |_| Failure::Unavailable;
    match serde_json::from_slice::<Outcome>(bytes).map_err(unreadable)?.error {
        Some(error) => Err(Failure::Refused(error)),
        None => serde_json::from_slice(bytes).map_err(unreadable),
    }
}

/// The answer to a published message.
#[derive(Debug, Deserialize)]
pub(crate) struct Acknowledgement {
    pub(crate) seq: u64,
}

/// The answer with a stored message.
#[derive(Debug, Deserialize)]
pub(crate) struct Gotten {
    message: StoredMessage,
}

#[derive(Debug, Deserialize)]
struct StoredMessage {
    subject: String,
    seq: u64,
    /// Base64.
    #[serde(default)]
    data: String,
    time: jiff::Timestamp,
}

impl Gotten {
    /// The subject of the message.
    pub(crate) fn subject(&self) -> &str {
        &self.message.subject
    }

    /// The message as an entry. A position before `from` is no answer.
    pub(crate) fn entry(&self, from: Position) -> Result<RawEntry, Failure> {
        let StoredMessage { seq, data, time, .. } = &self.message;
        if *seq < from.get() {
            return Err(Failure::Unavailable);
        }
        let bytes = STANDARD.decode(data).map_err(|_| Failure::Unavailable)?;
        Ok(RawEntry { position: Position::new(*seq), time: timestamp(*time), bytes })
    }
}

/// The configuration and the state of a stream.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Description {
    pub(crate) config: Config,
    pub(crate) state: State,
    created: jiff::Timestamp,
    /// The time of the answer. Servers before 2.10 do not have it.
    #[serde(default)]
    ts: jiff::Timestamp,
    cluster: Option<Group>,
}

/// The entries of a stream.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct State {
    first_seq: u64,
    last_seq: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    first_ts: jiff::Timestamp,
    last_ts: jiff::Timestamp,
    #[serde(default)]
    pub(crate) num_deleted: u64,
}

/// The servers of a stream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Group {
    leader: String,
    replicas: Vec<Peer>,
}

/// A server of a stream that does not lead it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) current: bool,
    pub(crate) offline: bool,
    pub(crate) lag: u64,
    /// The nanoseconds since the leader has heard of the server.
    pub(crate) active: u64,
}

/// A time of the server. Times before 1970 are the times of a stream without entries.
fn timestamp(time: jiff::Timestamp) -> Timestamp {
    Timestamp::from_millis(u64::try_from(time.as_millisecond()).unwrap_or(0))
}

impl Description {
    /// The identity of the stream: the time of its creation in nanoseconds.
    pub(crate) fn id(&self) -> JournalId {
        JournalId(u64::try_from(self.created.as_nanosecond()).unwrap_or(0))
    }

    /// Whether the leader of the stream has answered. Without a leader, any server of the stream
    /// answers, and may have fewer entries than were acknowledged.
    pub(crate) fn is_from_leader(&self) -> bool {
        self.cluster.as_ref().is_none_or(|group| !group.leader.is_empty())
    }

    /// The server that leads the stream.
    pub(crate) fn leader(&self) -> Option<&str> {
        self.cluster.as_ref().map(|group| group.leader.as_str())
    }

    /// The other servers of the stream.
    pub(crate) fn followers(&self) -> impl Iterator<Item = &Peer> {
        self.cluster.iter().flat_map(|group| &group.replicas)
    }

    /// The time of the answer.
    pub(crate) fn at(&self) -> Timestamp {
        timestamp(self.ts)
    }

    /// The times of the first and of the last entry.
    pub(crate) fn times(&self) -> Option<(Timestamp, Timestamp)> {
        let State { first_ts, last_ts, .. } = self.state;
        (self.state.messages > 0).then(|| (timestamp(first_ts), timestamp(last_ts)))
    }

    /// Whether the stream has an entry at each position between its first and its last one.
    pub(crate) fn is_dense(&self) -> bool {
        self.state.num_deleted == 0
    }

    /// The positions of the stream.
    pub(crate) fn bounds(&self) -> Bounds {
        let first = Position::new(self.state.first_seq.max(1));
        Bounds { first, last: Position::new(self.state.last_seq) }
    }
}

/// The configuration of a stream. Fields that this crate does not use are left out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) subjects: Vec<String>,
    pub(crate) retention: String,
    pub(crate) discard: String,
    pub(crate) storage: String,
    pub(crate) num_replicas: usize,
    /// Nanoseconds.
    pub(crate) max_age: u64,
    pub(crate) max_bytes: i64,
    pub(crate) max_msgs: i64,
    pub(crate) max_msgs_per_subject: i64,
    pub(crate) max_msg_size: i64,
    /// Nanoseconds.
    pub(crate) duplicate_window: u64,
    pub(crate) deny_delete: bool,
    pub(crate) deny_purge: bool,
    pub(crate) allow_rollup_hdrs: bool,
    pub(crate) allow_msg_ttl: bool,
    pub(crate) no_ack: bool,
    pub(crate) sealed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) persist_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) placement: Option<Placement>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(skip_serializing)]
    pub(crate) mirror: Option<serde_json::Value>,
    #[serde(skip_serializing)]
    pub(crate) sources: Option<serde_json::Value>,
    #[serde(skip_serializing)]
    pub(crate) subject_transform: Option<serde_json::Value>,
}

/// The servers that may keep a stream.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Placement {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
}

/// The place of a delivered message. It is read from the subject for the acknowledgement of the
/// message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Delivery {
    pub(crate) sequence: u64,
    pub(crate) time: Timestamp,
    /// The number of messages after this one.
    pub(crate) pending: u64,
}

impl Delivery {
    /// Reads the subject: `$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.COUNT.NANOSECONDS.PENDING`.
    /// Newer servers add a domain and an account after `$JS.ACK`, and may add tokens at the end.
    pub(crate) fn parse(subject: &str) -> Option<Self> {
        const NANOS_PER_MILLI: u64 = 1_000_000;
        let tokens: Vec<&str> = subject.strip_prefix("$JS.ACK.")?.split('.').collect();
        let begin = if tokens.len() >= 9 { 2 } else { 0 };
        let number = |at: usize| tokens.get(begin + at)?.parse::<u64>().ok();
        let time = Timestamp::from_millis(number(5)? / NANOS_PER_MILLI);
        Some(Self { sequence: number(3)?, time, pending: number(6)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> JournalError {
        let answer = format!("{{\"error\":{text},\"stream\":\"s\",\"seq\":0}}");
        decode::<Acknowledgement>(answer.as_bytes()).unwrap_err().journal_error()
    }

    #[test]
    fn codes_become_errors_of_the_journal() {
        let too_large = r#"{"code":400,"err_code":10054,"description":"message size exceeds"}"#;
        assert_eq!(refused(too_large), JournalError::Refused);
        let gone = r#"{"code":404,"err_code":10059,"description":"stream not found"}"#;
        assert_eq!(refused(gone), JournalError::Replaced);
        let account = r#"{"code":400,"err_code":10002,"description":"resource limits exceeded"}"#;
        assert_eq!(refused(account), JournalError::Full);
        let full = r#"{"code":503,"err_code":10077,"description":"maximum bytes exceeded"}"#;
        assert_eq!(refused(full), JournalError::Full);
    }

    #[test]
    fn an_unclear_outcome_is_unavailable() {
        let repeated = r#"{"code":409,"err_code":10158,"description":"duplicate message id"}"#;
        assert_eq!(refused(repeated), JournalError::Unavailable);
        let disk = r#"{"code":503,"err_code":10077,"description":"error opening msg block"}"#;
        assert_eq!(refused(disk), JournalError::Unavailable);
        let unreadable = decode::<Acknowledgement>(b"+OK").unwrap_err();
        assert_eq!(unreadable.journal_error(), JournalError::Unavailable);
    }

    #[test]
    fn the_last_sequence_is_read_from_the_description() {
        let description = "wrong last sequence: 17".into();
        let error = ApiError { err_code: WRONG_LAST_SEQUENCE[0], description };
        assert_eq!(error.last_sequence(), Some(17));
        let description = "wrong last sequence".into();
        let error = ApiError { err_code: WRONG_LAST_SEQUENCE[1], description };
        assert_eq!(error.last_sequence(), None);
    }

    #[test]
    fn both_forms_of_the_subject_for_acknowledgements_are_read() {
        let time = Timestamp::from_millis(1_700_000_000_123);
        let delivery = Some(Delivery { sequence: 9, time, pending: 4 });
        assert_eq!(Delivery::parse("$JS.ACK.s.c.1.9.3.1700000000123456789.4"), delivery);
        assert_eq!(Delivery::parse("$JS.ACK._.hash.s.c.1.9.3.1700000000123456789.4"), delivery);
        let newer = "$JS.ACK.hub.hash.s.c.1.9.3.1700000000123456789.4.token";
        assert_eq!(Delivery::parse(newer), delivery);
        assert_eq!(Delivery::parse("$JS.ACK.s.c.1.9.3.1700000000123456789"), None);
        assert_eq!(Delivery::parse("_INBOX.a.b"), None);
    }

    #[test]
    fn a_stored_message_becomes_an_entry_with_its_position_and_time() {
        let answer = r#"{"message":{"subject":"s","seq":3,"data":"YWI=",
            "time":"2023-11-14T22:13:20.123456789Z"}}"#;
        let gotten = decode::<Gotten>(answer.as_bytes()).unwrap();
        let (position, time) = (Position::new(3), Timestamp::from_millis(1_700_000_000_123));
        let entry = RawEntry { position, time, bytes: b"ab".to_vec() };
        assert_eq!(gotten.entry(position).unwrap(), entry);
        // With an entry before the position that was asked for, a tail would go backwards.
        assert!(matches!(gotten.entry(position.next()), Err(Failure::Unavailable)));
    }
}
