//! One attempt of an event source: sends the request, and checks that the answer is an event
//! stream.
//!
//! Every attempt sends the same request to one of the original addresses, even after a redirect.
//! Only the address, the last event id and the credentials differ between attempts. If the
//! credentials contain an address, the attempt uses this address instead of the original address.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, COOKIE,
        PROXY_AUTHORIZATION,
    },
};
use reqwest::{Response, Url};
use std::{fmt, sync::Arc, time::Duration};

use crate::{
    Credentials, CredentialsError, StreamError, TransportError,
    credentials::{BoxFuture, CredentialsSource},
    head::{has_media_type, retry_after},
    problem,
};

/// The default time limit for the head of the answer, including the time to get credentials: 60
/// seconds.
///
/// Some servers compute for tens of seconds before they answer, so half the time would be too
/// short. Most proxies give up after a minute, so a longer wait would rarely help.
pub const FIRST_BYTE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// The maximum size of a last event id that the client sends: 4,096 bytes.
///
/// The id is sent in a header, and common servers refuse heads of more than 8 KiB. If the id is
/// longer, the event source connects without it and delivers a [`Gap`](crate::Gap).
pub const LAST_EVENT_ID_BYTES_MAX: usize = 4_096;

/// The default time limit for the head of the answer if there are several addresses: 10 seconds. It
/// includes the time to get credentials.
///
/// An event source with several addresses has another server to ask, so it need not wait for a slow
/// one. With half the time, the client would leave a server that is busy with a storm of
/// reconnects. With double the time, users would notice that a server is silent.
pub const FIRST_BYTE_TIMEOUT_SEVERAL_DEFAULT: Duration = Duration::from_secs(10);

const LAST_EVENT_ID: &str = "last-event-id";
const EVENT_STREAM: &str = "text/event-stream";

/// The headers that an attempt sends only to the origin of the builder's address. If an attempt
/// uses an address of another origin, it does not send the values that the app has set on the
/// builder for these headers.
const OWN_ORIGIN_HEADERS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// The request that every attempt sends.
#[derive(Clone)]
pub(crate) struct StreamRequest {
    pub(crate) client: reqwest::Client,
    /// The addresses of equal servers.
    ///
    /// Invariant: not empty.
    pub(crate) urls: Arc<[Url]>,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) credentials: CredentialsSource,
    pub(crate) first_byte_timeout: Duration,
}

/// Shows only the method and the origins. The other parts may hold secrets.
impl fmt::Debug for StreamRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origins = self.urls.iter().map(|url| url.origin().ascii_serialization());
        f.debug_struct("StreamRequest")
            .field("method", &self.method)
            .field("origins", &origins.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl StreamRequest {
    /// Calls the function that returns credentials. The call has the time limit of an attempt.
    pub(crate) fn fetch_credentials(&self) -> BoxFuture<Result<Credentials, StreamError>> {
        let (fetched, after) = (self.credentials.fetch(), self.first_byte_timeout);
        Box::pin(async move {
            let fetched = tokio::time::timeout(after, fetched).await;
            let fetched = fetched.map_err(|_elapsed| StreamError::FirstByteTimeout { after })?;
            fetched.map_err(StreamError::Credentials)
        })
    }

    /// Starts an attempt at one of the addresses. If `credentials` is `None`, the attempt first
    /// fetches credentials. Dropping the future ends the attempt and closes its socket.
    pub(crate) fn send(
        &self,
        address: &Url,
        credentials: Option<Credentials>,
        last_event_id: Option<HeaderValue>,
    ) -> BoxFuture<Result<Response, StreamError>> {
        let (request, address) = (self.clone(), address.clone());
        Box::pin(async move {
            let after = request.first_byte_timeout;
            let answer = request.answer(address, credentials, last_event_id);
            match tokio::time::timeout(after, answer).await {
                Ok(answer) => accept(answer?).await,
                Err(_elapsed) => Err(StreamError::FirstByteTimeout { after }),
            }
        })
    }

    async fn answer(
        self,
        address: Url,
        credentials: Option<Credentials>,
        last_event_id: Option<HeaderValue>,
    ) -> Result<Response, StreamError> {
        let credentials = match credentials {
            Some(credentials) => credentials,
            None => self.credentials.fetch().await.map_err(StreamError::Credentials)?,
        };
        let invalid = |error| StreamError::Credentials(CredentialsError::new(error));
        let url = credentials.url(&address, self.urls.len() > 1).map_err(invalid)?;
        let mut headers = self.headers;
        if url.origin() != address.origin() {
            OWN_ORIGIN_HEADERS.iter().for_each(|name| drop(headers.remove(name)));
        }
        let mut request = self
            .client
            .request(self.method, url)
            .header(ACCEPT, EVENT_STREAM)
            .header(CACHE_CONTROL, "no-cache")
            .headers(headers)
            .headers(credentials.headers);
        if let Some(id) = last_event_id {
            request = request.header(LAST_EVENT_ID, id);
        }
        if let Some(body) = self.body {
            request = request.body(body);
        }
        request.send().await.map_err(unanswered)
    }
}

fn unanswered(error: reqwest::Error) -> StreamError {
    let kind = if error.is_redirect() { StreamError::Redirect } else { StreamError::Unanswered };
    kind(TransportError::new(error))
}

/// The header value for an id. `None` if a header cannot carry the id.
pub(crate) fn last_event_id_header(id: &str) -> Option<HeaderValue> {
    if id.len() > LAST_EVENT_ID_BYTES_MAX {
        return None;
    }
    HeaderValue::from_bytes(id.as_bytes()).ok()
}

async fn accept(answer: Response) -> Result<Response, StreamError> {
    let headers = answer.headers();
    if answer.status() != StatusCode::OK {
        let (status, retry_after) = (answer.status(), retry_after(headers));
        let problem = problem::read(answer).await.map(Box::new);
        return Err(StreamError::Status { status, retry_after, problem });
    }
    if !has_media_type(headers, EVENT_STREAM) {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        return Err(StreamError::MediaType { content_type: content_type.map(str::to_owned) });
    }
    let encoding = headers.get(CONTENT_ENCODING);
    if encoding.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(StreamError::ContentEncoding);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_longer_than_the_maximum_are_not_sent() {
        let sent = |length| last_event_id_header(&"x".repeat(length)).is_some();
        assert!(sent(LAST_EVENT_ID_BYTES_MAX - 1));
        assert!(sent(LAST_EVENT_ID_BYTES_MAX));
        assert!(!sent(LAST_EVENT_ID_BYTES_MAX + 1));
    }

    #[test]
    fn ids_that_a_header_cannot_carry_are_not_sent() {
        assert_eq!(last_event_id_header("a\u{1}b"), None);
        assert_eq!(last_event_id_header("…").unwrap().as_bytes(), "…".as_bytes());
    }
}
