//! Turns a hub's subscriptions and errors into HTTP responses.

use std::error::Error;
use std::iter;
use std::time::Duration;

use bytes::Bytes;
use downlink_proto::Frame;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::frames::SubscriptionFrames;
use crate::http::{LastEventId, Problem, Spread, Sse, SseBody, refuse};
use crate::hub::{
    BatchError, OpenError, PublishError, Published, Resume, StoreError, SubscribeError,
    SubscribeErrorKind, Subscription,
};

impl<T: Send + Sync + 'static> Subscription<T> {
    /// Makes a response that can still be configured, for example with a keep-alive, a maximum age
    /// or an expiry.
    pub fn into_sse(self) -> Sse<SubscriptionFrames<T>> {
        Sse::new(self.into_frames())
    }

    /// Makes a response in which the function `to_frame` encodes each event again, only for this
    /// subscription. For example, each event can include the names of its topics.
    ///
    /// The frame must have the event's id ([`Published::id`]). Without the id, the client cannot
    /// resume after this event. The hub's own events (`downlink.open`, gaps, keep-alives) do not
    /// change. If `to_frame` panics, only this response ends.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use downlink::{Event, Frame, Hub, hub::Published};
    ///
    /// /// The time before the data.
    /// fn dated(event: Published<String>) -> Frame {
    ///     let dated = format!("{} {}", event.at().as_millis(), event.data());
    ///     Event::new(dated).id(event.id()).into()
    /// }
    ///
    /// let hub = Hub::<String>::text();
    /// let subscription = hub.subscribe().topic("news").open().await?;
    /// let response = subscription.into_sse_with(dated).into_http_response();
    /// # assert_eq!(response.status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_sse_with<F>(self, to_frame: F) -> Sse<SubscriptionFrames<T, F>>
    where
        F: FnMut(Published<T>) -> Frame + Unpin,
    {
        Sse::new(self.into_frames_with(to_frame))
    }

    /// Makes the response, for any server that takes an `http_body::Body`.
    pub fn into_http_response(self) -> Response<SseBody<SubscriptionFrames<T>>> {
        self.into_sse().into_http_response()
    }
}

impl From<LastEventId> for Resume {
    fn from(last: LastEventId) -> Self {
        Self { id: last.as_str().map(Into::into), by_browser: last.is_browser() }
    }
}

/// The range of the reconnection times for refused clients. The times are short, so that clients
/// return soon, and random, so that the clients do not all return at once.
const REFUSED_RETRY: Spread = Spread::between(Duration::from_secs(1), Duration::from_secs(10));

impl SubscribeError {
    /// Makes the response. The status is 204 if the topics are finished and the client has already
    /// received all their events. It is 400 for an invalid request, and 500 if the hub does not
    /// keep the values that a filter needs.
    ///
    /// If the hub is at a limit, draining or closed, if its store fails, or if its upstream is
    /// away, the status is 503. In these cases, a browser gets a stream without events instead.
    /// This stream contains the reason, as a comment, and a reconnection time.
    pub fn into_http_response(self) -> Response<Full<Bytes>> {
        use SubscribeErrorKind as Kind;

        let status = match self.kind() {
            Kind::AtLimit(OpenError::TooManySelectors { .. })
            | Kind::InvalidSelector { .. }
            | Kind::InvalidClient { .. } => StatusCode::BAD_REQUEST,
            Kind::FilterNeedsValues => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Closed
            | Kind::Draining
            | Kind::UpstreamAway
            | Kind::Store(_)
            | Kind::AtLimit(_) => {
                return refuse(&sentence(&self), REFUSED_RETRY, self.by_browser);
            }
            Kind::Finished => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::NO_CONTENT;
                return response;
            }
        };
        problem(status, &self).into_http_response()
    }
}

impl PublishError {
    /// The [`Problem`] to send as the response. Its status is 4xx for an invalid event, 500 if the
    /// value could not be encoded, and 507 if the disk is full. For any other reason why the hub
    /// cannot accept the event, the status is 503.
    pub fn to_problem(&self) -> Problem {
        let status = match self {
            Self::TooLarge { .. } | Self::EntryTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Finished | Self::IdTaken | Self::KeyReused => StatusCode::CONFLICT,
            Self::Store(StoreError::DiskFull) | Self::EngineFull => {
                StatusCode::INSUFFICIENT_STORAGE
            }
            Self::Closed
            | Self::Busy
            | Self::EngineAway
            | Self::OutcomeUnknown
            | Self::Store(_)
            | Self::TooManyTopics { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Encode(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        problem(status, self)
    }
}

impl BatchError {
    /// The [`Problem`] to send as the response. Its status is 413 if the batch has too many events.
    /// If one event cannot be published, the status depends on the error of this event (see
    /// [`PublishError::to_problem`]).
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

/// The cause of an error, if the client may see it. The cause of a failure in the server's own code
/// is for the operator, not for the client.
fn public_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let is_own = matches!(error.downcast_ref(), Some(PublishError::Encode(_)));
    error.source().filter(|_| !is_own)
}

/// An error and its causes, joined into one sentence.
pub(crate) fn sentence(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |error| public_cause(*error));
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase);
    let rest = characters.as_str().trim_end_matches('.');
    first.into_iter().flatten().chain(rest.chars()).chain(['.']).collect()
}
