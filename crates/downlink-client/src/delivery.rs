//! The values that an event source delivers to its reader.

use http::HeaderMap;
use reqwest::Url;
use std::{fmt, time::Duration};

use crate::{Gap, ReceivedEvent, StreamError};

/// A value that an [`EventSource`](crate::EventSource) delivers, in the order of arrival.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Delivery {
    /// A connection has opened. Each connection delivers this value once, before its events.
    Open(Opened),
    /// An event.
    Event(ReceivedEvent),
    /// Events are missing, and will not be delivered. The missing events would have come before the
    /// next event.
    Gap(Gap),
    /// A comment. Comments are delivered only if they are
    /// [enabled](crate::EventSourceBuilder::comments).
    Comment(String),
    /// The connection ended or an attempt failed. The event source will reconnect, to the same
    /// address or to another one.
    Error(Interruption),
}

/// An open connection.
#[derive(Clone)]
#[non_exhaustive]
pub struct Opened {
    /// The address that answered, after redirects.
    pub url: Url,
    /// The headers of the answer.
    pub headers: HeaderMap,
}

/// Shows only the origin and the path of the address. The query and the headers may hold secrets.
impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("origin", &self.url.origin().ascii_serialization())
            .field("path", &self.url.path())
            .finish_non_exhaustive()
    }
}

/// An error that does not end the event source.
#[non_exhaustive]
pub struct Interruption {
    /// The reason for the interruption.
    pub error: StreamError,
    /// The address of the failed attempt or stream, as the caller gave it.
    /// [`EventSource::url`](crate::EventSource::url) returns the address of the next attempt.
    pub url: Url,
    /// The wait until the next attempt.
    pub retry_in: Duration,
}

/// Shows only the origin of the address. The path and the query may hold secrets.
impl fmt::Debug for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interruption")
            .field("error", &self.error)
            .field("origin", &self.url.origin().ascii_serialization())
            .field("retry_in", &self.retry_in)
            .finish_non_exhaustive()
    }
}
