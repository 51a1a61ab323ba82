//! Turns a hub's subscriptions and errors into HTTP responses.
//!
//! This is the only file that knows both the hub and HTTP.

use std::error::Error;
use std::fmt;
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use downlink_log::{Address, Payload, Reader, Selection};
use downlink_proto::Frame;
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::http::{
    AnyError, FrameSource, LastEventId, Problem, Spread, Sse, SseBody, driven, refuse, stalled,
};
use crate::hub::{
    BatchError, Delivery, HubClock, OpenError, PublishError, Published, ReadMode, Resume,
    StoreError, SubscribeError, SubscribeErrorKind, Subscription, Timestamp,
};

/// Turns a subscription's events into frames (encoded events). Every `FnMut(Published<T>) -> Frame`
/// implements this trait, and so does [`AsPublished`].
pub trait ToFrame<T> {
    /// Whether the frame of every event is the frame that the hub encoded when the event was
    /// published. If so, the subscription yields only frames, without the values and ids of the
    /// events. This is faster (bench cells `rate` and `window`).
    #[doc(hidden)]
    const AS_PUBLISHED: bool = false;

    /// Returns the frame of an event.
    fn to_frame(&mut self, event: Published<T>) -> Frame;
}

impl<T, F: FnMut(Published<T>) -> Frame> ToFrame<T> for F {
    fn to_frame(&mut self, event: Published<T>) -> Frame {
        self(event)
    }
}

/// Sends the frames that the hub encoded when the events were published. This type takes no memory
/// in a subscription.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsPublished;

impl<T> ToFrame<T> for AsPublished {
    const AS_PUBLISHED: bool = true;

    fn to_frame(&mut self, event: Published<T>) -> Frame {
        event.frame().clone()
    }
}

/// The frames of one subscription: its events, its gaps (notices of missing events), and a
/// reconnection time if the hub ends the subscription early.
pub struct SubscriptionFrames<T: Send + Sync + 'static, F = AsPublished> {
    subscription: Subscription<T>,
    to_frame: F,
}

impl<T: Send + Sync + 'static, F> SubscriptionFrames<T, F> {
    /// The subscription whose events these are.
    pub fn subscription(&self) -> &Subscription<T> {
        &self.subscription
    }
}

impl<T: Send + Sync + 'static, F: ToFrame<T>> SubscriptionFrames<T, F> {
    /// The next frame. If the subscription does not hear the events for everyone, an event that has
    /// no other address of the subscription becomes an empty comment.
    pub(crate) fn poll_next_frame(
        &mut self,
        cx: &mut Context<'_>,
        hears_everyone: bool,
    ) -> Poll<Option<Frame>> {
        if F::AS_PUBLISHED
            && hears_everyone
            && let Some(polled) = self.subscription.poll_frame_by::<Driven>(cx)
        {
            return polled.map(Some);
        }
        Poll::Ready(match ready!(self.subscription.poll_delivery_by::<Driven>(cx)) {
            Some(Delivery::Event(event)) if hears_everyone || self.is_addressed(event.to()) => {
                Some(self.to_frame.to_frame(event))
            }
            Some(Delivery::Event(_)) => Some(Frame::comment("")),
            Some(gap) => Some(gap.into()),
            None => self.subscription.end_frame(),
        })
    }

    /// Whether an event reaches the subscription by a topic or by the client.
    fn is_addressed(&self, to: &[Address]) -> bool {
        let Selection { selectors, client } = self.subscription.selection();
        to.iter().any(|address| match address {
            Address::Topic(topic) => selectors.iter().any(|asked| asked.matches(topic)),
            Address::Client(to) => client.as_ref() == Some(to),
            _ => false,
        })
    }
}

impl<T: Send + Sync + 'static, F> Drop for SubscriptionFrames<T, F> {
    fn drop(&mut self) {
        if let Some(stalled) = stalled::take() {
            self.subscription.note_stalled(&stalled.peer, stalled.age);
        }
    }
}

impl<T: Send + Sync + 'static, F> fmt::Debug for SubscriptionFrames<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionFrames")
            .field("subscription", &self.subscription)
            .finish_non_exhaustive()
    }
}

impl<T, F> FrameSource for SubscriptionFrames<T, F>
where
    T: Send + Sync + 'static,
    F: ToFrame<T> + Unpin,
{
    fn opening(self: Pin<&mut Self>, keep_alive: Option<Duration>) -> Option<Frame> {
        let subscription = &mut self.get_mut().subscription;
        driven::set_lane(subscription.lane());
        subscription.open_frame(keep_alive)
    }

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, AnyError>>> {
        self.get_mut().poll_next_frame(cx, true).map(|frame| frame.map(Ok))
    }

    fn keep_alive(self: Pin<&mut Self>) -> Option<Frame> {
        self.get_mut().subscription.alive_frame()
    }

    fn has_steady_keep_alive(&self) -> bool {
        self.subscription.announces_alive()
    }

    fn prefetch(&self) -> bool {
        self.subscription.prefetch()
    }
}

/// The read mode of a body that a driver may poll (see [`driven`]).
struct Driven;

impl ReadMode for Driven {
    /// The log time. The system's clock is read once for each round of the driver.
    fn now(clock: &HubClock) -> Timestamp {
        clock.now_by(|look| Timestamp::from_millis(driven::time_of_day(|| look().as_millis())))
    }

    /// Registers the key (the number at the driver) of a driven body, or the waker of any other
    /// body.
    fn register<P: Payload>(reader: &Reader<P>, cx: &Context<'_>) {
        if !driven::register_key(cx, |many, key| reader.register_with(many, key)) {
            reader.register(cx.waker());
        }
    }
}

impl<T: Send + Sync + 'static> Subscription<T> {
    /// The frames of the subscription, for a [`FrameSource`] of your own that wraps them.
    pub fn into_frames(self) -> SubscriptionFrames<T> {
        SubscriptionFrames { subscription: self, to_frame: AsPublished }
    }

    /// The frames of the subscription with different content, as in
    /// [`into_sse_with`](Self::into_sse_with).
    pub fn into_frames_with<F>(self, to_frame: F) -> SubscriptionFrames<T, F>
    where
        F: FnMut(Published<T>) -> Frame + Unpin,
    {
        SubscriptionFrames { subscription: self, to_frame }
    }

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
    /// If the hub is at a limit, draining or closed, or if its store fails, the status is 503. In
    /// these cases, a browser gets a stream without events instead. The stream contains the reason
    /// as a comment and a reconnection time.
    pub fn into_http_response(self) -> Response<Full<Bytes>> {
        use SubscribeErrorKind as Kind;

        let status = match self.kind() {
            Kind::AtLimit(OpenError::TooManySelectors { .. })
            | Kind::InvalidSelector { .. }
            | Kind::InvalidClient { .. } => StatusCode::BAD_REQUEST,
            Kind::FilterNeedsValues => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::Closed | Kind::Draining | Kind::Store(_) | Kind::AtLimit(_) => {
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
    /// The problem to answer with. Its status is 4xx for an invalid event, 500 if the value could
    /// not be encoded, and 507 if the disk is full. If the hub cannot accept events for another
    /// reason, the status is 503.
    pub fn to_problem(&self) -> Problem {
        let status = match self {
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Finished | Self::IdTaken | Self::KeyReused => StatusCode::CONFLICT,
            Self::Store(StoreError::DiskFull) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Closed | Self::Busy | Self::Store(_) | Self::TooManyTopics { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Encode(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        problem(status, self)
    }
}

impl BatchError {
    /// The problem to answer with. Its status is 413 if the batch has too many events. If an event
    /// is invalid, it is the status of the problem of this event.
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

#[cfg(all(test, feature = "serve"))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use downlink_log::WakeMany;
    use http_body::Body;
    use parking_lot::Mutex;

    use super::*;
    use crate::http::Now;
    use crate::http::driven::PollRound;
    use crate::hub::{Hub, Retention, Start};

    #[derive(Default)]
    struct WokenKeys(Mutex<Vec<u32>>);

    impl WakeMany for WokenKeys {
        fn wake_many(&self, keys: &[u32]) {
            self.0.lock().extend_from_slice(keys);
        }
    }

    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_driven_body_is_woken_by_its_key() {
        let hub = Hub::<String>::text();
        let subscription = hub.subscribe().topic("news").open().await.expect("the hub has room");
        let mut body = Box::pin(subscription.into_http_response().into_body());
        let keys = Arc::new(WokenKeys::default());
        let wakes = Arc::new(WakeCount::default());
        let waker = Waker::from(Arc::clone(&wakes));
        // Reads all frames that the body has ready, and then publishes an event. Returns the keys
        // and the number of wakers that the event woke.
        let mut read = |key| {
            let many: Arc<dyn WakeMany> = keys.clone();
            let round = PollRound::begin(Now::look(), many);
            let mut cx = Context::from_waker(&waker);
            while round.poll(key, &mut cx, |cx| body.as_mut().poll_frame(cx)).0.is_ready() {}
            drop(round);
            hub.to("news").publish("hello".to_owned()).expect("the topic is open");
            (std::mem::take(&mut *keys.0.lock()), wakes.0.swap(0, Ordering::Relaxed))
        };
        assert_eq!([read(7), read(7)], [(vec![7], 0), (vec![7], 0)]);
        assert_eq!(read(8), (vec![], 1), "the body was registered under another key before");
        assert_eq!(read(7), (vec![7], 0));
    }

    /// The frames that a body has ready, as text.
    fn ready<F>(body: &mut Pin<Box<SseBody<SubscriptionFrames<String, F>>>>) -> String
    where
        F: ToFrame<String> + Unpin,
    {
        let round = PollRound::begin(Now::look(), Arc::new(WokenKeys::default()));
        let mut cx = Context::from_waker(Waker::noop());
        let mut text = String::new();
        while let Poll::Ready(Some(frame)) =
            round.poll(7, &mut cx, |cx| body.as_mut().poll_frame(cx)).0
        {
            let bytes =
                frame.expect("the body does not fail").into_data().expect("the frame has data");
            text.push_str(std::str::from_utf8(&bytes).expect("the data is text"));
        }
        text
    }

    /// Only a body with `AsPublished` uses `poll_frame_by`. A body with a function as `ToFrame`
    /// always uses `poll_delivery_by`.
    #[tokio::test]
    async fn poll_frame_by_yields_the_frames_of_poll_delivery_by() {
        let retention = Retention { events_max: 3, ..Retention::DEFAULT };
        let hub = Hub::<String>::builder().text().retention(retention);
        let hub = hub.gap_wait_max(Duration::ZERO).build().expect("the settings are valid");
        hub.to("news").publish("first".to_owned()).expect("the topic is open");
        let open = || hub.subscribe().topic("news").start(Start::Earliest).open();
        let (short, long) =
            (open().await.expect("the hub has room"), open().await.expect("the hub has room"));
        let mut short = Box::pin(short.into_http_response().into_body());
        let as_published = |event: Published<String>| event.frame().clone();
        let mut long = Box::pin(long.into_sse_with(as_published).into_http_response().into_body());
        let mut all = String::new();
        for (news, others) in
            [(0, 0), (1, 0), (1, 0), (0, 2), (1, 1), (2, 0), (9, 3), (1, 0), (1, 0)]
        {
            for (topic, count) in [("news", news), ("other", others)] {
                for number in 0..count {
                    hub.to(topic).publish(number.to_string()).expect("the topic is open");
                }
            }
            let frames = ready(&mut short);
            // The two responses differ in the number of the subscription.
            let number = ["\"connection\":\"1\"", "\"connection\":\"2\""];
            assert_eq!(frames.replace(number[0], number[1]), ready(&mut long));
            all.push_str(&frames);
        }
        hub.drain();
        let (short, long) = (ready(&mut short), ready(&mut long));
        assert!(short.starts_with("retry: ") && long.starts_with("retry: "), "{short}{long}");
        // Of the nine events in a row, the retention keeps three, and the reader gets a gap for the
        // others. The hub's own events, `downlink.open` and the gap, have JSON as their data.
        let count = |what| all.matches(what).count();
        assert_eq!((count("data: ") - count("data: {"), count("downlink.gap")), (11, 1));
    }
}
