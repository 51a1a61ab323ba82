//! Headers with secrets, and the function that returns them for a request.
//!
//! Every value is marked as sensitive, so that debug output never shows it.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::{error::Error, pin::Pin, sync::Arc};

use crate::{BuildError, CredentialsError};

/// Headers with credentials. The app provides a function that returns them before each request. Set
/// that function with
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
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Credentials {
    headers: HeaderMap,
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

    /// Calls the function, and returns the headers for one request.
    pub(crate) async fn fetch(&self) -> Result<HeaderMap, CredentialsError> {
        match &self.0 {
            Some(fetch) => Ok(fetch().await?.headers),
            None => Ok(HeaderMap::new()),
        }
    }
}
