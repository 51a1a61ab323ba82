//! The server's answer to a publish.

use http::{HeaderMap, StatusCode};
use reqwest::Response;
use serde::{Deserialize, de::DeserializeOwned};
use std::{fmt, time::Duration};

use crate::{
    TransportError,
    request::{has_media_type, retry_after},
};

/// The longest answer that is read: 64 KiB.
///
/// A receipt has a hundred bytes and a problem a few hundred, so a larger answer is not from a
/// downlink server.
pub const ANSWER_BYTES_MAX: usize = 64 * 1_024;

/// The longest wait for the description of a refusal: 5 seconds.
///
/// It follows the head of the answer at once. With half, a slow line would lose it; with double, a
/// peer that sends a head and stops would delay the next attempt for longer.
const PROBLEM_TIMEOUT: Duration = Duration::from_secs(5);

const PROBLEM: &str = "application/problem+json";

/// The server's receipt for one published event.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct Receipt {
    /// The event's id, as subscribers see it.
    pub id: String,
    /// The number of subscriptions that the event was for when it was published.
    pub subscribers: u64,
    /// Whether the event is stored as safely as the server can. `false` if the server answers
    /// before its store has the event.
    #[serde(skip)]
    pub committed: bool,
}

/// The server's receipt for a published stream.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct StreamReceipt {
    /// The id of the last event. `None` if the stream had no event.
    pub id: Option<String>,
    /// The number of events that were published.
    #[serde(default)]
    pub events: u64,
    /// The number of events that the server already had, with the same ids. They were not
    /// published again.
    #[serde(default)]
    pub repeated: u64,
    /// The number of subscriptions that the last event was for.
    #[serde(default)]
    pub subscribers: u64,
}

/// The server's description of an error (RFC 9457).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
pub struct Problem {
    /// The HTTP status of the answer.
    #[serde(skip)]
    pub status: StatusCode,
    /// The kind of problem as a URI. Empty if the server gave none.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The title of this kind of problem.
    #[serde(default)]
    pub title: String,
    /// A description of this error, and how to fix it.
    #[serde(default)]
    pub detail: String,
    /// The wait that `Retry-After` asks for.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.detail.is_empty() { &self.title } else { &self.detail };
        write!(f, "{} {text}", self.status.as_u16())
    }
}

/// A failed publish, or one with an unknown result.
///
/// After [`Transport`](Self::Transport), [`Timeout`](Self::Timeout) and the two unreadable answers,
/// the server may have published the event or not. An
/// [idempotency key](crate::PublishRequest::idempotency_key) makes it safe to try again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The server refused the request and published nothing.
    #[error("the server refused: {0}")]
    Rejected(Problem),
    /// The answer is neither a receipt nor a problem, so it is not from a downlink server.
    #[error("unexpected answer with status {status}")]
    #[non_exhaustive]
    UnexpectedAnswer {
        /// The HTTP status of the answer.
        status: StatusCode,
    },
    /// The answer is longer than [`ANSWER_BYTES_MAX`].
    #[error("the answer is longer than {bytes_max} bytes")]
    #[non_exhaustive]
    AnswerTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// No answer arrived in time.
    #[error("no answer within {after:?}")]
    #[non_exhaustive]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The request or its answer failed on the way.
    #[error("the request did not get through")]
    Transport(#[source] TransportError),
    /// The idempotency key has a character that HTTP cannot carry. Nothing was sent.
    #[error("the idempotency key cannot be sent")]
    IdempotencyKey,
}

/// Reads a receipt of type `T`. The `bool` is whether the status says that the event is committed.
pub(crate) async fn read<T: DeserializeOwned>(
    mut answer: Response,
) -> Result<(T, bool), PublishError> {
    let status = answer.status();
    let body = read_body(&mut answer).await?;
    if !matches!(status, StatusCode::OK | StatusCode::ACCEPTED) {
        return Err(refusal(status, answer.headers(), &body));
    }
    match serde_json::from_slice(&body) {
        Ok(receipt) => Ok((receipt, status == StatusCode::OK)),
        Err(_) => Err(PublishError::UnexpectedAnswer { status }),
    }
}

async fn read_body(answer: &mut Response) -> Result<Vec<u8>, PublishError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(PublishError::AnswerTooLarge { bytes_max: ANSWER_BYTES_MAX });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> PublishError {
    match problem(status, headers, body) {
        Some(problem) => PublishError::Rejected(problem),
        None => PublishError::UnexpectedAnswer { status },
    }
}

/// The problem that an answer describes. `None` if the answer is not from a downlink server.
fn problem(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Problem> {
    if !has_media_type(headers, PROBLEM) {
        return None;
    }
    let problem = serde_json::from_slice::<Problem>(body).ok()?;
    Some(Problem { status, retry_after: retry_after(headers), ..problem })
}

/// Reads the problem of a refused subscription. `None` if there is none, or if it takes longer than
/// [`PROBLEM_TIMEOUT`]: the status alone is an answer too.
pub(crate) async fn read_problem(mut answer: Response) -> Option<Problem> {
    if !has_media_type(answer.headers(), PROBLEM) {
        return None;
    }
    let body = tokio::time::timeout(PROBLEM_TIMEOUT, read_body(&mut answer)).await;
    problem(answer.status(), answer.headers(), &body.ok()?.ok()?)
}

pub(crate) fn transport(error: reqwest::Error) -> PublishError {
    PublishError::Transport(TransportError::new(error))
}
