//! The answers to requests: JSON for a success, and a problem (RFC 9457) for a refusal.
//!
//! The detail of a problem is one or more full sentences. The first sentence may begin with a quote
//! from the request. The detail says how to fix the request, except when the fix is obvious.

use std::{error::Error, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use downlink::{
    access::Refusal,
    http::{Problem, Spread, refuse},
    hub::{Confirmed, PublishError, Receipt},
};
use downlink_access::AccessError;
use serde::Serialize;

use super::counters::PublishResult;
use crate::{access::Exceeded, config::Settings};

/// The time after which a refused client should try again. It is random, so that clients that were
/// refused together do not all return at the same time.
const LATER: Spread = Spread::between(Duration::from_secs(1), Duration::from_secs(10));

/// The refusal of a request: the status and the detail of the answer.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    detail: String,
    /// A short name of the cause, for programs.
    code: Option<&'static str>,
    /// The value of `WWW-Authenticate`.
    challenge: Option<&'static str>,
    /// The time after which the client should try again. `None` for a refusal that is not
    /// temporary.
    later: Option<Spread>,
    /// The result of the publish, if the status does not say it.
    result: Option<PublishResult>,
}

/// The code and the result under which the metrics count a refusal. The answer has this value as an
/// extension, and the module `guard` reads it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusedAs {
    pub(super) code: Option<&'static str>,
    pub(super) result: PublishResult,
}

impl Refused {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let later = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(LATER);
        Self { status, detail: detail.into(), code: None, challenge: None, later, result: None }
    }

    pub(super) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// Sets `WWW-Authenticate`.
    pub(super) fn challenge(self, challenge: &'static str) -> Self {
        Self { challenge: Some(challenge), ..self }
    }

    /// Returns the refusal with another detail: `change` gets the old text and returns the new one.
    pub(super) fn map_detail(self, change: impl FnOnce(&str) -> String) -> Self {
        Self { detail: change(&self.detail), ..self }
    }

    /// The answer to a subscription. A browser never reconnects after an error. So after a
    /// temporary refusal, it gets a stream that ends at once, and it reconnects later. After a
    /// revocation, it gets `204`, and does not reconnect.
    pub(super) fn into_response_for(self, browser: bool) -> Response {
        let refused_as = self.refused_as();
        let mut response = match self.later {
            Some(later) if browser => refuse(&self.detail, later, true).into_response(),
            _ if browser && self.code == Some("revoked") => StatusCode::NO_CONTENT.into_response(),
            _ => self.into_response(),
        };
        response.extensions_mut().insert(refused_as);
        response
    }

    fn refused_as(&self) -> RefusedAs {
        let result = self.result.unwrap_or_else(|| PublishResult::of_status(self.status));
        RefusedAs { code: self.code, result }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let refused_as = self.refused_as();
        let Self { status, detail, code, challenge, later, .. } = self;
        let problem = Problem::new(status).detail(detail);
        let problem = code.into_iter().fold(problem, Problem::code);
        let mut response = problem.into_response();
        response.extensions_mut().insert(refused_as);
        let headers = response.headers_mut();
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(later) = later {
            // 0 seconds would mean "at once".
            let seconds = later.pick().as_secs().saturating_add(1);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Exceeded> for Refused {
    fn from(Exceeded { flag, wait }: Exceeded) -> Self {
        let detail = format!("Too many requests: the limit is the server's setting {flag}.");
        // The time is random, so that clients that were refused together do not all return at the
        // same time.
        let later = Some(Spread::between(wait, wait + wait / 4));
        let refused = Self::new(StatusCode::TOO_MANY_REQUESTS, detail).code("too_many_requests");
        Self { later, ..refused }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let (code, challenge) = (refusal.code(), refusal.www_authenticate());
        Self { code, challenge, ..Self::new(refusal.status(), sentence(&refusal)) }
    }
}

impl From<AccessError> for Refused {
    fn from(error: AccessError) -> Self {
        Refusal::from(error).into()
    }
}

pub(super) fn bad_request(detail: impl Into<String>) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, detail)
}

pub(super) fn forbidden(detail: impl Into<String>) -> Refused {
    Refused::new(StatusCode::FORBIDDEN, detail)
}

pub(super) fn not_found(detail: impl Into<String>) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, detail)
}

pub(super) fn method_not_allowed(detail: impl Into<String>) -> Refused {
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// The refusal for a publish error. The detail says how to fix the request.
pub(super) fn not_published(error: &PublishError) -> Refused {
    let advice = match error {
        PublishError::TooLarge { .. } => " Send less data, or raise --event-bytes-max.",
        PublishError::Finished => " Publish to another topic.",
        PublishError::LastNeedsTopics => " Publish it only to topics.",
        PublishError::IdTaken => " Give each event its own id.",
        PublishError::KeyReused => " Use a new key for each event.",
        PublishError::TooManyTopics { .. } => " Use fewer topics, or raise --topics-max.",
        PublishError::ReservedType { .. } => " Choose another type.",
        PublishError::InvalidType(_) => " Remove the line breaks.",
        PublishError::Closed => " Try again later.",
        PublishError::EntryTooLarge => " Publish fewer or smaller events together.",
        _ => "",
    };
    let refused = Refused::new(error.to_problem().status(), sentence(error) + advice);
    let refused = match error {
        PublishError::OutcomeUnknown => refused.code("outcome_unknown"),
        _ => refused,
    };
    Refused { result: PublishResult::of_error(error), ..refused }
}

/// Waits until the store confirms an event, and returns the status of the answer. With relaxed
/// durability, the status is 202, because a power cut may still lose the event.
pub(super) async fn confirmed(
    settings: &Settings,
    receipt: &Receipt,
) -> Result<(StatusCode, Confirmed), Refused> {
    let confirmed = receipt.durable().await.map_err(|error| not_published(&error))?;
    Ok((published_status(settings), confirmed))
}

/// The HTTP status of a successful publish: 202 with relaxed durability, else 200.
pub(super) fn published_status(settings: &Settings) -> StatusCode {
    if settings.is_relaxed() { StatusCode::ACCEPTED } else { StatusCode::OK }
}

/// Writes an error and its causes as one sentence.
pub(super) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    let mut characters = text.chars();
    let first = characters.next().map(char::to_uppercase);
    let rest = characters.as_str().trim_end_matches('.');
    first.into_iter().flatten().chain(rest.chars()).chain(['.']).collect()
}

/// A JSON answer that is never cached. The text ends with a line end, so that the shell's prompt
/// begins on a new line after `curl`.
pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            let headers = [
                (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ];
            (headers, body).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "cannot write an answer as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Escapes and shortens text from a client, for an answer or a log.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let short: String = text.chars().take(SHOWN_MAX).collect();
    let rest = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_clients_is_escaped_and_shortened() {
        assert_eq!(shown("a\"\r\n\u{1b}"), r#""a\"\r\n\u{1b}""#);
        assert_eq!(shown(&"é".repeat(60)), format!("\"{}\"", "é".repeat(60)));
        assert_eq!(shown(&"é".repeat(61)), format!("\"{}\"…", "é".repeat(60)));
    }

    #[test]
    fn errors_become_sentences() {
        assert_eq!(sentence(&PublishError::Closed), "The hub is closed.");
        assert_eq!(sentence(&std::io::Error::other("over.")), "Over.");
    }
}
