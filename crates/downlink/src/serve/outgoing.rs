//! The body of a response that the server sends.
//!
//! During a drain (a graceful shutdown), the server ends every event stream at its next blank line.
//! The last frame of the stream is a random reconnection time (`retry:`). This applies to every
//! event stream, whether this crate or the app has made it.
//!
//! The server cannot read or extend a stream with a content coding, such as gzip. The server ends
//! such a stream at once, and the reader discards an incomplete event. A drain does not end streams
//! that are marked [`Finite`], streams with a known length, or other bodies. Trailers of an event
//! stream are dropped, since readers of event streams have no use for them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use downlink_proto::Frame;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{Response, StatusCode};
use http_body::{Body, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;

use super::boundary::Boundary;
use super::cross_origin;
use super::drain::Drain;
use crate::http::{Finite, is_event_stream, refuse};

/// The result of one poll of a body.
pub(super) type PolledFrame<E> = Poll<Option<Result<http_body::Frame<Bytes>, E>>>;

/// Wraps the body of a response, so that a drain can end it.
pub(super) fn outgoing<B: Body>(
    response: Response<B>,
    browser: bool,
    drain: &Arc<Drain>,
) -> Response<OutgoingBody<B>> {
    if !is_unbounded(&response) || response.extensions().get::<Finite>().is_some() {
        return response.map(|inner| OutgoingBody { inner: Some(inner), end: BodyEnd::OfBody });
    }
    if drain.has_begun() {
        let mut refusal = refuse("the server is shutting down", drain.reconnection, browser);
        cross_origin::keep(response.headers(), refusal.headers_mut());
        return refusal
            .map(|text| OutgoingBody { inner: None, end: BodyEnd::Refused(Box::new(text)) });
    }
    let is_coded = response.headers().contains_key(CONTENT_ENCODING);
    let end = BodyEnd::OfServer { drain: Arc::clone(drain), is_coded, at: Boundary::default() };
    response.map(|inner| OutgoingBody { inner: Some(inner), end })
}

/// Whether the response is an event stream without a known length.
pub(super) fn is_unbounded<B: Body>(response: &Response<B>) -> bool {
    response.status() == StatusCode::OK
        && is_event_stream(response.headers())
        && !response.headers().contains_key(CONTENT_LENGTH)
        && response.body().size_hint().exact().is_none()
}

pin_project! {
    /// The body of a response, which a drain can end.
    pub(super) struct OutgoingBody<B> {
        // `None` if the response was refused or has ended early.
        #[pin]
        inner: Option<B>,
        end: BodyEnd,
    }
}

/// The ways in which a body can end.
enum BodyEnd {
    /// The body ends itself.
    OfBody,
    /// The body ends itself, or the drain of the server ends it.
    OfServer { drain: Arc<Drain>, is_coded: bool, at: Boundary },
    /// The body is this refusal. It replaces a stream that was requested during a drain.
    Refused(Box<Full<Bytes>>),
}

impl<B: Body> Body for OutgoingBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame<B::Error> {
        let mut this = self.project();
        if let BodyEnd::Refused(text) = this.end {
            return Pin::new(text).poll_frame(cx).map_err(|never| match never {});
        }
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let BodyEnd::OfServer { drain, is_coded, at } = this.end else {
            return poll_bytes(inner, cx);
        };
        let drains = drain.has_begun();
        if drains && (*is_coded || at.is_here()) {
            let last = (!*is_coded).then(|| goodbye(drain));
            this.inner.set(None);
            return last.map_or(Poll::Ready(None), data);
        }
        let frame = match ready!(poll_bytes(inner, cx)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        let Ok(chunk) = frame.into_data() else {
            this.inner.set(None);
            return Poll::Ready(None);
        };
        if drains && let Some(cut) = at.last_in(&chunk) {
            let last = [&chunk[..cut], &goodbye(drain)].concat();
            this.inner.set(None);
            return data(last.into());
        }
        at.pass(&chunk);
        data(chunk)
    }

    fn is_end_stream(&self) -> bool {
        match &self.end {
            BodyEnd::Refused(text) => text.is_end_stream(),
            _ => self.inner.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.end, &self.inner) {
            (BodyEnd::Refused(text), _) => text.size_hint(),
            (BodyEnd::OfBody, Some(inner)) => inner.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

/// The last bytes of a stream that the server ends: the reconnection time.
fn goodbye(drain: &Drain) -> Bytes {
    Frame::retry(drain.reconnection.pick()).into_bytes()
}

fn data<E>(bytes: Bytes) -> PolledFrame<E> {
    Poll::Ready(Some(Ok(http_body::Frame::data(bytes))))
}

/// Polls any body for `Bytes`. If the body yields `Bytes`, they are not copied.
fn poll_bytes<B: Body>(body: Pin<&mut B>, cx: &mut Context<'_>) -> PolledFrame<B::Error> {
    body.poll_frame(cx)
        .map_ok(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
}
