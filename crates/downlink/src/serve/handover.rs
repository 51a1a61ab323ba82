//! Whether a response is handed to the direct path, and how its body gets there.
//!
//! hyper gets a [`Reply`]: the body itself, or a stub that never yields anything while the body is
//! parked beside it. Once the head is written, the connection takes the parked body and the socket,
//! and drops hyper; if hyper drops the stub before, the body goes with it. Not here: the path itself.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;

use super::outgoing::Outgoing;
use super::progress::Progress;
use crate::http::is_event_stream;

/// A response body that waits for the head to be written.
pub(super) struct Parked<B> {
    pub(super) body: Outgoing<B>,
    /// Whether the connection may serve more requests after this one.
    pub(super) keep_alive: bool,
}

/// The place where a connection's bodies are parked. Locked for a moment by one task only.
pub(super) struct Parking<B>(Mutex<Option<Parked<B>>>);

impl<B> Default for Parking<B> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<B> Parking<B> {
    pub(super) fn take(&self) -> Option<Parked<B>> {
        self.0.lock().take()
    }

    fn put(&self, parked: Parked<B>) {
        let old = self.0.lock().replace(parked);
        drop(old);
    }
}

/// What a request has to say of whether its response can be handed over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    /// The number of the request.
    number: u32,
    /// Its version and method allow it.
    allows: bool,
    connects: bool,
    keep_alive: bool,
    /// The response can say that it is the last of its connection: HTTP/2 has other means.
    may_say_close: bool,
}

impl Asking {
    pub(super) fn of<T>(request: &Request<T>, number: u32) -> Self {
        let connects = *request.method() == Method::CONNECT;
        let allows =
            request.version() == Version::HTTP_11 && !connects && *request.method() != Method::HEAD;
        let keep_alive = !says_close(request.headers());
        let may_say_close = request.version() <= Version::HTTP_11;
        Self { number, allows, connects, keep_alive, may_say_close }
    }

    /// Has a response say that it is the last of its connection, so that nobody who reads it sends
    /// another request there. One that makes the connection another protocol's has nothing to say.
    pub(super) fn say_close<T>(&self, response: &mut Response<T>) {
        if self.may_say_close && !self.is_upgraded_by(response) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Whether the response makes the connection another protocol's.
    pub(super) fn is_upgraded_by<T>(&self, response: &Response<T>) -> bool {
        let status = response.status();
        status == StatusCode::SWITCHING_PROTOCOLS || (self.connects && status.is_success())
    }
}

/// Makes a response ready for hyper: parks its body if it can be handed over.
pub(super) fn reply<B: Body>(
    response: Response<Outgoing<B>>,
    asking: Asking,
    parking: Option<&Arc<Parking<B>>>,
    progress: &Arc<Progress>,
) -> Response<Reply<B>> {
    let can_be = asking.allows && progress.was_read(asking.number) && can_be_direct(&response);
    let Some(parking) = parking.filter(|_| can_be) else {
        let answering = Answering(Arc::clone(progress));
        return response.map(|body| Reply::Body { body, answering });
    };
    let keep_alive = asking.keep_alive && !says_close(response.headers());
    response.map(|body| {
        parking.put(Parked { body, keep_alive });
        progress.note_parked();
        let (parking, progress) = (Arc::clone(parking), Arc::clone(progress));
        Reply::Stub { stub: Stub { parking, progress } }
    })
}

/// An event stream whose length nobody knows, and whose framing nobody has chosen.
fn can_be_direct<B: Body>(response: &Response<Outgoing<B>>) -> bool {
    let headers = response.headers();
    response.status() == StatusCode::OK
        && is_event_stream(headers)
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
        && response.body().size_hint().exact().is_none()
        && !response.body().is_end_stream()
}

/// Whether one side wants the connection closed after the response (RFC 9112, section 9.6).
fn says_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("close"))
}

pin_project! {
    /// What hyper takes for the body of a response.
    #[project = ReplyProjection]
    pub(super) enum Reply<B> {
        Body {
            #[pin]
            body: Outgoing<B>,
            answering: Answering,
        },
        /// Stands in for a body that is parked.
        Stub { stub: Stub<B> },
    }
}

/// A body that yields nothing, ever.
pub(super) struct Stub<B> {
    parking: Arc<Parking<B>>,
    progress: Arc<Progress>,
}

impl<B> Drop for Stub<B> {
    fn drop(&mut self) {
        // hyper has given up on the response, or the body is elsewhere already.
        drop(self.parking.take());
        self.progress.note_answered();
    }
}

/// As long as it is there, a request waits for the rest of its answer.
pub(super) struct Answering(Arc<Progress>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.note_answered();
    }
}

impl<B: Body> Body for Reply<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, B::Error>>> {
        match self.project() {
            ReplyProjection::Body { body, .. } => body.poll_frame(cx),
            ReplyProjection::Stub { stub } => {
                // Whoever drives the connection looks at the progress after each poll of it.
                stub.progress.note_asked();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Body { body, .. } => body.is_end_stream(),
            Self::Stub { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Body { body, .. } => body.size_hint(),
            Self::Stub { .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_is_understood_in_any_list() {
        let says = |value: &'static str| {
            let headers = HeaderMap::from_iter([(CONNECTION, value.parse().expect("valid"))]);
            says_close(&headers)
        };
        assert!(says("close") && says("Keep-Alive, Close"));
        assert!(!says("keep-alive") && !says("closed"));
        assert!(!says_close(&HeaderMap::new()));
    }

    #[test]
    fn other_versions_and_methods_do_not_allow_it() {
        let allows = |method: Method, version| {
            let mut request = Request::new(());
            *request.method_mut() = method;
            *request.version_mut() = version;
            Asking::of(&request, 1).allows
        };
        assert!(allows(Method::GET, Version::HTTP_11) && allows(Method::POST, Version::HTTP_11));
        assert!(!allows(Method::HEAD, Version::HTTP_11));
        assert!(!allows(Method::CONNECT, Version::HTTP_11));
        assert!(!allows(Method::GET, Version::HTTP_10));
    }
}
