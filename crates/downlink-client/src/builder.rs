//! The settings of an event source.
//!
//! Setters keep the first mistake; `build` reports it. Building connects to nothing.

use bytes::Bytes;
use downlink_proto::{DecoderLimits, reconnect::ReconnectPolicy};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use reqwest::{Url, redirect};
use std::{error::Error, fmt, future::Future, sync::Arc, time::Duration};

use crate::{
    CredentialsError, EventSource, FIRST_BYTE_TIMEOUT_DEFAULT, TransportError,
    request::{Credentials, Request},
    source::SourceSettings,
};

/// The longest wait for a connection by default: 10 seconds.
///
/// A reachable server accepts within a round trip or a few retransmissions, 7 seconds at most.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// The most redirects followed in one attempt: 20, as in browsers.
pub const REDIRECTS_MAX: usize = 20;

/// Settings of an [`EventSource`]. Begin with [`EventSource::builder`].
#[must_use]
pub struct EventSourceBuilder {
    url: Result<Url, BuildError>,
    method: Method,
    headers: HeaderMap,
    body: Option<Bytes>,
    credentials: Option<Credentials>,
    client: Option<reqwest::Client>,
    connect_timeout: Option<Duration>,
    first_byte_timeout: Duration,
    settings: SourceSettings,
    invalid_header: Option<BuildError>,
}

impl EventSource {
    /// Begins the settings of an event source for an address.
    pub fn builder(url: impl AsRef<str>) -> EventSourceBuilder {
        EventSourceBuilder::new(url.as_ref())
    }
}

impl EventSourceBuilder {
    fn new(url: &str) -> Self {
        Self {
            url: parse_url(url),
            method: Method::GET,
            headers: HeaderMap::new(),
            body: None,
            credentials: None,
            client: None,
            connect_timeout: None,
            first_byte_timeout: FIRST_BYTE_TIMEOUT_DEFAULT,
            settings: SourceSettings::default(),
            invalid_header: None,
        }
    }

    /// Sends a header with every attempt, in place of one of the same name.
    ///
    /// `Authorization`, `Proxy-Authorization` and `Cookie` are not sent on to another origin when a
    /// redirect leads there; headers with other names are.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            (Ok(name), Ok(value)) => {
                self.headers.insert(name, value);
            }
            _ if self.invalid_header.is_none() => {
                self.invalid_header = Some(BuildError::Header { name: name.to_owned() });
            }
            _ => {}
        }
        self
    }

    /// Uses another method than `GET`.
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Sends a body, the same at every attempt. Does not change the method.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Resumes after this event. An empty id is none.
    pub fn last_event_id(mut self, id: impl Into<String>) -> Self {
        self.settings.last_event_id = id.into();
        self
    }

    /// When to connect again and when to give up.
    pub fn reconnection(mut self, policy: ReconnectPolicy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Reconnects when nothing at all came for this long; comments count as life.
    ///
    /// Without it a downlink server's own keep-alive interval is used, three times over. For other
    /// servers there is no limit then but the operating system's probes, which find a dead peer
    /// after about a minute.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.settings.idle_timeout = Some(limit);
        self
    }

    /// The longest wait for a connection. [`CONNECT_TIMEOUT_DEFAULT`] if not set.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = Some(limit);
        self
    }

    /// The longest wait for the head of the answer, from the start of the attempt.
    /// [`FIRST_BYTE_TIMEOUT_DEFAULT`] if not set. The stream itself has no time limit.
    pub fn first_byte_timeout(mut self, limit: Duration) -> Self {
        self.first_byte_timeout = limit;
        self
    }

    /// Asks for headers before every attempt, such as a token that expires.
    ///
    /// They replace headers of the same name. An error counts as a failed attempt.
    ///
    /// # Examples
    ///
    /// ```
    /// use downlink_client::EventSource;
    /// use http::{HeaderMap, HeaderValue, header};
    ///
    /// # fn example() -> Result<(), downlink_client::BuildError> {
    /// let source = EventSource::builder("http://127.0.0.1:8080/events")
    ///     .credentials(async || {
    ///         let token = HeaderValue::try_from("Bearer secret")?;
    ///         Ok::<_, header::InvalidHeaderValue>(HeaderMap::from_iter([(
    ///             header::AUTHORIZATION,
    ///             token,
    ///         )]))
    ///     })
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// # example().unwrap();
    /// ```
    pub fn credentials<F, R, E>(mut self, fetch: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<HeaderMap, E>> + Send + 'static,
        E: Error + Send + Sync + 'static,
    {
        self.credentials = Some(Arc::new(move || {
            let headers = fetch();
            Box::pin(async { headers.await.map_err(CredentialsError::new) })
        }));
        self
    }

    /// The longest line and the largest event that are accepted.
    pub fn limits(mut self, limits: DecoderLimits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Whether comments are delivered. They are not by default.
    pub fn comments(mut self, shown: bool) -> Self {
        self.settings.shown.comments = shown;
        self
    }

    /// Whether a downlink server's own events (`downlink.open`, `downlink.alive`) are delivered.
    /// They are not by default, but always move the last event id. Gap notices are delivered as
    /// [`Delivery::Gap`](crate::Delivery::Gap) in any case.
    pub fn control_events(mut self, shown: bool) -> Self {
        self.settings.shown.control_events = shown;
        self
    }

    /// Uses an HTTP client made elsewhere, with its proxies, certificates and redirect rules.
    ///
    /// It must have no total timeout and no read timeout. [`connect_timeout`](Self::connect_timeout)
    /// is then the other client's matter.
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Makes the event source. It connects when it is polled for the first time.
    ///
    /// # Errors
    ///
    /// [`BuildError`] for the first setting that cannot be used.
    pub fn build(mut self) -> Result<EventSource, BuildError> {
        let url = std::mem::replace(&mut self.url, Err(BuildError::Scheme))?;
        if let Some(error) = self.invalid_header.take() {
            return Err(error);
        }
        let client = match self.client.take() {
            Some(_) if self.connect_timeout.is_some() => return Err(BuildError::ConnectTimeout),
            Some(client) => client,
            None => http_client(self.connect_timeout.unwrap_or(CONNECT_TIMEOUT_DEFAULT))?,
        };
        let request = Request {
            client,
            url,
            method: self.method.clone(),
            headers: std::mem::take(&mut self.headers),
            body: self.body.take(),
            credentials: self.credentials.take(),
            first_byte_timeout: self.first_byte_timeout,
        };
        Ok(EventSource::new(request, self.settings))
    }
}

impl fmt::Debug for EventSourceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSourceBuilder")
            .field("method", &self.method)
            .field("policy", &self.settings.policy)
            .field("limits", &self.settings.limits)
            .field("idle_timeout", &self.settings.idle_timeout)
            .finish_non_exhaustive()
    }
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The address is not a URL.
    #[error("the address is not a URL: {reason}")]
    #[non_exhaustive]
    Url {
        /// The fault in the address.
        reason: String,
    },
    /// The address is not `http` or `https`.
    #[error("the address must begin with http:// or https://")]
    Scheme,
    /// A header's name or value holds a character that HTTP cannot carry.
    #[error("the header `{name}` cannot be sent")]
    #[non_exhaustive]
    Header {
        /// The name as given.
        name: String,
    },
    /// Both an HTTP client and a connect timeout were given; set it on that client.
    #[error("the connect timeout belongs to the HTTP client that was given")]
    ConnectTimeout,
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be made")]
    HttpClient(#[source] TransportError),
}

pub(crate) fn parse_url(text: &str) -> Result<Url, BuildError> {
    let url = Url::parse(text).map_err(|error| BuildError::Url { reason: error.to_string() })?;
    if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(BuildError::Scheme) }
}

/// A client for streams: no connection is kept for later, so that closing a stream closes its
/// socket, and nothing is sent twice unasked.
fn http_client(connect_timeout: Duration) -> Result<reqwest::Client, BuildError> {
    reqwest::Client::builder()
        .connect_timeout(connect_timeout)
        .pool_max_idle_per_host(0)
        .redirect(redirect::Policy::limited(REDIRECTS_MAX))
        .retry(reqwest::retry::never())
        .referer(false)
        .build()
        .map_err(|error| BuildError::HttpClient(TransportError::new(error)))
}
