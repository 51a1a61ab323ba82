//! What an event source hands to its reader.

use downlink_proto::DecodedEvent;
use http::HeaderMap;
use reqwest::Url;
use std::time::Duration;

use crate::{Gap, StreamError};

/// One thing a reader of an [`EventSource`](crate::EventSource) learns, in the order it happened.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Delivery {
    /// A connection is open. Comes once for every connection, before what it brings.
    Open(Opened),
    /// An event.
    Event(DecodedEvent),
    /// Events before the next one were missed and will not come.
    Gap(Gap),
    /// A comment, only if [asked for](crate::EventSourceBuilder::comments).
    Comment(String),
    /// The connection ended or an attempt failed; another attempt follows by itself.
    Error(Interruption),
}

/// An open connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The address that answered, after redirects.
    pub url: Url,
    /// The headers of the answer.
    pub headers: HeaderMap,
}

/// An error that does not end the event source.
#[derive(Debug)]
#[non_exhaustive]
pub struct Interruption {
    /// What happened.
    pub error: StreamError,
    /// The wait until the next attempt.
    pub retry_in: Duration,
}
