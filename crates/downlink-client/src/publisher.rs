//! Publishing to a downlink server over its HTTP API.
//!
//! One call is one attempt. Nothing is repeated here, since only the caller knows whether a repeat
//! is safe.

use bytes::Bytes;
use futures_core::Stream;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use reqwest::{RequestBuilder, Url, redirect};
use std::{error::Error, fmt, path::Path, time::Duration};

use crate::{
    BuildError, CONNECT_TIMEOUT_DEFAULT, PublishError, PublishRequest, Receipt, StreamFormat,
    StreamReceipt, TransportError, answer,
    answer::transport,
    builder::{client_of, parse_header, parse_url},
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
        let (client, headers) = (http_client(None)?, HeaderMap::new());
        Ok(Self { client, events, headers, timeout: PUBLISH_TIMEOUT_DEFAULT })
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

    /// Sends a header with every request, such as `Authorization`.
    ///
    /// # Errors
    ///
    /// [`BuildError::Header`] if HTTP cannot carry it.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, BuildError> {
        let (header, mut value) = parse_header(name, value)?;
        value.set_sensitive(true);
        self.headers.insert(header, value);
        Ok(self)
    }

    /// Sets the longest wait for the answer to one event. [`PUBLISH_TIMEOUT_DEFAULT`] if not set.
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
    /// [`PublishError`]. Only [`Rejected`](PublishError::Rejected) means that nothing was published
    /// for certain.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: if the future is dropped, the event may be published or not.
    pub async fn publish(
        &self,
        request: &PublishRequest,
        data: impl Into<Bytes>,
    ) -> Result<Receipt, PublishError> {
        let after = self.timeout;
        let exchange = async {
            let call = self.call(request, "text/plain; charset=utf-8")?.body(data.into());
            answer::read::<Receipt>(call.send().await.map_err(transport)?).await
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
        let body = reqwest::Body::wrap_stream(items);
        let call = self.call(request, format.media_type())?.body(body);
        let (receipt, _committed) = answer::read(call.send().await.map_err(transport)?).await?;
        Ok(receipt)
    }

    fn call(
        &self,
        request: &PublishRequest,
        media_type: &'static str,
    ) -> Result<RequestBuilder, PublishError> {
        let mut url = self.events.clone();
        request.add_to(&mut url);
        let call = self.client.post(url).headers(self.headers.clone());
        let call = call.header(CONTENT_TYPE, HeaderValue::from_static(media_type));
        let Some(key) = &request.idempotency_key else { return Ok(call) };
        let key = key.parse::<HeaderValue>().map_err(|_| PublishError::IdempotencyKey)?;
        Ok(call.header(IDEMPOTENCY_KEY, key))
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
