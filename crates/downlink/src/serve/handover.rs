//! The handover of an event stream from hyper (the HTTP library) to the direct path, which writes
//! event streams without hyper.
//!
//! hyper gets a [`ReplyBody`]. Usually it contains the response's body. If the response can be
//! handed over, its body is parked in a [`ParkingSlot`] instead, and the `ReplyBody` is an empty
//! stub that never ends. Once hyper has written the head of the response, the connection takes the
//! parked body and the socket, and drops hyper. If hyper drops the stub earlier, the parked body is
//! dropped too. The direct path itself is in `direct`.

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

/// A response body that waits until hyper has written the head of the response.
pub(super) struct ParkedBody<B> {
    pub(super) body: OutgoingBody<B>,
    /// Whether the connection may serve more requests after this one.
    pub(super) keep_alive: bool,
}

/// The slot in which a connection parks a body. Only the connection's own task locks it, for a
/// moment.
pub(super) type ParkingSlot<B> = Mutex<Option<ParkedBody<B>>>;

/// The properties of a request that decide whether its response can be handed over.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestTraits {
    number: u32,
    /// Whether the HTTP version and the method of the request allow a handover.
    allows_handover: bool,
    /// Whether the method is `CONNECT`.
    connects: bool,
    /// Whether the peer may send more requests on the connection.
    keep_alive: bool,
    /// Whether the version has the header `Connection`, which HTTP/2 does not have.
    has_connection_header: bool,
    /// Whether the version is HTTP/1.0, which has no chunked bodies.
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

    /// Marks a response as the last of its connection, so that the peer sends no further request. A
    /// response that upgrades the connection is not marked.
    pub(super) fn say_close<T>(&self, response: &mut Response<T>) {
        if self.has_connection_header && !self.is_upgraded_by(response) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            self.offer_nothing_more(response);
        }
    }

    /// If the request has the version HTTP/1.0, gives the response this version too. Otherwise,
    /// hyper would answer a `keep-alive` of the peer with the header `Connection: keep-alive`.
    /// hyper does not add this header to a response of version HTTP/1.0.
    fn offer_nothing_more<T>(&self, response: &mut Response<T>) {
        if self.is_http_10 {
            *response.version_mut() = Version::HTTP_10;
        }
    }

    /// Prevents `keep-alive` for a response that ends only when the connection closes. With
    /// `keep-alive`, the peer would wait for more bytes.
    pub(super) fn end_by_close<B: Body>(&self, response: &mut Response<B>) {
        let has_length = response.headers().contains_key(CONTENT_LENGTH);
        if !has_length && response.body().size_hint().exact().is_none() {
            self.offer_nothing_more(response);
        }
    }

    /// Whether the response upgrades the connection to another protocol.
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
    // A driver (a task of the direct path) writes the chunks itself, so the response must not have
    // a transfer encoding yet. A driver reads no request bodies, so the body of the request must
    // have been read to its end.
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

/// Whether the headers ask to close the connection after the response (RFC 9112, section 9.6).
fn says_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("close"))
}

pin_project! {
    /// The body that hyper gets. The request counts as unanswered as long as this body exists.
    pub(super) struct ReplyBody<B> {
        // `None` if the body is parked.
        #[pin]
        body: Option<OutgoingBody<B>>,
        progress: Arc<Progress>,
        // The slot in which the body is parked. `None` if it is not parked.
        parking: Option<Arc<ParkingSlot<B>>>,
    }

    impl<B> PinnedDrop for ReplyBody<B> {
        fn drop(this: Pin<&mut Self>) {
            // If hyper has given up the response, the parked body is dropped too. If the connection
            // has already taken the body, the slot is empty.
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
        // The connection checks the progress after each poll, so no wake-up is needed.
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
    fn the_word_close_is_found_anywhere_in_the_header() {
        let says = |value: &'static str| {
            let headers =
                HeaderMap::from_iter([(CONNECTION, value.parse().expect("the value is valid"))]);
            says_close(&headers)
        };
        assert!(says("close") && says("Keep-Alive, Close"));
        assert!(!says("keep-alive") && !says("closed"));
        assert!(!says_close(&HeaderMap::new()));
    }

    #[test]
    fn the_methods_head_and_connect_and_the_version_1_0_do_not_allow_a_handover() {
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
