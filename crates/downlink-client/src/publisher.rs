//! Publishing to a downlink server over its HTTP API.
//!
//! Each call sends one request. The publisher does not repeat a failed request, because only the
//! caller knows whether a repeat is safe. There is one exception: with a 401, the server says that
//! it has published nothing. If the app has set a function for credentials, [`Publisher::publish`]
//! then repeats the request once with new credentials.

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use reqwest::{Body, Response, Url, redirect};
use std::{error::Error, fmt, path::Path, time::Duration};

use crate::{
    BuildError, CONNECT_TIMEOUT_DEFAULT, Credentials, PublishError, PublishRequest, Receipt,
    StreamFormat, StreamReceipt, TransportError, answer,
    answer::transport,
    builder::client_of,
    credentials::{CredentialsSource, parse_header, parse_url},
};

/// The default time limit for the answer to one event: 30 seconds.
///
/// A commit takes milliseconds, and a busy server refuses a request at once with a 503. So if no
/// answer has arrived after this time, the server or the network has failed.
pub const PUBLISH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Publishes events to a downlink server. All clones use the same connections.
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
    /// Makes a publisher for the server at a base address. If the path of the address does not end
    /// with `/events`, the publisher appends `/events` to it.
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

    /// Connects to the Unix socket at this path, instead of the host in the base address.
    ///
    /// # Errors
    ///
    /// [`BuildError::HttpClient`] if the HTTP client cannot be made.
    #[cfg(unix)]
    pub fn with_unix_socket(self, path: impl AsRef<Path>) -> Result<Self, BuildError> {
        let client = http_client(Some(path.as_ref()))?;
        Ok(Self { client, ..self })
    }

    /// Sends a header with every request. It replaces a header of the same name.
    ///
    /// # Errors
    ///
    /// [`BuildError::Header`] if the name or the value has a character that HTTP cannot carry.
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
    /// [`BuildError::Header`] if the token has a character that HTTP cannot carry.
    pub fn with_bearer_token(self, token: &str) -> Result<Self, BuildError> {
        self.with_header("authorization", &format!("Bearer {token}"))
    }

    /// Sets a function that returns credentials, such as a token that expires. The publisher calls
    /// the function before every request. The returned headers replace other headers of the same
    /// name.
    ///
    /// After a 401, [`publish`](Self::publish) calls the function again and repeats the request
    /// once. If the answer is 401 again, `publish` returns an error.
    /// [`publish_stream`](Self::publish_stream) cannot send its items twice, so it returns an error
    /// after the first 401. A function that caches a token must replace the token before it
    /// expires.
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

    /// Sets the time limit for the answer to one event, including the time to get credentials. The
    /// default is [`PUBLISH_TIMEOUT_DEFAULT`].
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

    /// Publishes one event, and waits for the server's receipt.
    ///
    /// # Errors
    ///
    /// [`PublishError`]. Nothing was published after [`Rejected`](PublishError::Rejected),
    /// [`Credentials`](PublishError::Credentials) and
    /// [`IdempotencyKey`](PublishError::IdempotencyKey). After any other error, it is unknown
    /// whether the event was published.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: if the future is dropped, it is unknown whether the event was published.
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

    /// Sends the chunks of a stream as they arrive, and waits for the receipt at the end. The
    /// server publishes each event as it arrives.
    ///
    /// The call has no time limit, because a stream may last for hours.
    ///
    /// # Errors
    ///
    /// [`PublishError`]. Events that the server published before the error stay published.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: if the future is dropped, it is unknown how many of the sent events were
    /// published.
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
        call.headers(credentials.headers).send().await.map_err(transport)
    }
}

fn http_client(unix_socket: Option<&Path>) -> Result<reqwest::Client, BuildError> {
    client_of(unix_socket)
        .connect_timeout(CONNECT_TIMEOUT_DEFAULT)
        // After a redirect, the client could send a GET instead of the POST. A GET would subscribe
        // instead of publishing.
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
