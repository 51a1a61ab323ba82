//! Errors as `application/problem+json` (RFC 9457).
//!
//! All error responses of this crate and of the server program (the crate `downlink-server`) have
//! this content type. The detail is a sentence that tells the client what to do next.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::json_text::json_text;

/// An error response.
///
/// # Examples
///
/// ```
/// use downlink::http::Problem;
/// use http::StatusCode;
///
/// let problem = Problem::new(StatusCode::BAD_REQUEST).detail("Name a topic: add ?topic=…");
/// let response = problem.into_http_response();
/// assert_eq!(response.status(), 400);
/// assert_eq!(response.headers()["content-type"], "application/problem+json");
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Problem {
    status: StatusCode,
    code: Option<&'static str>,
    detail: Option<Cow<'static, str>>,
}

impl Problem {
    /// The problem for a status code. Its title is the reason phrase of the code.
    pub fn new(status: StatusCode) -> Self {
        Self { status, code: None, detail: None }
    }

    /// Sets the detail: the cause of this error and what to do about it.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Sets the code: a short name of the cause, for programs. It is the extension member `code` of
    /// the problem (RFC 9457, section 3.2).
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The body: one JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let title = json_text(self.status.canonical_reason().unwrap_or("Error"));
        let detail = self.detail.as_deref().map(json_text);
        let detail = detail.map_or_else(String::new, |detail| format!(",\"detail\":{detail}"));
        let code = self.code.map(json_text);
        let code = code.map_or_else(String::new, |code| format!(",\"code\":{code}"));
        let status = self.status.as_str();
        format!(r#"{{"type":"about:blank","title":{title},"status":{status}{code}{detail}}}"#)
    }

    /// Makes the response, which must not be cached. Its body ends with a line break, so that the
    /// output of curl ends with a complete line.
    pub fn into_http_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.to_json() + "\n"));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_have_a_fixed_order() {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail("Come back later.");
        assert_eq!(
            problem.to_json(),
            r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"Come back later."}"#
        );
    }

    #[test]
    fn the_code_comes_before_the_detail() {
        let problem = Problem::new(StatusCode::FORBIDDEN).detail("Not this.").code("topic_denied");
        assert_eq!(
            problem.to_json(),
            r#"{"type":"about:blank","title":"Forbidden","status":403,"code":"topic_denied","detail":"Not this."}"#
        );
    }

    #[test]
    fn the_detail_may_be_absent() {
        let problem = Problem::new(StatusCode::CONFLICT);
        assert_eq!(problem.to_json(), r#"{"type":"about:blank","title":"Conflict","status":409}"#);
        assert_eq!(problem.status(), StatusCode::CONFLICT);
    }

    #[test]
    fn an_unknown_status_has_a_title() {
        let status = StatusCode::from_u16(599).expect("the status is valid");
        assert!(Problem::new(status).to_json().contains(r#""title":"Error""#));
    }

    #[cfg(feature = "json")]
    #[test]
    fn any_text_can_be_the_detail() {
        let text: String =
            (0..0x80).map(char::from).chain("\u{e9}\u{2028}\u{1f600}".chars()).collect();
        let json = Problem::new(StatusCode::BAD_REQUEST).detail(text.clone()).to_json();
        let read: serde_json::Value = serde_json::from_str(&json).expect("the text is JSON");
        assert_eq!(read["detail"], text);
    }
}
