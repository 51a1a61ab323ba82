//! The response to a request that is not allowed.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use downlink_access::AccessError;
use http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::adapters::sentence;
use crate::http::{Problem, Spread, refuse};

/// The range of the reconnection times while the keys for a token cannot be fetched.
const LATER: Spread = Spread::between(Duration::from_secs(1), Duration::from_secs(10));

/// A request that is not allowed, and the response to it.
///
/// The response is a [`Problem`] with the code of the error. A 401 has the header
/// `WWW-Authenticate`, and a 503 has `Retry-After`. An `EventSource` never reconnects after an
/// error. So it gets a stream without events and a reconnection time instead of a 503. After a
/// revocation it gets a 204, because it need not try again.
///
/// # Examples
///
/// ```
/// use downlink::access::Refusal;
/// use downlink_access::AccessError;
///
/// let response = Refusal::from(AccessError::TokenMissing).into_http_response();
/// assert_eq!(response.status(), 401);
/// assert_eq!(response.headers()["www-authenticate"], "Bearer");
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    error: AccessError,
    is_event_source: bool,
}

impl Refusal {
    /// The refusal of a request. `is_event_source` says whether an `EventSource` of a browser has
    /// sent it.
    pub fn new(error: AccessError, is_event_source: bool) -> Self {
        Self { error, is_event_source }
    }

    /// The reason.
    pub fn error(&self) -> &AccessError {
        &self.error
    }

    /// The problem to answer with.
    pub fn to_problem(&self) -> Problem {
        let status = StatusCode::from_u16(self.error.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Problem::new(status).detail(sentence(&self.error)).code(self.error.code())
    }

    /// Makes the response.
    pub fn into_http_response(self) -> Response<Full<Bytes>> {
        let problem = self.to_problem();
        let is_later = problem.status() == StatusCode::SERVICE_UNAVAILABLE;
        if self.is_event_source && is_later {
            return refuse(&sentence(&self.error), LATER, true);
        }
        if self.is_event_source && self.error == AccessError::Revoked {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return response;
        }
        let mut response = problem.into_http_response();
        if is_later {
            let seconds = LATER.pick().as_secs();
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.error.www_authenticate() {
            let challenge = HeaderValue::from_static(challenge);
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// The refusal for a program or for a page that can read the status.
impl From<AccessError> for Refusal {
    fn from(error: AccessError) -> Self {
        Self::new(error, false)
    }
}

impl From<Refusal> for AccessError {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(error: AccessError, is_event_source: bool) -> (u16, Vec<&'static str>) {
        let response = Refusal::new(error, is_event_source).into_http_response();
        let names = ["content-type", "www-authenticate", "retry-after"];
        let has = |name: &&str| response.headers().contains_key(*name);
        (response.status().as_u16(), names.into_iter().filter(has).collect())
    }

    #[test]
    fn a_program_learns_what_to_do() {
        let all = ["content-type", "www-authenticate", "retry-after"];
        assert_eq!(response(AccessError::TwoCredentials, false), (400, vec![all[0]]));
        assert_eq!(response(AccessError::TokenExpired, false), (401, all[..2].to_vec()));
        assert_eq!(response(AccessError::Revoked, false), (401, all[..2].to_vec()));
        assert_eq!(response(AccessError::KeysUnavailable, false), (503, vec![all[0], all[2]]));
    }

    #[test]
    fn an_event_source_comes_back_only_if_it_can_succeed() {
        assert_eq!(response(AccessError::KeysUnavailable, true), (200, vec!["content-type"]));
        assert_eq!(response(AccessError::Revoked, true), (204, vec![]));
        assert_eq!(response(AccessError::TokenExpired, true).0, 401);
    }
}
