//! The errors of settings and of connections, and the reasons why an event source ends.

use downlink_proto::{
    DecodeError,
    reconnect::{Outcome, StopReason},
};
use http::StatusCode;
use std::{error::Error, time::Duration};

use crate::Problem;

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The address is not a URL.
    #[error("the address is not a URL: {reason}")]
    #[non_exhaustive]
    Url {
        /// The error in the address.
        reason: String,
    },
    /// The address is not `http` or `https`.
    #[error("the address must begin with http:// or https://")]
    Scheme,
    /// An address from [`add_url`](crate::EventSourceBuilder::add_url) cannot be used.
    #[error("address {number} cannot be used")]
    #[non_exhaustive]
    OtherUrl {
        /// The position of the address. The address of the builder is number 1.
        number: usize,
        /// The error in the address.
        source: Box<BuildError>,
    },
    /// Two addresses are equal.
    #[error("addresses {first} and {second} are equal: remove one of them")]
    #[non_exhaustive]
    DuplicateUrl {
        /// The position of the first of the two. The address of the builder is number 1.
        first: usize,
        /// The position of the second.
        second: usize,
    },
    /// There are more than [`URLS_MAX`](crate::URLS_MAX) addresses.
    #[error("{given} addresses were given, but the maximum is {}: remove some", crate::URLS_MAX)]
    #[non_exhaustive]
    TooManyUrls {
        /// The number of addresses.
        given: usize,
    },
    /// A header's name or value holds a character that HTTP cannot carry.
    #[error("the header `{name}` cannot be sent")]
    #[non_exhaustive]
    Header {
        /// The name of the header.
        name: String,
    },
    /// Both an HTTP client and a connect timeout were given. Set the timeout on the HTTP client.
    #[error("an HTTP client was given, so the connect timeout must be set on it")]
    ConnectTimeout,
    /// Both an HTTP client and a Unix socket were given. Set the socket on the HTTP client.
    #[error("an HTTP client was given, so the Unix socket must be set on it")]
    UnixSocket,
    /// Both a Unix socket and several addresses were given. All addresses would lead to the server
    /// of this socket.
    #[error("a Unix socket leads to one server: give one address, or leave out the socket")]
    UnixSocketWithUrls,
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made")]
    HttpClient(#[source] TransportError),
}

/// The reason why an attempt failed or an open connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The request got no answer.
    #[error("no answer from the server")]
    Unanswered(#[source] TransportError),
    /// The head of the answer did not arrive within the time limit.
    #[error("no answer within {after:?}")]
    #[non_exhaustive]
    FirstByteTimeout {
        /// The limit.
        after: Duration,
    },
    /// The function that returns credentials failed, so no request was sent.
    #[error("cannot get credentials for the request")]
    Credentials(#[source] CredentialsError),
    /// A redirect loop, too many redirects, or a redirect to an unusable address.
    #[error("a redirect cannot be followed")]
    Redirect(#[source] TransportError),
    /// The answer's status is not 200.
    #[error("the server answered with status {status}{}", detail(.problem.as_deref()))]
    #[non_exhaustive]
    Status {
        /// The status.
        status: StatusCode,
        /// The wait from the header `Retry-After`. The event source may wait for less time, because
        /// its waits have a maximum.
        retry_after: Option<Duration>,
        /// The server's description of the error. A downlink server sends a description.
        problem: Option<Box<Problem>>,
    },
    /// The answer is not an event stream.
    #[error("the answer is not an event stream")]
    #[non_exhaustive]
    MediaType {
        /// The `Content-Type` of the answer. `None` if it is missing or not ASCII.
        content_type: Option<String>,
    },
    /// The answer is compressed, although the client did not ask for compression.
    #[error("the answer is compressed, although the client did not ask for it")]
    ContentEncoding,
    /// The server ended the stream.
    #[error("the server ended the stream")]
    Ended,
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] TransportError),
    /// No bytes arrived within the idle timeout, not even a comment.
    #[error("no bytes arrived for {after:?}")]
    #[non_exhaustive]
    Idle {
        /// The limit.
        after: Duration,
    },
    /// The stream exceeded a limit of the decoder. It would exceed the limit again after a
    /// reconnect, so the event source ends.
    #[error("the stream exceeds a limit")]
    Decode(#[source] DecodeError),
}

impl StreamError {
    /// The outcome of the attempt, or of a stream that lasted for this time. The reconnection rules
    /// take it as their input.
    pub(crate) fn outcome(&self, lasted: Duration) -> Outcome {
        match self {
            Self::Unanswered(_) | Self::FirstByteTimeout { .. } => Outcome::Unanswered,
            Self::Credentials(_) => Outcome::Unsent,
            Self::Status { status, retry_after, .. } => {
                Outcome::Refused { status: status.as_u16(), retry_after: *retry_after }
            }
            Self::Ended => Outcome::Ended,
            Self::Broken(_) | Self::Idle { .. } => Outcome::Broken { lasted },
            Self::MediaType { .. }
            | Self::ContentEncoding
            | Self::Redirect(_)
            | Self::Decode(_) => Outcome::Futile,
        }
    }
}

/// The text after the status in an error message: the detail of the problem, or else its title.
fn detail(problem: Option<&Problem>) -> String {
    let text = problem.map_or("", |problem| match &*problem.detail {
        "" => &problem.title,
        detail => detail,
    });
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// The reason why an event source ended for good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Closed {
    /// [`close`](crate::EventSource::close) was called.
    #[error("closed by the caller")]
    ByCaller,
    /// The server answered 204, which tells a client to stop.
    #[error("the server answered 204: there are no more events")]
    NoContent,
    /// The error is permanent, so another attempt would not help.
    #[error(transparent)]
    Failed(StreamError),
    /// The maximum number of attempts in a row has failed. The value is the error of the last
    /// attempt.
    #[error("too many attempts failed; the last error: {0}")]
    AttemptsSpent(#[source] StreamError),
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

/// An error of the HTTP client or the connection. It never shows the address, because an address
/// may contain secrets.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TransportError(reqwest::Error);

impl TransportError {
    pub(crate) fn new(error: reqwest::Error) -> Self {
        Self(error.without_url())
    }

    /// Whether the connection could not be made.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.0.is_connect()
    }

    /// Whether the error is a timeout.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.0.is_timeout()
    }
}

/// The error of the app's function that returns [`Credentials`](crate::Credentials).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CredentialsError(Box<dyn Error + Send + Sync>);

impl CredentialsError {
    pub(crate) fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}
