//! Errors as `application/problem+json` (RFC 9457).
//!
//! All error answers of the library and the server have this type. The detail is a sentence that
//! says what to do next.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

/// An error answer.
///
/// # Examples
///
/// ```
/// use downlink::http::Problem;
/// use http::StatusCode;
///
/// let problem = Problem::new(StatusCode::BAD_REQUEST).detail("Name a topic: add ?topic=…");
/// let response = problem.into_response();
/// assert_eq!(response.status(), 400);
/// assert_eq!(response.headers()["content-type"], "application/problem+json");
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Problem {
    status: StatusCode,
    kind: Cow<'static, str>,
    title: Cow<'static, str>,
    detail: Option<Cow<'static, str>>,
}

impl Problem {
    /// The problem that a status code names; its title is the code's reason phrase.
    pub fn new(status: StatusCode) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { status, kind: "about:blank".into(), title: title.into(), detail: None }
    }

    /// Sets the cause of this error and the remedy.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// A summary that is the same for every problem of its kind.
    pub fn title(mut self, title: impl Into<Cow<'static, str>>) -> Self {
        self.title = title.into();
        self
    }

    /// The `type` member: a URI that names the kind of problem. Default: `about:blank`.
    pub fn kind(mut self, kind: impl Into<Cow<'static, str>>) -> Self {
        self.kind = kind.into();
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
        let mut json = String::with_capacity(128);
        json.push_str("{\"type\":");
        push_text(&mut json, &self.kind);
        json.push_str(",\"title\":");
        push_text(&mut json, &self.title);
        json.push_str(",\"status\":");
        json.push_str(self.status.as_str());
        if let Some(detail) = &self.detail {
            json.push_str(",\"detail\":");
            push_text(&mut json, detail);
        }
        json.push('}');
        json
    }

    /// The response, not to be cached.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(self.to_json()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// Writes a JSON string. Without the feature `json` there is no serializer.
fn push_text(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            control if control < ' ' => {
                json.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            plain => json.push(plain),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_in_a_fixed_order() {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail("Come back later.");
        assert_eq!(
            problem.to_json(),
            r#"{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"Come back later."}"#
        );
    }

    #[test]
    fn detail_may_be_absent_and_the_rest_chosen() {
        let problem = Problem::new(StatusCode::CONFLICT).kind("/problems/finished").title("Over");
        assert_eq!(
            problem.to_json(),
            r#"{"type":"/problems/finished","title":"Over","status":409}"#
        );
        assert_eq!(problem.status(), StatusCode::CONFLICT);
    }

    #[test]
    fn unknown_status_has_a_title() {
        let status = StatusCode::from_u16(599).expect("three digits");
        assert!(Problem::new(status).to_json().contains(r#""title":"Error""#));
    }

    #[cfg(feature = "json")]
    #[test]
    fn any_text_survives() {
        let text: String =
            (0..0x80).map(char::from).chain("\u{e9}\u{2028}\u{1f600}".chars()).collect();
        let json = Problem::new(StatusCode::BAD_REQUEST).detail(text.clone()).to_json();
        let read: serde_json::Value = serde_json::from_str(&json).expect("valid JSON");
        assert_eq!(read["detail"], text);
    }
}
