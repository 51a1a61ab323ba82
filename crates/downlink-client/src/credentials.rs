//! Headers and addresses with secrets, and the function that returns them for a request.
//!
//! Debug output never shows a secret. Every value of a header is marked as sensitive.

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use std::{error::Error, fmt, pin::Pin, sync::Arc};

use crate::{BuildError, CredentialsError};

/// Headers with credentials, or an address with a ticket. A ticket is a short-lived text that gives
/// the right to read some topics of a downlink server. The app provides a function that returns the
/// credentials before each request. Set that function with
/// [`EventSourceBuilder::credentials`](crate::EventSourceBuilder::credentials) or
/// [`Publisher::with_credentials`](crate::Publisher::with_credentials).
///
/// Debug output shows only the names of the headers. The default value has no header.
///
/// # Examples
///
/// ```
/// use downlink_client::Credentials;
///
/// # fn main() -> Result<(), downlink_client::BuildError> {
/// let credentials = Credentials::bearer_token("secret")?.with_header("x-api-key", "secret")?;
/// assert!(!format!("{credentials:?}").contains("secret"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct Credentials {
    pub(crate) headers: HeaderMap,
    /// The address of the next attempt. It may be relative.
    url: Option<String>,
}

impl Credentials {
    /// Makes credentials with a bearer token, which is sent in the header `Authorization`.
    ///
    /// # Errors
    ///
    /// [`BuildError::Header`] if the token has a character that HTTP cannot carry.
    pub fn bearer_token(token: &str) -> Result<Self, BuildError> {
        Self::default().with_header("authorization", &format!("Bearer {token}"))
    }

    /// Makes credentials with the address of the next attempt. The address usually contains a
    /// ticket: it is the `url` in the answer to `POST /tickets`. A relative address, such as
    /// `/events?ticket=x`, is resolved against the address of the
    /// [builder](crate::EventSource::builder).
    ///
    /// If the origin of this address is not the origin of the builder's address, the builder's
    /// headers `Authorization`, `Proxy-Authorization` and `Cookie` are not sent. A
    /// [`Publisher`](crate::Publisher) ignores the address.
    ///
    /// If the event source has [several addresses](crate::EventSourceBuilder::add_url), only the
    /// query of this address is used, and is sent to the server that the event source tries next.
    /// If the servers have the same ticket keys, one ticket is valid at all of them.
    ///
    /// # Errors
    ///
    /// [`BuildError::Url`] or [`BuildError::Scheme`] if this is not an address for HTTP.
    ///
    /// # Examples
    ///
    /// ```
    /// use downlink_client::Credentials;
    ///
    /// # fn main() -> Result<(), downlink_client::BuildError> {
    /// let credentials = Credentials::ticket_url("/events?ticket=secret")?;
    /// assert!(!format!("{credentials:?}").contains("secret"));
    /// assert!(Credentials::ticket_url("ftp://localhost/events").is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn ticket_url(url: &str) -> Result<Self, BuildError> {
        join_url(&parse_url("http://localhost/")?, url)?;
        Ok(Self { url: Some(url.to_owned()), ..Self::default() })
    }

    /// The address of an attempt. `base` is the address that the caller has given for the server.
    /// If `is_one_of_several` is true, the attempt goes to this server even if the credentials
    /// contain the address of another server. Only the query is then taken from the credentials.
    pub(crate) fn url(&self, base: &Url, is_one_of_several: bool) -> Result<Url, BuildError> {
        let Some(text) = self.url.as_deref() else { return Ok(base.clone()) };
        let mut url = join_url(base, text)?;
        if is_one_of_several {
            let query = url.query().map(str::to_owned);
            url = base.clone();
            url.set_query(query.as_deref());
        }
        Ok(url)
    }

    /// Adds a header. It replaces a header of the same name.
    ///
    /// # Errors
    ///
    /// [`BuildError::Header`] if the name or the value has a character that HTTP cannot carry.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, BuildError> {
        let (name, value) = parse_header(name, value)?;
        self.headers.insert(name, value);
        Ok(self)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().collect();
        f.debug_struct("Credentials").field("headers", &names).finish_non_exhaustive()
    }
}

/// Parses an address, which must be `http` or `https`.
pub(crate) fn parse_url(text: &str) -> Result<Url, BuildError> {
    web_url(Url::parse(text))
}

fn join_url(base: &Url, text: &str) -> Result<Url, BuildError> {
    web_url(base.join(text))
}

fn web_url<E: fmt::Display>(url: Result<Url, E>) -> Result<Url, BuildError> {
    let url = url.map_err(|error| BuildError::Url { reason: error.to_string() })?;
    if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(BuildError::Scheme) }
}

/// Parses a header, and marks its value so that debug output does not show it.
pub(crate) fn parse_header(
    name: &str,
    value: &str,
) -> Result<(HeaderName, HeaderValue), BuildError> {
    let invalid = || BuildError::Header { name: name.to_owned() };
    let header = name.parse().map_err(|_| invalid())?;
    let mut value = value.parse::<HeaderValue>().map_err(|_| invalid())?;
    value.set_sensitive(true);
    Ok((header, value))
}

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

type FetchCredentials = dyn Fn() -> BoxFuture<Result<Credentials, CredentialsError>> + Send + Sync;

/// The function that returns credentials, if it is set.
#[derive(Clone, Default)]
pub(crate) struct CredentialsSource(Option<Arc<FetchCredentials>>);

impl CredentialsSource {
    pub(crate) fn new<F, R, E>(fetch: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<Credentials, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Self(Some(Arc::new(move || {
            let fetched = fetch();
            Box::pin(async { fetched.await.map_err(CredentialsError::new) })
        })))
    }

    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Calls the function, and returns the credentials for one request.
    pub(crate) fn fetch(&self) -> BoxFuture<Result<Credentials, CredentialsError>> {
        match &self.0 {
            Some(fetch) => fetch(),
            None => Box::pin(std::future::ready(Ok(Credentials::default()))),
        }
    }
}
