//! The frames of a hub's subscription, as the source of a response.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use downlink_log::{Address, Payload, Reader, Selection};
use downlink_proto::Frame;

use crate::http::{AnyError, FrameSource, driven, stalled};
use crate::hub::{
    Delivery, DisconnectReason, HubClock, Published, ReadMode, Subscription, Timestamp,
};

/// Turns a subscription's events into frames (encoded events). Every `FnMut(Published<T>) -> Frame`
/// implements this trait, and so does [`AsPublished`].
pub trait ToFrame<T> {
    /// Whether `to_frame` returns the frame of every event exactly as the hub encoded it. If so,
    /// the subscription yields only frames, without the values and ids of the events. This is
    /// faster (see the measurements `rate` and `window` of `cargo xtask bench`).
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

/// Sends the frames that the hub encoded when the events were published. This type has no size, so
/// it adds no memory to a subscription.
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
    /// The subscription that yields these frames.
    pub fn subscription(&self) -> &Subscription<T> {
        &self.subscription
    }

    /// Records why the response ends.
    pub(crate) fn note_ended(&mut self, reason: DisconnectReason) {
        self.subscription.note_ended(reason);
    }
}

impl<T: Send + Sync + 'static, F: ToFrame<T>> SubscriptionFrames<T, F> {
    /// The next frame. If `hears_everyone` is false, only events for the subscription's topics or
    /// for its client become frames. Any other event becomes an empty comment.
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

    /// Whether the event is for a topic of the subscription or for its client. False if the event
    /// is only for everyone.
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

    fn note_expired(self: Pin<&mut Self>) {
        self.get_mut().note_ended(DisconnectReason::Expired);
    }

    fn prefetch(&self) -> bool {
        self.subscription.prefetch()
    }
}

/// The [`ReadMode`] of a body that a driver (a task that polls many bodies, see [`driven`]) may
/// poll.
struct Driven;

impl ReadMode for Driven {
    /// The current log time, which never goes backward (see [`HubClock`]). The bodies that a driver
    /// polls in one round share one reading of the system's clock.
    fn now(clock: &HubClock) -> Timestamp {
        clock.now_by(|look| Timestamp::from_millis(driven::time_of_day(|| look().as_millis())))
    }

    /// Registers a body with the reader of its subscription, which wakes the body when there are
    /// new events. A driven body is registered by its key (its number at the driver). Any other
    /// body is registered by its waker.
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

    /// The frames of the subscription. The function `to_frame` encodes each event again, only for
    /// this subscription, as in [`into_sse_with`](Self::into_sse_with).
    pub fn into_frames_with<F>(self, to_frame: F) -> SubscriptionFrames<T, F>
    where
        F: FnMut(Published<T>) -> Frame + Unpin,
    {
        SubscriptionFrames { subscription: self, to_frame }
    }
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
    use crate::http::driven::PollRound;
    use crate::http::{Now, SseBody};
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
        assert_eq!(read(8), (vec![], 1), "the body already has key 7, so it registers a waker");
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
    async fn poll_frame_by_and_poll_delivery_by_yield_the_same_frames() {
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
        // One step publishes nine events at once. The retention keeps three of them, and the reader
        // gets a gap for the other six. The count leaves out the events with JSON data, which are
        // the hub's own events: `downlink.open` and the gap.
        let count = |what| all.matches(what).count();
        assert_eq!((count("data: ") - count("data: {"), count("downlink.gap")), (11, 1));
    }
}
