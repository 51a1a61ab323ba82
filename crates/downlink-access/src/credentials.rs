//! The credentials of a request, as plain values, and which of them counts.
//!
//! A token in `Authorization: Bearer` or a ticket comes first, then the cookie. A token and a ticket
//! together are an error: a request with two credentials has two authors.

use std::{fmt, str};

use crate::error::AccessError;

/// The cookie that carries a token, unless the configuration names another one. Browsers accept the
/// prefix `__Host-` only from this host, over TLS.
pub const COOKIE_NAME_DEFAULT: &str = "__Host-downlink";

/// The credentials that a request presents.
///
/// Give it every `Authorization` header, every ticket of the query and every `Cookie` header.
/// Schemes other than `Bearer` are ignored: a staging site may have a password of its own.
///
/// ```
/// use downlink_access::{Credential, Presented};
/// let presented = Presented::new().authorization(b"Bearer abc").authorization(b"Basic dTpw");
/// assert_eq!(presented.chosen()?, Some(Credential::Bearer("abc")));
/// assert_eq!(presented.ticket("xyz").chosen().unwrap_err().status(), 400);
/// # Ok::<(), downlink_access::AccessError>(())
/// ```
#[derive(Clone, Copy, Default)]
pub struct Presented<'a> {
    first: Option<Found<'a>>,
    second: bool,
    cookie: Option<Found<'a>>,
}

type Found<'a> = Result<Credential<'a>, Malformed>;

/// A credential that breaks its format.
#[derive(Clone, Copy, Debug)]
struct Malformed(&'static str);

/// One credential of a request.
#[derive(Clone, Copy, Eq, PartialEq)]
#[non_exhaustive]
pub enum Credential<'a> {
    /// A key or a token from `Authorization: Bearer`.
    Bearer(&'a str),
    /// A ticket from the query.
    Ticket(&'a str),
    /// A token from the cookie.
    Cookie(&'a str),
}

impl<'a> Presented<'a> {
    /// A request without credentials.
    pub const fn new() -> Self {
        Self { first: None, second: false, cookie: None }
    }

    /// Adds the value of one `Authorization` header.
    #[must_use]
    pub fn authorization(self, value: &'a [u8]) -> Self {
        let value = value.trim_ascii();
        let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
        let (scheme, rest) = value.split_at(end);
        if !scheme.eq_ignore_ascii_case(b"bearer") {
            return self;
        }
        let token = rest.trim_ascii();
        let is_token = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
        let text = str::from_utf8(token).ok().filter(|_| is_token);
        let mistake = Malformed("`Authorization: Bearer` needs one word of ASCII");
        self.with_first(text.map(Credential::Bearer).ok_or(mistake))
    }

    /// Adds one ticket of the query.
    #[must_use]
    pub fn ticket(self, text: &'a str) -> Self {
        self.with_first(Ok(Credential::Ticket(text)))
    }

    /// Adds one `Cookie` header, of which the cookie `name` counts.
    ///
    /// Two cookies of that name are a bad credential, since another site of the domain may have set
    /// one of them.
    #[must_use]
    pub fn cookie(mut self, header: &'a [u8], name: &str) -> Self {
        for pair in header.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let value = pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            let Some(value) = value else { continue };
            let found = str::from_utf8(value).map(Credential::Cookie);
            self.cookie = Some(match self.cookie {
                Some(_) => Err(Malformed("the cookie is there twice")),
                None => found.map_err(|_| Malformed("the cookie is not UTF-8")),
            });
        }
        self
    }

    /// The credential that counts. `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`AccessError::TwoCredentials`], or [`AccessError::TokenMalformed`].
    pub fn chosen(&self) -> Result<Option<Credential<'a>>, AccessError> {
        if self.second {
            return Err(AccessError::TwoCredentials);
        }
        let found = self.first.or(self.cookie).transpose();
        found.map_err(|Malformed(reason)| AccessError::malformed(reason))
    }

    /// Whether the credential that counts is the cookie.
    pub const fn is_cookie(&self) -> bool {
        self.first.is_none() && self.cookie.is_some()
    }

    fn with_first(self, found: Found<'a>) -> Self {
        match self.first {
            Some(_) => Self { second: true, ..self },
            None => Self { first: Some(found), ..self },
        }
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, second, cookie } = self;
        let kind = |found: &Option<Found<'_>>| found.map(|found| found.is_ok());
        f.debug_struct("Presented")
            .field("first", &kind(first))
            .field("second", second)
            .field("cookie", &kind(cookie))
            .finish()
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer(_) => "Bearer(…)",
            Self::Ticket(_) => "Ticket(…)",
            Self::Cookie(_) => "Cookie(…)",
        })
    }
}
