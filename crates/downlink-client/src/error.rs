//! How a connection fails, and why an event source ended.

use downlink_proto::{
    DecodeError,
    reconnect::{Outcome, StopReason},
};
use http::StatusCode;
use std::{error::Error, fmt, time::Duration};

/// Why an attempt or an open connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The request got no answer.
    #[error("no answer from the server")]
    Unanswered(#[source] TransportError),
    /// The head of the answer did not come in time.
    #[error("no answer within {after:?}")]
    #[non_exhaustive]
    FirstByteTimeout {
        /// The limit.
        after: Duration,
    },
    /// The credentials for this attempt could not be had.
    #[error("credentials for the request are missing")]
    Credentials(#[source] CredentialsError),
    /// Redirects in a circle, too many of them, or one to an address that cannot be used.
    #[error("a redirect cannot be followed")]
    Redirect(#[source] TransportError),
    /// The answer's status is not 200.
    #[error("the server answered with status {status}")]
    #[non_exhaustive]
    Status {
        /// The status.
        status: StatusCode,
        /// The wait asked for by `Retry-After`, as the server gave it.
        retry_after: Option<Duration>,
    },
    /// The answer is not an event stream.
    #[error("the answer is not an event stream")]
    #[non_exhaustive]
    MediaType {
        /// Its `Content-Type`, if it has one in ASCII.
        content_type: Option<String>,
    },
    /// The answer is compressed although nothing of that kind was asked for.
    #[error("the answer has a content encoding")]
    ContentEncoding,
    /// The server ended the stream.
    #[error("the server ended the stream")]
    Ended,
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] TransportError),
    /// Nothing came for too long, not even a comment.
    #[error("nothing came for {after:?}")]
    #[non_exhaustive]
    Idle {
        /// The limit.
        after: Duration,
    },
    /// The stream exceeded a limit. It would do so again after a reconnect.
    #[error("the stream exceeds a limit")]
    Decode(#[source] DecodeError),
}

impl StreamError {
    /// The same outcome in the terms of the reconnection rules.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Unanswered(_) | Self::FirstByteTimeout { .. } | Self::Credentials(_) => {
                Outcome::Unanswered
            }
            Self::Status { status, retry_after } => {
                Outcome::Refused { status: status.as_u16(), retry_after: *retry_after }
            }
            Self::MediaType { .. } | Self::ContentEncoding => Outcome::Unreadable,
            Self::Ended | Self::Broken(_) | Self::Idle { .. } => Outcome::Ended,
            Self::Redirect(_) | Self::Decode(_) => Outcome::Futile,
        }
    }
}

/// Why an event source ended for good.
#[derive(Debug)]
#[non_exhaustive]
pub enum Closed {
    /// [`close`](crate::EventSource::close) was called.
    ByCaller,
    /// The server answered 204, its way to say stop.
    NoContent,
    /// This cannot be mended by trying again.
    Failed(StreamError),
    /// As many attempts in a row failed as the policy allows; this was the last.
    AttemptsSpent(StreamError),
}

impl Closed {
    pub(crate) fn new(reason: StopReason, error: StreamError) -> Self {
        match reason {
            StopReason::NoContent => Self::NoContent,
            StopReason::AttemptsSpent => Self::AttemptsSpent(error),
            _ => Self::Failed(error),
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByCaller => f.write_str("closed by the caller"),
            Self::NoContent => f.write_str("the server said there is no more"),
            Self::Failed(error) => write!(f, "{error}"),
            Self::AttemptsSpent(error) => write!(f, "too many failed attempts, the last: {error}"),
        }
    }
}

/// A failure below HTTP. It never shows the address, which may hold secrets.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TransportError(reqwest::Error);

impl TransportError {
    pub(crate) fn new(error: reqwest::Error) -> Self {
        Self(error.without_url())
    }

    /// Whether no connection could be made.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.0.is_connect()
    }

    /// Whether a time limit was reached.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.0.is_timeout()
    }
}

/// The error of a [`credentials`](crate::EventSourceBuilder::credentials) function.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CredentialsError(Box<dyn Error + Send + Sync>);

impl CredentialsError {
    pub(crate) fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}
