//! The response to a request that is not allowed.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use downlink_access::{AccessError, IssueError};
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
/// `WWW-Authenticate`, and a 503 has `Retry-After`.
///
/// An `EventSource` never reconnects after an error. So instead of a 503 it gets a stream without
/// events, with a reconnection time. After a revocation it gets an empty 204, which asks it not to
/// reconnect, because a new attempt cannot succeed.
///
/// # Examples
///
/// ```
/// use downlink::access::Refusal;
/// use downlink_access::{AccessError, IssueError};
///
/// let response = Refusal::from(AccessError::TokenMissing).into_http_response();
/// assert_eq!(response.status(), 401);
/// assert_eq!(response.headers()["www-authenticate"], "Bearer");
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    reason: Reason,
    is_event_source: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Reason {
    Access(AccessError),
    /// A ticket that cannot be issued, although the caller has the rights.
    Issue(IssueError),
}

impl Refusal {
    /// The refusal of a request. `is_event_source` says whether an `EventSource` of a browser has
    /// sent it.
    pub fn new(error: AccessError, is_event_source: bool) -> Self {
        Self { reason: Reason::Access(error), is_event_source }
    }

    /// The status of the response, if the client is not an `EventSource`.
    pub fn status(&self) -> StatusCode {
        let status = match &self.reason {
            Reason::Access(error) => error.status(),
            Reason::Issue(_) => 400,
        };
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The code for programs, such as `topic_denied`. `None` if a ticket cannot be issued although
    /// the caller has the rights.
    pub fn code(&self) -> Option<&'static str> {
        self.access_error().map(AccessError::code)
    }

    /// The value of `WWW-Authenticate`, for every response with the status 401.
    pub fn www_authenticate(&self) -> Option<&'static str> {
        self.access_error().and_then(AccessError::www_authenticate)
    }

    fn access_error(&self) -> Option<&AccessError> {
        match &self.reason {
            Reason::Access(error) => Some(error),
            Reason::Issue(_) => None,
        }
    }

    /// The problem to answer with.
    pub fn to_problem(&self) -> Problem {
        let problem = Problem::new(self.status()).detail(sentence(self));
        self.code().into_iter().fold(problem, Problem::code)
    }

    /// Makes the response.
    pub fn into_http_response(self) -> Response<Full<Bytes>> {
        let is_later = self.status() == StatusCode::SERVICE_UNAVAILABLE;
        if self.is_event_source && is_later {
            return refuse(&sentence(&self), LATER, true);
        }
        if self.is_event_source && self.access_error() == Some(&AccessError::Revoked) {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return response;
        }
        let mut response = self.to_problem().into_http_response();
        if is_later {
            let seconds = LATER.pick().as_secs();
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.www_authenticate() {
            let challenge = HeaderValue::from_static(challenge);
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }

    fn error(&self) -> &(dyn Error + 'static) {
        match &self.reason {
            Reason::Access(error) => error,
            Reason::Issue(error) => error,
        }
    }
}

/// The refusal for a client that is not an `EventSource`.
impl From<AccessError> for Refusal {
    fn from(error: AccessError) -> Self {
        Self::new(error, false)
    }
}

impl From<IssueError> for Refusal {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Denied(error) => error.into(),
            error => Self { reason: Reason::Issue(error), is_event_source: false },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error())
    }
}

impl Error for Refusal {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error().source()
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
    fn the_response_to_a_program_has_the_headers_that_belong_to_its_status() {
        let all = ["content-type", "www-authenticate", "retry-after"];
        assert_eq!(response(AccessError::TwoCredentials, false), (400, vec![all[0]]));
        assert_eq!(response(AccessError::TokenExpired, false), (401, all[..2].to_vec()));
        assert_eq!(response(AccessError::Revoked, false), (401, all[..2].to_vec()));
        assert_eq!(response(AccessError::KeysUnavailable, false), (503, vec![all[0], all[2]]));
    }

    #[test]
    fn a_ticket_that_cannot_be_issued_is_answered_with_400() {
        let refusal = Refusal::from(IssueError::NoKey);
        assert_eq!((refusal.status().as_u16(), refusal.code()), (400, None));
        let denied = Refusal::from(IssueError::Denied(AccessError::TokenMissing));
        assert_eq!(denied, Refusal::from(AccessError::TokenMissing));
    }

    #[test]
    fn an_event_source_reconnects_only_while_the_keys_are_unavailable() {
        assert_eq!(response(AccessError::KeysUnavailable, true), (200, vec!["content-type"]));
        assert_eq!(response(AccessError::Revoked, true), (204, vec![]));
        assert_eq!(response(AccessError::TokenExpired, true).0, 401);
    }
}
