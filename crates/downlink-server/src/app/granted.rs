//! A stream under a grant: it ends when the rights of its client are taken away.
//!
//! A grant has an end, which the response keeps (see [`Sse::expires_at`](downlink::Sse)). A
//! revocation can come earlier. It increases a number and wakes every stream, and each stream that
//! has seen a smaller number checks its own rights again. So the server needs no list of streams.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use downlink::{
    Event, EventType, Frame,
    adapters::{SubscriptionFrames, ToFrame},
    http::{AnyError, FrameSource},
    hub::DisconnectReason,
};
use downlink_access::{AccessError, Proof, StreamGrant, TicketId, Verified};

use crate::access::Control;

/// A stream that a newer stream of its ticket has ended reconnects after this time. Two pages that
/// use one ticket would otherwise end each other's streams all the time.
const DISPLACED_RETRY: Duration = Duration::from_secs(60);

/// A stream whose rights were taken away reconnects after this time, to learn why from the answer.
const REVOKED_RETRY: Duration = Duration::from_secs(1);

/// The frames of a subscription, as long as its client has the right to read them.
pub(super) struct GrantedFrames<F> {
    frames: SubscriptionFrames<String, F>,
    /// `None` if nothing can take the rights away.
    held: Option<Box<Held>>,
}

/// What the rights of a stream depend on.
struct Held {
    control: Arc<Control>,
    grant: StreamGrant,
    /// The ticket of the stream, if it has one.
    ticket: Option<TicketId>,
    /// The number of [`Control::changes`] at the last check.
    checked: u32,
    /// The frame that is sent before the end.
    last: Option<Frame>,
    over: bool,
}

impl<F> GrantedFrames<F> {
    /// Wraps the frames. The caller has checked the rights before it opened the subscription. This
    /// call checks them once more, because they may have been taken away meanwhile.
    pub(super) fn new(
        frames: SubscriptionFrames<String, F>,
        control: &Arc<Control>,
        verified: &Verified,
    ) -> Result<Self, AccessError> {
        let ticket = match verified.proof() {
            Proof::Ticket { id, .. } => Some(id),
            Proof::Key | Proof::Token => None,
            _ => return Ok(Self { frames, held: None }),
        };
        let checked = control.changes();
        let grant = control.admit(verified, &frames.subscription().selection())?;
        let control = Arc::clone(control);
        let held = Held { control, grant, ticket, checked, last: None, over: false };
        Ok(Self { frames, held: Some(Box::new(held)) })
    }

    /// The ticket of the stream, if it has one, and the number of its subscription.
    pub(super) fn ticket(&self) -> Option<(TicketId, u64)> {
        let ticket = self.held.as_ref()?.ticket?;
        Some((ticket, self.frames.subscription().number()))
    }

    /// Checks the rights again if any were taken away since the last check.
    fn check(&mut self) {
        let Some(held) = self.held.as_mut().filter(|held| !held.over) else { return };
        let changes = held.control.changes();
        if changes == held.checked {
            return;
        }
        held.checked = changes;
        let asked = self.frames.subscription().selection();
        match held.control.check_stream(&held.grant, &asked) {
            // The keys of the issuer cannot be fetched. This says nothing against the stream.
            Ok(()) | Err(AccessError::KeysUnavailable) => {}
            Err(error) => {
                held.over = true;
                held.last = Some(expired(error.code()));
            }
        }
    }

    /// The frame before the end of the stream, and then `None`.
    fn end(&mut self) -> Option<Frame> {
        let held = self.held.as_mut()?;
        if let Some(ticket) = held.ticket.filter(|_| !held.over) {
            // The hub has ended the subscription. A newer stream of the ticket may be the reason.
            held.over = true;
            let subscription = self.frames.subscription();
            let is_newest = held.control.remove(ticket, subscription.number());
            let is_disconnected = subscription.ended() == Some(DisconnectReason::Disconnected);
            let is_displaced = is_disconnected && !is_newest;
            return is_displaced.then(|| Frame::retry(DISPLACED_RETRY));
        }
        held.last.take()
    }
}

/// The event that tells a client that its credential no longer counts.
fn expired(code: &str) -> Frame {
    let event = Event::new(format!(r#"{{"code":"{code}"}}"#));
    let event = event.event(EventType::from_static("downlink.expired"));
    event.retry(REVOKED_RETRY).encode()
}

impl<F: ToFrame<String> + Unpin> FrameSource for GrantedFrames<F> {
    fn opening(self: Pin<&mut Self>, keep_alive: Option<Duration>) -> Option<Frame> {
        Pin::new(&mut self.get_mut().frames).opening(keep_alive)
    }

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, AnyError>>> {
        let this = self.get_mut();
        this.check();
        if this.held.as_ref().is_some_and(|held| held.over) {
            return Poll::Ready(this.end().map(Ok));
        }
        let frame = ready!(Pin::new(&mut this.frames).poll_frame(cx));
        Poll::Ready(frame.or_else(|| this.end().map(Ok)))
    }

    fn keep_alive(self: Pin<&mut Self>) -> Option<Frame> {
        Pin::new(&mut self.get_mut().frames).keep_alive()
    }

    fn has_steady_keep_alive(&self) -> bool {
        self.frames.has_steady_keep_alive()
    }

    fn prefetch(&self) -> bool {
        self.frames.prefetch() | self.held.is_some()
    }
}

impl<F> Drop for GrantedFrames<F> {
    fn drop(&mut self) {
        if let Some((ticket, stream)) = self.ticket()
            && let Some(held) = &self.held
        {
            held.control.remove(ticket, stream);
        }
    }
}
