//! The settings of an event source.
//!
//! Setters remember the first error, and `build` returns it. Building opens no connection.

use bytes::Bytes;
use downlink_proto::{DecoderLimits, reconnect::ReconnectPolicy};
use http::{HeaderMap, Method};
use reqwest::{Url, redirect};
use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    BuildError, Credentials, EventSource, FIRST_BYTE_TIMEOUT_DEFAULT, TransportError,
    credentials::{CredentialsSource, parse_header},
    request::StreamRequest,
    source::SourceSettings,
};

/// The longest wait for a connection by default: 10 seconds.
///
/// A reachable server accepts within a round trip or a few retransmissions, 7 seconds at most.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// The most redirects followed in one attempt: 20, as in browsers.
pub const REDIRECTS_MAX: usize = 20;

/// Settings of an [`EventSource`], made by [`EventSource::builder`].
#[must_use]
pub struct EventSourceBuilder {
    url: Result<Url, BuildError>,
    method: Method,
    headers: Result<HeaderMap, BuildError>,
    body: Option<Bytes>,
    credentials: CredentialsSource,
    client: Option<reqwest::Client>,
    unix_socket: Option<PathBuf>,
    connect_timeout: Option<Duration>,
    first_byte_timeout: Duration,
    settings: SourceSettings,
}

impl EventSource {
    /// Returns the default settings of an event source for an address.
    pub fn builder(url: impl AsRef<str>) -> EventSourceBuilder {
        EventSourceBuilder {
            url: parse_url(url.as_ref()),
            method: Method::GET,
            headers: Ok(HeaderMap::new()),
            body: None,
            credentials: CredentialsSource::default(),
            client: None,
            unix_socket: None,
            connect_timeout: None,
            first_byte_timeout: FIRST_BYTE_TIMEOUT_DEFAULT,
            settings: SourceSettings::default(),
        }
    }
}

impl EventSourceBuilder {
    /// Sends a header with every attempt, in place of one of the same name.
    ///
    /// `Authorization`, `Proxy-Authorization` and `Cookie` are not sent to another origin after a
    /// redirect. Headers with other names are.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers = self.headers.and_then(|mut headers| {
            let (name, value) = parse_header(name, value)?;
            headers.insert(name, value);
            Ok(headers)
        });
        self
    }

    /// Sends a bearer token with every attempt, as the header `Authorization`. For a token that
    /// expires, see [`credentials`](Self::credentials).
    pub fn bearer_token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Uses another method than `GET`.
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Sends the same body with every attempt. Does not change the method.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Resumes after this event. An empty id means no id.
    pub fn last_event_id(mut self, id: impl Into<String>) -> Self {
        self.settings.last_event_id = id.into();
        self
    }

    /// Sets the rules for reconnecting and giving up.
    pub fn reconnection(mut self, policy: ReconnectPolicy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Reconnects after this much silence. A comment ends the silence too.
    ///
    /// Without this limit, the client uses three times the keep-alive interval of a downlink
    /// server. For other servers only the operating system's probes apply, which find a dead peer
    /// after about a minute.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.settings.idle_timeout = Some(limit);
        self
    }

    /// Sets the longest wait for a connection. [`CONNECT_TIMEOUT_DEFAULT`] if not set.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = Some(limit);
        self
    }

    /// Sets the longest wait for the head of the answer, from the start of the attempt.
    /// [`FIRST_BYTE_TIMEOUT_DEFAULT`] if not set. The stream itself has no time limit.
    pub fn first_byte_timeout(mut self, limit: Duration) -> Self {
        self.first_byte_timeout = limit;
        self
    }

    /// Calls a function before every attempt, such as for a token that expires. Its headers replace
    /// others of the same name.
    ///
    /// An error counts as a failed attempt. After a 401 the function is called once more, at once:
    /// the reader gets the 401 as an [`Interruption`](crate::Interruption) without a wait, which does
    /// not count against [`attempts_max`](ReconnectPolicy::attempts_max). If another 401 comes before
    /// a stream opens, the event source ends. In [`ReconnectMode::Spec`](crate::ReconnectMode::Spec)
    /// the first 401 ends it. A function that keeps a token has to renew it before it expires.
    ///
    /// # Examples
    ///
    /// ```
    /// use downlink_client::{Credentials, EventSource};
    /// use std::io;
    ///
    /// async fn fetch_token() -> io::Result<String> {
    ///     Ok("secret".to_owned())
    /// }
    ///
    /// # fn main() -> Result<(), downlink_client::BuildError> {
    /// let source = EventSource::builder("http://127.0.0.1:8080/events")
    ///     .credentials(async || {
    ///         Credentials::bearer_token(&fetch_token().await?).map_err(io::Error::other)
    ///     })
    ///     .build()?;
    /// assert!(!format!("{source:?}").contains("secret"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn credentials<F, R, E>(mut self, fetch: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.credentials = CredentialsSource::new(fetch);
        self
    }

    /// Sets the longest line and the largest event.
    pub fn limits(mut self, limits: DecoderLimits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Whether comments are delivered. They are not by default.
    pub fn comments(mut self, shown: bool) -> Self {
        self.settings.comments = shown;
        self
    }

    /// Whether a downlink server's own events (`downlink.open`, `downlink.alive`) are delivered.
    /// They are not by default, but they always update the last event id. Gap notices are always
    /// delivered, as [`Delivery::Gap`](crate::Delivery::Gap).
    pub fn control_events(mut self, shown: bool) -> Self {
        self.settings.control_events = shown;
        self
    }

    /// Uses an existing HTTP client with its proxies, certificates and redirect rules.
    ///
    /// The client must have no total timeout and no read timeout.
    /// [`connect_timeout`](Self::connect_timeout) cannot be set as well; set it on that client.
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Connects to the Unix socket at a path. The URL still gives the path, the query and the
    /// `Host` of the request, as in `http://localhost/events`.
    ///
    /// [`http_client`](Self::http_client) cannot be set as well; set the socket on that client.
    #[cfg(unix)]
    pub fn unix_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.unix_socket = Some(path.into());
        self
    }

    /// Makes the event source. It connects when it is first polled.
    ///
    /// # Errors
    ///
    /// [`BuildError`] for the first setting that cannot be used.
    pub fn build(self) -> Result<EventSource, BuildError> {
        let (url, headers) = (self.url?, self.headers?);
        let client = match self.client {
            Some(_) if self.connect_timeout.is_some() => return Err(BuildError::ConnectTimeout),
            Some(_) if self.unix_socket.is_some() => return Err(BuildError::UnixSocket),
            Some(client) => client,
            None => {
                let connect_timeout = self.connect_timeout.unwrap_or(CONNECT_TIMEOUT_DEFAULT);
                http_client(connect_timeout, self.unix_socket.as_deref())?
            }
        };
        let request = StreamRequest {
            client,
            url,
            method: self.method,
            headers,
            body: self.body,
            credentials: self.credentials,
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

pub(crate) fn parse_url(text: &str) -> Result<Url, BuildError> {
    let url = Url::parse(text).map_err(|error| BuildError::Url { reason: error.to_string() })?;
    if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(BuildError::Scheme) }
}

/// A client for streams: no connection is kept for later, so that closing a stream closes its
/// socket, and nothing is sent twice unasked.
fn http_client(
    connect_timeout: Duration,
    unix_socket: Option<&Path>,
) -> Result<reqwest::Client, BuildError> {
    client_of(unix_socket)
        .connect_timeout(connect_timeout)
        .pool_max_idle_per_host(0)
        .redirect(redirect::Policy::limited(REDIRECTS_MAX))
        .retry(reqwest::retry::never())
        .referer(false)
        .build()
        .map_err(|error| BuildError::HttpClient(TransportError::new(error)))
}

/// A client over TCP, or over a Unix socket.
pub(crate) fn client_of(unix_socket: Option<&Path>) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder();
    match unix_socket {
        #[cfg(unix)]
        Some(path) => builder.unix_socket(path),
        _ => builder,
    }
}
