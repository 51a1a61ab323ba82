//! A stream with a grant, which is the set of verified rights of its client. The stream ends when
//! these rights end.
//!
//! The response has a timer for the end of the grant. A revocation can end the rights earlier. Each
//! revocation increases a counter and wakes every stream. A stream that finds a new value in the
//! counter checks its own rights again. So the server needs no list of the streams of a client.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use downlink_access::{Access, Revocation, Revoked, RevokedKeysFull, StreamGrant};
use downlink_proto::{Event, EventType, Frame};
use http::Response;
use http_body_util::Full;

use super::caller::{Caller, now};
use super::refusal::Refusal;
use crate::adapters::{AsPublished, SubscriptionFrames, ToFrame};
use crate::http::{AnyError, FrameSource, Spread, Sse};
use crate::hub::{DisconnectReason, Hub, Subscribe, SubscribeError};

/// Before a stream expires, it sends a notice to its client. In the time between the notice and the
/// end, the client can get new credentials and open its next stream. The constant is the range of
/// this time: a twentieth to a tenth of the stream's life. The time is random, so the clients of
/// one page get new credentials at different times.
const NOTICE_PARTS: (u32, u32) = (20, 10);

/// A ticket is for one stream at a time: a newer stream with the same ticket ends the older stream.
/// The client of the older stream reconnects after this time. With a short time, two pages with the
/// same ticket would end each other's streams again and again.
const DISPLACED_RETRY: Duration = Duration::from_secs(60);

/// If the rights of a stream were taken away, the client reconnects after this time. The answer to
/// the new request tells the client the reason.
const REVOKED_RETRY: Duration = Duration::from_secs(1);

/// The frames of a subscription, as long as its client has the right to read them.
///
/// [`Caller::stream`] makes this value. After a revocation, the stream sends
/// `event: downlink.expired` with the code of the reason, such as `{"code":"revoked"}`, and ends.
/// If a newer stream of the same ticket begins, the older stream ends with a long reconnection
/// time.
pub struct GrantedFrames<T: Send + Sync + 'static, F = AsPublished> {
    frames: SubscriptionFrames<T, F>,
    /// `None` once the stream has ended.
    grant: Option<StreamGrant>,
}

impl Caller {
    /// Makes the response for a subscription of the caller. The stream announces the end of the
    /// grant (see [`Sse::expiry_notice`]) and ends at that time. It ends earlier if the rights of
    /// the caller are taken away.
    ///
    /// This call checks the rights of the caller again, because they may have been revoked while
    /// the subscription was opened.
    ///
    /// # Errors
    ///
    /// As [`check_subscription`](Self::check_subscription). The subscription then ends.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use downlink::access::Caller;
    /// use downlink::hub::{Hub, Published};
    /// use downlink::{Event, Frame};
    /// use downlink_access::{Access, AccessOptions, Grant};
    ///
    /// let hub = Hub::<String>::text();
    /// let caller = Caller::trusted(Access::new(AccessOptions::default()), Grant::app());
    /// let subscription = hub.subscribe().topic("news").open().await?;
    /// let shout = |event: Published<String>| -> Frame {
    ///     Event::new(event.data().to_uppercase()).id(event.id()).into()
    /// };
    /// let response = caller.stream(&hub, subscription.into_frames_with(shout))?;
    /// assert_eq!(response.into_http_response().status(), 200);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stream<T, F>(
        &self,
        hub: &Hub<T>,
        frames: SubscriptionFrames<T, F>,
    ) -> Result<Sse<GrantedFrames<T, F>>, Refusal>
    where
        T: Send + Sync + 'static,
        F: ToFrame<T> + Unpin,
    {
        let subscription = frames.subscription();
        let admitted = self.access().admit(self.verified(), &subscription.selection(), now());
        let grant = admitted.map_err(|error| self.refusal(error))?;
        match grant.register(subscription.number()) {
            Ok(Some(displaced)) => _ = hub.disconnect_subscription(displaced),
            Ok(None) => {}
            Err(error) => tracing::warn!(
                %error,
                "cannot register a stream with a ticket; a newer stream will not end it"
            ),
        }
        let sse = Sse::new(GrantedFrames { frames, grant: Some(grant) });
        let Some(until) = self.grant().until().map(SystemTime::from) else { return Ok(sse) };
        let life = until.duration_since(SystemTime::now()).unwrap_or_default();
        let (latest, earliest) = NOTICE_PARTS;
        let notice = Spread::between(life / latest, life / earliest).pick();
        Ok(sse.expires_at(until).expiry_notice(notice))
    }
}

impl<T: Send + Sync + 'static> Subscribe<T> {
    /// Opens the subscription for a caller, and makes the response, as [`Caller::stream`] does. The
    /// rights are checked first. Without them, no subscription is opened.
    ///
    /// A caller with a client id also gets the events for this client. If the builder names no
    /// topics, a caller with a ticket gets the topics of the ticket.
    ///
    /// This needs the feature `access`.
    ///
    /// # Errors
    ///
    /// [`StreamRefusal`] if the caller may not subscribe, or as [`open`](Self::open).
    ///
    /// # Cancel safety
    ///
    /// As [`open`](Self::open).
    pub async fn open_as(self, caller: &Caller) -> Result<Sse<GrantedFrames<T>>, StreamRefusal> {
        let asked = caller.completed(self.selected().clone());
        caller.check_subscription(&asked)?;
        let (hub, subscribe) = (self.hub().clone(), self.selection(asked));
        let subscription = subscribe.open().await?;
        Ok(caller.stream(&hub, subscription.into_frames())?)
    }
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// Revokes a credential now, and ends its streams.
    ///
    /// The revocation holds until the end of the process. To make it last longer, keep it in a
    /// store of your own (see [`Access::revocations`]). [`Access::reload`] can also end rights, for
    /// example if the new settings lack a key. After a reload, call
    /// [`wake_subscribers`](Self::wake_subscribers) to end the streams whose rights have ended.
    ///
    /// This needs the feature `access`.
    ///
    /// # Errors
    ///
    /// [`RevokedKeysFull`] if too many keys are revoked.
    pub fn revoke(&self, access: &Access, revoked: Revoked) -> Result<(), RevokedKeysFull> {
        access.revoke(Revocation { revoked, at: now() }, now())?;
        self.wake_subscribers();
        Ok(())
    }
}

impl<T: Send + Sync + 'static, F> GrantedFrames<T, F> {
    /// Checks the rights again if they may have ended since the last check, for example by a
    /// revocation. Returns the last frame of the stream if its rights have ended.
    fn check(&mut self) -> Option<Frame> {
        let grant = self.grant.as_mut().filter(|grant| grant.is_outdated())?;
        let error = grant.check(&self.frames.subscription().selection(), now()).err()?;
        self.frames.note_ended(DisconnectReason::Revoked);
        self.end();
        Some(expired(error.code()))
    }

    /// The last frame of a stream whose subscription the hub has ended.
    fn last_frame(&mut self) -> Option<Frame> {
        let is_cut = self.frames.subscription().ended() == Some(DisconnectReason::Disconnected);
        let is_displaced = !self.end() && is_cut;
        is_displaced.then(|| Frame::retry(DISPLACED_RETRY))
    }

    /// Ends the stream. Returns `false` if a newer stream of its ticket has displaced it.
    fn end(&mut self) -> bool {
        let grant = self.grant.take();
        grant.is_none_or(|grant| grant.remove(self.frames.subscription().number()))
    }
}

/// The event that tells a client that its credential is no longer accepted.
fn expired(code: &str) -> Frame {
    let event = Event::new(format!(r#"{{"code":"{code}"}}"#));
    let event = event.event(EventType::from_static("downlink.expired"));
    event.retry(REVOKED_RETRY).encode()
}

impl<T, F> FrameSource for GrantedFrames<T, F>
where
    T: Send + Sync + 'static,
    F: ToFrame<T> + Unpin,
{
    fn opening(self: Pin<&mut Self>, keep_alive: Option<Duration>) -> Option<Frame> {
        Pin::new(&mut self.get_mut().frames).opening(keep_alive)
    }

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, AnyError>>> {
        let this = self.get_mut();
        if let Some(last) = this.check() {
            return Poll::Ready(Some(Ok(last)));
        }
        let Some(grant) = &this.grant else { return Poll::Ready(None) };
        let polled = this.frames.poll_next_frame(cx, grant.hears_everyone());
        let frame = match polled {
            Poll::Ready(Some(frame)) => Some(frame),
            Poll::Ready(None) => this.last_frame(),
            // A revocation after the first check and before the registration of the waker woke no
            // task. So the rights are checked once more.
            Poll::Pending => match this.check() {
                Some(last) => Some(last),
                None => return Poll::Pending,
            },
        };
        Poll::Ready(frame.map(Ok))
    }

    fn keep_alive(self: Pin<&mut Self>) -> Option<Frame> {
        Pin::new(&mut self.get_mut().frames).keep_alive()
    }

    fn has_steady_keep_alive(&self) -> bool {
        self.frames.has_steady_keep_alive()
    }

    fn note_expired(self: Pin<&mut Self>) {
        Pin::new(&mut self.get_mut().frames).note_expired();
    }

    fn prefetch(&self) -> bool {
        self.frames.prefetch() | self.grant.is_some()
    }
}

impl<T: Send + Sync + 'static, F> Drop for GrantedFrames<T, F> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<T: Send + Sync + 'static, F> fmt::Debug for GrantedFrames<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrantedFrames")
            .field("frames", &self.frames)
            .field("grant", &self.grant)
            .finish()
    }
}

/// Why a stream was not opened for a caller.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum StreamRefusal {
    /// The caller may not subscribe.
    Denied(Refusal),
    /// The hub did not open the subscription.
    Subscribe(SubscribeError),
}

impl StreamRefusal {
    /// Makes the response.
    pub fn into_http_response(self) -> Response<Full<Bytes>> {
        match self {
            Self::Denied(refusal) => refusal.into_http_response(),
            Self::Subscribe(error) => error.into_http_response(),
        }
    }
}

impl From<Refusal> for StreamRefusal {
    fn from(refusal: Refusal) -> Self {
        Self::Denied(refusal)
    }
}

impl From<SubscribeError> for StreamRefusal {
    fn from(error: SubscribeError) -> Self {
        Self::Subscribe(error)
    }
}

impl fmt::Display for StreamRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(refusal) => refusal.fmt(f),
            Self::Subscribe(error) => error.fmt(f),
        }
    }
}

impl Error for StreamRefusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Denied(refusal) => refusal.source(),
            Self::Subscribe(error) => error.source(),
        }
    }
}
