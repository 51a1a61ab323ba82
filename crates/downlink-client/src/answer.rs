//! The server's answer to a publish.

use http::{HeaderMap, StatusCode};
use reqwest::Response;
use serde::{Deserialize, de::DeserializeOwned};
use std::time::Duration;

use crate::{ANSWER_BYTES_MAX, CredentialsError, Problem, TransportError, problem};

/// The server's receipt for one published event.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct Receipt {
    /// The event's id, as subscribers see it.
    pub id: String,
    /// The number of subscriptions that matched the event when it was published.
    pub subscribers: u64,
    /// Whether the server's store had committed the event when the server answered.
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
    /// The number of events whose ids the server already had. The server did not publish these
    /// events again.
    #[serde(default)]
    pub repeated: u64,
    /// The number of subscriptions that matched the last event.
    #[serde(default)]
    pub subscribers: u64,
}

/// The error of a publish.
///
/// After [`Transport`](Self::Transport), [`Timeout`](Self::Timeout),
/// [`UnexpectedAnswer`](Self::UnexpectedAnswer) and [`AnswerTooLarge`](Self::AnswerTooLarge), it is
/// unknown whether the event was published. With an [idempotency
/// key](crate::PublishRequest::idempotency_key), it is safe to try again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The server refused the request and published nothing.
    #[error("the server refused: {0}")]
    Rejected(Problem),
    /// The answer is neither a receipt nor a [`Problem`], so it is not from a downlink server.
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
    /// No answer arrived within the time limit.
    #[error("no answer within {after:?}")]
    #[non_exhaustive]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The connection failed before the whole answer arrived.
    #[error("the connection failed")]
    Transport(#[source] TransportError),
    /// The function that returns credentials failed. Nothing was published.
    #[error("cannot get credentials for the request")]
    Credentials(#[source] CredentialsError),
    /// The idempotency key has a character that HTTP cannot carry. Nothing was sent.
    #[error("the idempotency key has a character that a header cannot carry")]
    IdempotencyKey,
}

/// Reads a receipt of type `T`. The `bool` is true if the status says that the event is committed.
pub(crate) async fn read<T: DeserializeOwned>(
    mut answer: Response,
) -> Result<(T, bool), PublishError> {
    let status = answer.status();
    let too_large = PublishError::AnswerTooLarge { bytes_max: ANSWER_BYTES_MAX };
    let body = problem::read_body(&mut answer).await.map_err(transport)?.ok_or(too_large)?;
    if !matches!(status, StatusCode::OK | StatusCode::ACCEPTED) {
        return Err(refusal(status, answer.headers(), &body));
    }
    match serde_json::from_slice(&body) {
        Ok(receipt) => Ok((receipt, status == StatusCode::OK)),
        Err(_) => Err(PublishError::UnexpectedAnswer { status }),
    }
}

fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> PublishError {
    match problem::parse(status, headers, body) {
        Some(problem) => PublishError::Rejected(problem),
        None => PublishError::UnexpectedAnswer { status },
    }
}

pub(crate) fn transport(error: reqwest::Error) -> PublishError {
    PublishError::Transport(TransportError::new(error))
}
