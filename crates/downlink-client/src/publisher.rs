//! Publishing to a downlink server over its HTTP API.
//!
//! One call is one attempt. Nothing is repeated here, since only the caller knows whether a repeat
//! is safe. The one exception is a refusal with 401, after which nothing has been published.

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use reqwest::{Body, Response, Url, redirect};
use std::{error::Error, fmt, path::Path, time::Duration};

use crate::{
    BuildError, CONNECT_TIMEOUT_DEFAULT, Credentials, PublishError, PublishRequest, Receipt,
    StreamFormat, StreamReceipt, TransportError, answer,
    answer::transport,
    builder::{client_of, parse_url},
    credentials::{CredentialsSource, parse_header},
};

/// The longest wait for the answer to one event by default: 30 seconds.
///
/// A commit takes milliseconds, and a busy server refuses at once. After this time, no answer will
/// come.
pub const PUBLISH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Publishes events to a downlink server. Clones share their connections.
///
/// # Examples
///
/// ```no_run
/// use downlink_client::{PublishRequest, Publisher};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = Publisher::new("http://127.0.0.1:8080")?;
/// let receipt = publisher.publish(&PublishRequest::to_topic("orders"), "paid").await?;
/// println!("{} for {} subscribers", receipt.id, receipt.subscribers);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Publisher {
    client: reqwest::Client,
    /// The address of `/events`.
    events: Url,
    headers: HeaderMap,
    credentials: CredentialsSource,
    timeout: Duration,
}

impl Publisher {
    /// Makes a publisher for the server at a base address. `/events` is appended to its path, unless
    /// the path ends with it.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if the address cannot be used.
    pub fn new(base: impl AsRef<str>) -> Result<Self, BuildError> {
        let mut events = parse_url(base.as_ref())?;
        events.set_query(None);
        events.set_fragment(None);
        let path = events.path().trim_end_matches('/');
        let path = format!("{}/events", path.strip_suffix("/events").unwrap_or(path));
        events.set_path(&path);
        let (client, headers, credentials) = (http_client(None)?, <_>::default(), <_>::default());
        Ok(Self { client, events, headers, credentials, timeout: PUBLISH_TIMEOUT_DEFAULT })
    }

    /// Connects to the Unix socket at a path, in place of the host of the base address.
    ///
    /// # Errors
    ///
    /// [`BuildError::HttpClient`] if the HTTP client cannot be made.
    #[cfg(unix)]
    pub fn with_unix_socket(self, path: impl AsRef<Path>) -> Result<Self, BuildError> {
        let client = http_client(Some(path.as_ref()))?;
        Ok(Self { client, ..self })
    }

    /// Sends a header with every request, in place of one of the same name.
    ///
    /// # Errors
    ///
    /// [`BuildError::Header`] if HTTP cannot carry it.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, BuildError> {
        let (header, value) = parse_header(name, value)?;
        self.headers.insert(header, value);
        Ok(self)
    }

    /// Sends a bearer token with every request, as the header `Authorization`. For a token that
    /// expires, see [`with_credentials`](Self::with_credentials).
    ///
    /// # Errors
    ///
    /// [`BuildError::Header`] if HTTP cannot carry it.
    pub fn with_bearer_token(self, token: &str) -> Result<Self, BuildError> {
        self.with_header("authorization", &format!("Bearer {token}"))
    }

    /// Calls a function before every request, such as for a token that expires. Its headers replace
    /// others of the same name.
    ///
    /// After a 401, [`publish`](Self::publish) calls the function once more and repeats the request;
    /// another 401 is its error. [`publish_stream`](Self::publish_stream) cannot repeat its items, so
    /// its first 401 is its error. A function that keeps a token has to renew it before it expires.
    ///
    /// # Examples
    ///
    /// ```
    /// use downlink_client::{Credentials, Publisher};
    ///
    /// # fn main() -> Result<(), downlink_client::BuildError> {
    /// let publisher = Publisher::new("http://127.0.0.1:8080")?
    ///     .with_credentials(async || Credentials::bearer_token("secret"));
    /// assert!(!format!("{publisher:?}").contains("secret"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_credentials<F, R, E>(mut self, fetch: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.credentials = CredentialsSource::new(fetch);
        self
    }

    /// Sets the longest wait for the answer to one event, credentials included.
    /// [`PUBLISH_TIMEOUT_DEFAULT`] if not set.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Uses an existing HTTP client with its proxies and certificates.
    #[must_use]
    pub fn with_http_client(mut self, client: reqwest::Client) -> Self {
        self.client = client;
        self
    }

    /// Publishes one event and waits until the server has it.
    ///
    /// # Errors
    ///
    /// [`PublishError`]. Nothing was published after [`Rejected`](PublishError::Rejected),
    /// [`Credentials`](PublishError::Credentials) and
    /// [`IdempotencyKey`](PublishError::IdempotencyKey). After another error the event may be
    /// published or not.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: if the future is dropped, the event may be published or not.
    pub async fn publish(
        &self,
        request: &PublishRequest,
        data: impl Into<Bytes>,
    ) -> Result<Receipt, PublishError> {
        let (after, data) = (self.timeout, data.into());
        let exchange = async {
            let send = || self.send(request, "text/plain; charset=utf-8", data.clone().into());
            let mut answer = send().await?;
            if answer.status() == StatusCode::UNAUTHORIZED && self.credentials.is_some() {
                answer = send().await?;
            }
            answer::read::<Receipt>(answer).await
        };
        match tokio::time::timeout(after, exchange).await {
            Ok(answer) => answer.map(|(receipt, committed)| Receipt { committed, ..receipt }),
            Err(_elapsed) => Err(PublishError::Timeout { after }),
        }
    }

    /// Publishes each item of a stream as it arrives, and waits for the end.
    ///
    /// There is no time limit: the call takes as long as the stream.
    ///
    /// # Errors
    ///
    /// [`PublishError`]. Items before the failed one stay published.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: if the future is dropped, the items sent so far may be published or not.
    pub async fn publish_stream<S, E>(
        &self,
        request: &PublishRequest,
        format: StreamFormat,
        items: S,
    ) -> Result<StreamReceipt, PublishError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        let body = Body::wrap_stream(items);
        let answer = self.send(request, format.media_type(), body).await?;
        let (receipt, _committed) = answer::read(answer).await?;
        Ok(receipt)
    }

    async fn send(
        &self,
        request: &PublishRequest,
        media_type: &'static str,
        body: Body,
    ) -> Result<Response, PublishError> {
        let mut url = self.events.clone();
        request.add_to(&mut url);
        let mut call = self.client.post(url).headers(self.headers.clone()).body(body);
        call = call.header(CONTENT_TYPE, HeaderValue::from_static(media_type));
        if let Some(key) = &request.idempotency_key {
            let key = key.parse::<HeaderValue>().map_err(|_| PublishError::IdempotencyKey)?;
            call = call.header(IDEMPOTENCY_KEY, key);
        }
        let credentials = self.credentials.fetch().await.map_err(PublishError::Credentials)?;
        call.headers(credentials).send().await.map_err(transport)
    }
}

fn http_client(unix_socket: Option<&Path>) -> Result<reqwest::Client, BuildError> {
    client_of(unix_socket)
        .connect_timeout(CONNECT_TIMEOUT_DEFAULT)
        // A redirect could turn a POST into a GET, and that would subscribe.
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .build()
        .map_err(|error| BuildError::HttpClient(TransportError::new(error)))
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("origin", &self.events.origin().ascii_serialization())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
