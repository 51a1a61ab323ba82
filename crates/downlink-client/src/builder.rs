//! The settings of an event source.
//!
//! The setters do not return errors. They store the first error, and `build` returns it. `build`
//! opens no connection.

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
    BuildError, Credentials, EventSource, FIRST_BYTE_TIMEOUT_DEFAULT,
    FIRST_BYTE_TIMEOUT_SEVERAL_DEFAULT, TransportError, URLS_MAX,
    credentials::{CredentialsSource, parse_header, parse_url},
    request::StreamRequest,
    source::SourceSettings,
};

/// The default time limit for making a connection: 10 seconds.
///
/// A server that can be reached accepts a connection within one round trip. If the network loses a
/// few packets, TCP sends them again, and the connection takes up to 7 seconds. A longer limit
/// would rarely help, and it would delay the next attempt.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// The maximum number of redirects in one attempt: 20, as in browsers.
pub const REDIRECTS_MAX: usize = 20;

/// The builder of an [`EventSource`], from [`EventSource::builder`].
#[must_use]
pub struct EventSourceBuilder {
    urls: Result<Vec<Url>, BuildError>,
    method: Method,
    headers: Result<HeaderMap, BuildError>,
    body: Option<Bytes>,
    credentials: CredentialsSource,
    client: Option<reqwest::Client>,
    unix_socket: Option<PathBuf>,
    connect_timeout: Option<Duration>,
    first_byte_timeout: Option<Duration>,
    settings: SourceSettings,
}

impl EventSource {
    /// Makes a builder for this address, with the default settings.
    pub fn builder(url: impl AsRef<str>) -> EventSourceBuilder {
        EventSourceBuilder {
            urls: parse_url(url.as_ref()).map(|url| vec![url]),
            method: Method::GET,
            headers: Ok(HeaderMap::new()),
            body: None,
            credentials: CredentialsSource::default(),
            client: None,
            unix_socket: None,
            connect_timeout: None,
            first_byte_timeout: None,
            settings: SourceSettings::default(),
        }
    }
}

impl EventSourceBuilder {
    /// Adds the address of another server that sends the same events with the same ids. There can
    /// be up to [`URLS_MAX`] addresses.
    ///
    /// The event source begins at the address of the builder. If the connection breaks, or an
    /// attempt fails, the event source goes on at the next address, and resumes after the last
    /// delivery. It tries each address once without a wait. If all attempts fail, it waits as with
    /// one address, and then tries all addresses again. It stays at a server whose streams open,
    /// and does not go back to the first address.
    ///
    /// - **A stream that the server ends**: the event source waits for the reconnection time and
    ///   returns to the same address. So a server that restarts can spread its clients with
    ///   `retry:`. This time also applies between two rounds of attempts. The event source uses the
    ///   last `retry:` that it got from any of the servers.
    /// - **`Retry-After`** applies only to the address that sent it.
    /// - **A 204, 400, 401 or 403** ends the event source as with one address, because such an
    ///   answer concerns the subscription or the credentials. Equal servers would all answer the
    ///   same.
    /// - **Any other permanent failure**, such as a 404 or an answer that is not an event stream,
    ///   may be the fault of one server. The event source ends when the last attempt at each
    ///   address has failed like this.
    /// - **[`attempts_max`](ReconnectPolicy::attempts_max)** counts the attempts at all addresses.
    /// - **Headers and credentials** are sent to all addresses.
    ///
    /// If many clients have the same first address, they all change to the same second address when
    /// the first server fails. Give each client the addresses in a random order.
    ///
    /// # Examples
    ///
    /// ```
    /// use downlink_client::EventSource;
    ///
    /// # fn main() -> Result<(), downlink_client::BuildError> {
    /// let source = EventSource::builder("https://a.example/events?topic=orders")
    ///     .add_url("https://b.example/events?topic=orders")
    ///     .build()?;
    /// assert_eq!(source.url().host_str(), Some("a.example"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_url(mut self, url: impl AsRef<str>) -> Self {
        self.urls = self.urls.and_then(|mut urls| {
            let number = urls.len() + 1;
            let url = parse_url(url.as_ref())
                .map_err(|error| BuildError::OtherUrl { number, source: Box::new(error) })?;
            urls.push(url);
            Ok(urls)
        });
        self
    }

    /// Sends a header with every attempt. It replaces a header of the same name.
    ///
    /// `Authorization`, `Proxy-Authorization` and `Cookie` are not sent to another origin after a
    /// redirect. All other headers are sent.
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

    /// Sets the HTTP method. The default is `GET`.
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Sends this body with every attempt. A body does not change the method: to send a `POST`,
    /// also call [`method`](Self::method).
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sets the id of the event after which the first connection resumes. An empty id means no id.
    pub fn last_event_id(mut self, id: impl Into<String>) -> Self {
        self.settings.last_event_id = id.into();
        self
    }

    /// Sets the rules for reconnecting and giving up.
    pub fn reconnection(mut self, policy: ReconnectPolicy) -> Self {
        self.settings.policy = policy;
        self
    }

    /// Sets the idle timeout: the client reconnects if no bytes arrive for this long. The bytes of
    /// comments count too.
    ///
    /// Without this setting, the timeout is three times the keep-alive interval that a downlink
    /// server announces. For other servers, there is no timeout by default. Only the TCP keep-alive
    /// of the operating system then detects a dead server, after about a minute.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.settings.idle_timeout = Some(limit);
        self
    }

    /// Sets the time limit for making a connection. The default is [`CONNECT_TIMEOUT_DEFAULT`].
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = Some(limit);
        self
    }

    /// Sets the time limit for the head of the answer, from the start of the attempt. The default
    /// is [`FIRST_BYTE_TIMEOUT_DEFAULT`], and [`FIRST_BYTE_TIMEOUT_SEVERAL_DEFAULT`] if there are
    /// several addresses. The stream itself has no time limit.
    pub fn first_byte_timeout(mut self, limit: Duration) -> Self {
        self.first_byte_timeout = Some(limit);
        self
    }

    /// Sets a function that returns credentials, such as a token that expires or an [address with
    /// a ticket](Credentials::ticket_url). The event source calls the function before every
    /// attempt. The returned headers replace other headers of the same name.
    ///
    /// A downlink server announces the end of the credentials. The event source then calls the
    /// function while it still reads the stream. When the function has returned, the event source
    /// reconnects and resumes after the last delivery, so it loses no event. If the function fails,
    /// the event source calls it again after a wait. These calls stop when the stream ends, or when
    /// [`attempts_max`](ReconnectPolicy::attempts_max) calls in a row have failed.
    ///
    /// An error of the function counts as a failed attempt. After a 401, the event source calls the
    /// function again and makes another attempt at once. It delivers the 401 as an
    /// [`Interruption`](crate::Interruption) with a wait of zero, and does not count the 401 for
    /// [`attempts_max`](ReconnectPolicy::attempts_max). If the server answers 401 again before a
    /// stream opens, the event source ends. With
    /// [`ReconnectMode::Spec`](crate::ReconnectMode::Spec), the first 401 ends the event source. A
    /// function that caches a token must replace the token before it expires.
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

    /// Sets the maximum sizes of a line and of an event.
    pub fn limits(mut self, limits: DecoderLimits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Sets whether comments are delivered. By default, they are not.
    pub fn comments(mut self, shown: bool) -> Self {
        self.settings.comments = shown;
        self
    }

    /// Sets whether the server's own events are delivered, such as `downlink.open`,
    /// `downlink.alive` and `downlink.expiring`. Their types begin with `downlink.`. By default,
    /// they are not delivered, but they always update the last event id.
    ///
    /// Two types are always delivered. Gap notices arrive as
    /// [`Delivery::Gap`](crate::Delivery::Gap). Events of the type `downlink.event` are ordinary
    /// events. A subscription gets all its events with this type if its address has the parameter
    /// `meta=1`, which adds the original type and the topics to the data.
    pub fn control_events(mut self, shown: bool) -> Self {
        self.settings.control_events = shown;
        self
    }

    /// Uses an existing HTTP client with its proxies, certificates and redirect rules.
    ///
    /// The client must have no total timeout and no read timeout, because a stream has no end. If
    /// you need a connect timeout, set it on this client. If
    /// [`connect_timeout`](Self::connect_timeout) is called too, [`build`](Self::build) returns an
    /// error.
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Connects to the Unix socket at this path. The path, query and `Host` of the request still
    /// come from the URL, such as `http://localhost/events`.
    ///
    /// If [`http_client`](Self::http_client) is called too, [`build`](Self::build) returns an
    /// error. In that case, set the socket on the HTTP client.
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
        let (urls, headers) = (self.urls?, self.headers?);
        check_urls(&urls)?;
        if urls.len() > 1 && self.unix_socket.is_some() {
            return Err(BuildError::UnixSocketWithUrls);
        }
        let first_byte_timeout = self.first_byte_timeout.unwrap_or(match urls.len() {
            1 => FIRST_BYTE_TIMEOUT_DEFAULT,
            _ => FIRST_BYTE_TIMEOUT_SEVERAL_DEFAULT,
        });
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
            urls: urls.into(),
            method: self.method,
            headers,
            body: self.body,
            credentials: self.credentials,
            first_byte_timeout,
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

fn check_urls(urls: &[Url]) -> Result<(), BuildError> {
    if urls.len() > URLS_MAX {
        return Err(BuildError::TooManyUrls { given: urls.len() });
    }
    for (second, url) in urls.iter().enumerate() {
        if let Some(first) = urls[..second].iter().position(|earlier| earlier == url) {
            return Err(BuildError::DuplicateUrl { first: first + 1, second: second + 1 });
        }
    }
    Ok(())
}

/// Makes an HTTP client for streams. It keeps no idle connections, so closing a stream closes its
/// socket. The client never repeats a request.
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

/// The builder of an HTTP client, over TCP or over a Unix socket.
pub(crate) fn client_of(unix_socket: Option<&Path>) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder();
    match unix_socket {
        #[cfg(unix)]
        Some(path) => builder.unix_socket(path),
        _ => builder,
    }
}
