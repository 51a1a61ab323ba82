//! A response body on its way to the socket.
//!
//! During a drain an event stream, whoever made it, ends at the next blank line with a `retry:` of
//! its own. In one that has a content coding nothing can be read or written; it ends where it is,
//! and its reader throws away what it has of an event. Every other body passes untouched, and so
//! does a stream marked [`Finite`] or one of known length. Trailers of an event stream are
//! dropped: its readers have no use for them.

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
use super::drain::Drain;
use crate::http::{Finite, is_event_stream, refuse};

/// One poll of a body that yields whole buffers.
type Polled<E> = Poll<Option<Result<http_body::Frame<Bytes>, E>>>;

/// Makes a response ready to be sent by a server that may drain.
pub(super) fn outgoing<B: Body>(
    response: Response<B>,
    browser: bool,
    drain: &Arc<Drain>,
) -> Response<Outgoing<B>> {
    if !is_endless(&response) {
        return response.map(|inner| Outgoing::Plain { inner });
    }
    if drain.has_begun() {
        return refuse("the server is shutting down", drain.reconnection(), browser)
            .map(|inner| Outgoing::Refused { inner });
    }
    let coded = response.headers().contains_key(CONTENT_ENCODING);
    let drain = Arc::clone(drain);
    response.map(|inner| Outgoing::Endless { stream: Endless::new(inner, drain, coded) })
}

/// True of an event stream that nobody has said to be finite and that states no length.
fn is_endless<B: Body>(response: &Response<B>) -> bool {
    response.status() == StatusCode::OK
        && is_event_stream(response.headers())
        && !response.headers().contains_key(CONTENT_LENGTH)
        && response.extensions().get::<Finite>().is_none()
        && response.body().size_hint().exact().is_none()
}

pin_project! {
    /// See the module.
    #[project = OutgoingProjection]
    pub(super) enum Outgoing<B> {
        /// Ends when it ends.
        Plain {
            #[pin]
            inner: B,
        },
        /// Ends when it ends, or with the server.
        Endless {
            #[pin]
            stream: Endless<B>,
        },
        /// Stands in for a stream that was asked for during a drain.
        Refused {
            #[pin]
            inner: Full<Bytes>,
        },
    }
}

impl<B: Body> Body for Outgoing<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<B::Error> {
        match self.project() {
            OutgoingProjection::Plain { inner } => poll_bytes(inner, cx),
            OutgoingProjection::Endless { stream } => stream.poll_frame(cx),
            OutgoingProjection::Refused { inner } => {
                inner.poll_frame(cx).map_err(|never| match never {})
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain { inner } => inner.is_end_stream(),
            Self::Endless { stream } => stream.ended || stream.inner.is_end_stream(),
            Self::Refused { inner } => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain { inner } => inner.size_hint(),
            Self::Endless { .. } => SizeHint::default(),
            Self::Refused { inner } => inner.size_hint(),
        }
    }
}

pin_project! {
    /// An event stream that ends with the server.
    pub(super) struct Endless<B> {
        #[pin]
        inner: B,
        drain: Arc<Drain>,
        // The chunks are not text but a coding of it.
        coded: bool,
        at: Boundary,
        ended: bool,
    }
}

impl<B: Body> Endless<B> {
    fn new(inner: B, drain: Arc<Drain>, coded: bool) -> Self {
        Self { inner, drain, coded, at: Boundary::default(), ended: false }
    }

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<B::Error> {
        let this = self.project();
        if *this.ended {
            return Poll::Ready(None);
        }
        let draining = this.drain.has_begun();
        if draining && *this.coded {
            *this.ended = true;
            return Poll::Ready(None);
        }
        if draining && this.at.is_here() {
            *this.ended = true;
            return data(goodbye(this.drain));
        }
        let frame = match ready!(poll_bytes(this.inner, cx)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        let Ok(chunk) = frame.into_data() else {
            *this.ended = true;
            return Poll::Ready(None);
        };
        if draining && let Some(cut) = this.at.last_in(&chunk) {
            *this.ended = true;
            return data([&chunk[..cut], &goodbye(this.drain)].concat().into());
        }
        this.at.pass(&chunk);
        data(chunk)
    }
}

/// The last bytes of a stream that the server ends: when to come back.
fn goodbye(drain: &Drain) -> Bytes {
    Frame::retry(drain.reconnection().pick()).into_bytes()
}

fn data<E>(bytes: Bytes) -> Polled<E> {
    Poll::Ready(Some(Ok(http_body::Frame::data(bytes))))
}

/// Polls any body for `Bytes`; a body that has them already gives them without copying.
fn poll_bytes<B: Body>(body: Pin<&mut B>, cx: &mut Context<'_>) -> Polled<B::Error> {
    body.poll_frame(cx)
        .map_ok(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
}
