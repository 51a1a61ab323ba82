//! A hub's subscription as a response, and its errors as answers.
//!
//! Here hub and HTTP meet; neither knows the other.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use downlink_proto::Frame;
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::http::{FrameSource, LastEventId, Problem, Spread, Sse, SseBody, refuse};
use crate::hub::{BatchError, PublishError, Resume, SubscribeError, Subscription};

/// The frames of one subscription: what it delivers, and when to come back where it ends early.
#[derive(Debug)]
pub struct SubscriptionFrames<T: Send + Sync + 'static> {
    subscription: Subscription<T>,
    ended: bool,
}

impl<T: Send + Sync + 'static> FrameSource for SubscriptionFrames<T> {
    fn opening(self: Pin<&mut Self>, keep_alive: Option<Duration>) -> Option<Frame> {
        self.get_mut().subscription.open_frame(keep_alive)
    }

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(this.subscription.poll_delivery(cx)) {
            Some(delivery) => Some(delivery.into()),
            None => {
                this.ended = true;
                this.subscription.end_frame()
            }
        })
    }

    fn keep_alive(self: Pin<&mut Self>) -> Option<Frame> {
        self.get_mut().subscription.alive_frame()
    }
}

impl<T: Send + Sync + 'static> Subscription<T> {
    /// The response under construction: for a keep-alive, an age or an expiry of its own.
    pub fn into_sse(self) -> Sse<SubscriptionFrames<T>> {
        Sse::from_source(SubscriptionFrames { subscription: self, ended: false })
    }

    /// The response, for any server that takes an `http_body::Body`.
    pub fn into_response(self) -> Response<SseBody<SubscriptionFrames<T>>> {
        self.into_sse().into_response()
    }
}

impl From<LastEventId> for Resume {
    fn from(last: LastEventId) -> Self {
        Self { id: last.as_str().map(Into::into), by_browser: last.is_browser() }
    }
}

/// When somebody who was refused comes back: soon, and not all at once.
const REFUSED_RETRY: Spread = Spread::between(Duration::from_secs(1), Duration::from_secs(10));

impl SubscribeError {
    /// The answer: 204 where all is read, 4xx for a wrong request, and at a limit or in a drain a
    /// 503 or, for a browser, an empty stream that says when to come back.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        match self {
            Self::Closed { by_browser }
            | Self::Draining { by_browser }
            | Self::Full { by_browser, .. }
            | Self::ClientFull { by_browser, .. }
            | Self::TooManyTopics { by_browser, .. } => {
                refuse(&sentence(&self), REFUSED_RETRY, by_browser)
            }
            Self::Finished => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            Self::FilterNeedsValues => {
                problem(StatusCode::INTERNAL_SERVER_ERROR, &self).into_response()
            }
            Self::TooManySelectors { .. }
            | Self::InvalidSelector { .. }
            | Self::InvalidClient { .. } => problem(StatusCode::BAD_REQUEST, &self).into_response(),
        }
    }
}

impl PublishError {
    /// The answer as a problem: 4xx for a wrong event, 503 where there is no room.
    pub fn to_problem(&self) -> Problem {
        let status = match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Finished | Self::IdTaken | Self::KeyReused => StatusCode::CONFLICT,
            Self::Closed | Self::TooManyTopics { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Encode(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        problem(status, self)
    }
}

impl BatchError {
    /// The answer as a problem: that of the event it is about.
    pub fn to_problem(&self) -> Problem {
        let status = match self {
            Self::TooMany { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Event { error, .. } => error.to_problem().status(),
        };
        problem(status, self)
    }
}

fn problem(status: StatusCode, error: &(dyn Error + 'static)) -> Problem {
    Problem::new(status).detail(sentence(error))
}

/// The cause of an error, unless that is what the server's own code failed at: it is for whoever
/// runs the server, not for whoever sent the request.
fn told_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref() {
        Some(PublishError::Encode(_)) => None,
        _ => error.source(),
    }
}

/// An error and its causes as one sentence.
fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = told_cause(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = told_cause(error);
    }
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase);
    let rest = characters.as_str().trim_end_matches('.');
    first.into_iter().flatten().chain(rest.chars()).chain(['.']).collect()
}
