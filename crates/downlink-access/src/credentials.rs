//! Finds the credential of a request among its headers and its query.
//!
//! A cookie is used only if the request has no `Authorization: Bearer` and no ticket. A request
//! with both a bearer token and a ticket is refused, because they may belong to different users.

use std::{fmt, str};

use crate::error::AccessError;

/// The default name of the cookie that holds a token. Browsers accept a cookie with the prefix
/// `__Host-` only from the host itself, and only over TLS.
pub const COOKIE_NAME_DEFAULT: &str = "__Host-downlink";

/// The credentials of a request.
///
/// Add every `Authorization` header, every ticket of the query and every `Cookie` header. Schemes
/// other than `Bearer` are ignored, because they may be meant for another program. For example, a
/// proxy in front of the server may ask for a password with `Basic`.
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

/// The rule that a malformed credential breaks.
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

    /// Adds one `Cookie` header. Only the cookie `name` is used.
    ///
    /// Two cookies with this name are an error, because another site of the same domain may have
    /// set one of them.
    #[must_use]
    pub fn cookie(mut self, header: &'a [u8], name: &str) -> Self {
        for pair in header.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let value = pair.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            let Some(value) = value else { continue };
            let found = str::from_utf8(value).map(Credential::Cookie);
            self.cookie = Some(match self.cookie {
                Some(_) => {
                    Err(Malformed("the request has two cookies with the name of the token cookie"))
                }
                None => found.map_err(|_| Malformed("the cookie is not UTF-8")),
            });
        }
        self
    }

    /// The credential of the request. `None` if it has none.
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

    /// Whether the credential of the request is the cookie.
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
