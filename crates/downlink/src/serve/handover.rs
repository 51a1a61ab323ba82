//! The handover of an event stream to the direct path.
//!
//! hyper gets a [`ReplyBody`]: the body itself, or a stub without end while the body is parked beside
//! it. Once the head is written, the connection takes the parked body and the socket, and drops
//! hyper. If hyper drops the stub before that, the body is dropped too. Not here: the direct path.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;

use super::outgoing::{OutgoingBody, PolledFrame, is_unbounded};
use super::progress::Progress;

/// A response body that waits for the head to be written.
pub(super) struct ParkedBody<B> {
    pub(super) body: OutgoingBody<B>,
    /// Whether the connection may serve more requests after this one.
    pub(super) keep_alive: bool,
}

/// Where a connection parks a body. Only its own task locks it, for a moment.
pub(super) type ParkingSlot<B> = Mutex<Option<ParkedBody<B>>>;

/// The properties of a request that decide whether its response can be handed over.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestTraits {
    number: u32,
    /// Its version and method allow a handover.
    allows_handover: bool,
    connects: bool,
    keep_alive: bool,
    /// Its version has the header `Connection`; HTTP/2 has other means.
    has_connection_header: bool,
    /// Its version has no chunks.
    is_http_10: bool,
}

impl RequestTraits {
    pub(super) fn of<T>(request: &Request<T>, number: u32) -> Self {
        let connects = *request.method() == Method::CONNECT;
        let may_stream = !connects && *request.method() != Method::HEAD;
        Self {
            number,
            allows_handover: request.version() == Version::HTTP_11 && may_stream,
            connects,
            keep_alive: !says_close(request.headers()),
            has_connection_header: request.version() <= Version::HTTP_11,
            is_http_10: request.version() == Version::HTTP_10,
        }
    }

    /// Marks a response as the last of its connection, so that its reader sends no further request.
    /// A response that upgrades the connection is not marked.
    pub(super) fn say_close<T>(&self, response: &mut Response<T>) {
        if self.has_connection_header && !self.is_upgraded_by(response) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            self.offer_nothing_more(response);
        }
    }

    /// Keeps hyper from adding `keep-alive` to an answer in HTTP/1.0, which it does if the peer has
    /// asked for it.
    fn offer_nothing_more<T>(&self, response: &mut Response<T>) {
        if self.is_http_10 {
            *response.version_mut() = Version::HTTP_10;
        }
    }

    /// Offers nothing more to a peer if only the end of the connection can show it the end of this
    /// response. It may have asked for `keep-alive`, and would wait for more.
    pub(super) fn end_by_close<B: Body>(&self, response: &mut Response<B>) {
        let has_length = response.headers().contains_key(CONTENT_LENGTH);
        if !has_length && response.body().size_hint().exact().is_none() {
            self.offer_nothing_more(response);
        }
    }

    /// Whether the response makes the connection another protocol's.
    pub(super) fn is_upgraded_by<T>(&self, response: &Response<T>) -> bool {
        let status = response.status();
        status == StatusCode::SWITCHING_PROTOCOLS || (self.connects && status.is_success())
    }
}

/// Makes a response ready for hyper, and parks its body if it can be handed over.
pub(super) fn reply<B: Body>(
    response: Response<OutgoingBody<B>>,
    request: RequestTraits,
    parking: Option<&Arc<ParkingSlot<B>>>,
    progress: &Arc<Progress>,
) -> Response<ReplyBody<B>> {
    // The driver frames the stream itself, and needs the request to be read to its end.
    let can_be_direct = request.allows_handover
        && progress.was_read(request.number)
        && is_unbounded(&response)
        && !response.headers().contains_key(TRANSFER_ENCODING)
        && !response.body().is_end_stream();
    let parking = parking.filter(|_| can_be_direct).map(Arc::clone);
    let keep_alive = request.keep_alive && !says_close(response.headers());
    response.map(|body| {
        let mut body = Some(body);
        if let Some(parking) = &parking {
            let parked = body.take().map(|body| ParkedBody { body, keep_alive });
            drop(std::mem::replace(&mut *parking.lock(), parked));
            progress.note_parked();
        }
        ReplyBody { body, progress: Arc::clone(progress), parking }
    })
}

/// Whether one side wants the connection closed after the response (RFC 9112, section 9.6).
fn says_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("close"))
}

pin_project! {
    /// The body of a response for hyper. A request waits for the rest of its answer as long as this
    /// exists.
    pub(super) struct ReplyBody<B> {
        // `None` in the stub: the body is parked.
        #[pin]
        body: Option<OutgoingBody<B>>,
        progress: Arc<Progress>,
        // Where the body is, in a stub.
        parking: Option<Arc<ParkingSlot<B>>>,
    }

    impl<B> PinnedDrop for ReplyBody<B> {
        fn drop(this: Pin<&mut Self>) {
            // hyper has given up on the response, or the connection has taken the body already.
            let parked = this.parking.as_ref().and_then(|parking| parking.lock().take());
            drop(parked);
            this.progress.note_answered();
        }
    }
}

impl<B: Body> Body for ReplyBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame<B::Error> {
        let this = self.project();
        if let Some(body) = this.body.as_pin_mut() {
            return body.poll_frame(cx);
        }
        // The connection looks at the progress after each poll, so no wake-up is needed.
        this.progress.note_asked();
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_is_found_in_any_list() {
        let says = |value: &'static str| {
            let headers = HeaderMap::from_iter([(CONNECTION, value.parse().expect("valid"))]);
            says_close(&headers)
        };
        assert!(says("close") && says("Keep-Alive, Close"));
        assert!(!says("keep-alive") && !says("closed"));
        assert!(!says_close(&HeaderMap::new()));
    }

    #[test]
    fn other_versions_and_methods_allow_no_handover() {
        let allows = |method: Method, version| {
            let mut request = Request::new(());
            *request.method_mut() = method;
            *request.version_mut() = version;
            RequestTraits::of(&request, 1).allows_handover
        };
        assert!(allows(Method::GET, Version::HTTP_11) && allows(Method::POST, Version::HTTP_11));
        assert!(!allows(Method::HEAD, Version::HTTP_11));
        assert!(!allows(Method::CONNECT, Version::HTTP_11));
        assert!(!allows(Method::GET, Version::HTTP_10));
    }
}
