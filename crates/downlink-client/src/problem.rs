//! A server's description of an error.

use http::{HeaderMap, StatusCode};
use reqwest::Response;
use serde::Deserialize;
use std::{fmt, time::Duration};

use crate::head::{has_media_type, retry_after};

/// The maximum size of an answer: 64 KiB.
///
/// A receipt has about a hundred bytes and a problem a few hundred, so a larger answer is not from
/// a downlink server.
pub const ANSWER_BYTES_MAX: usize = 64 * 1_024;

/// The time limit for the description of a refusal: 5 seconds.
///
/// The description usually arrives right after the head of the answer. With half the time, the
/// client would miss the description on a slow connection. With double the time, a server that
/// sends only a head would delay the next attempt by ten seconds.
const PROBLEM_TIMEOUT: Duration = Duration::from_secs(5);

const PROBLEM: &str = "application/problem+json";

/// The server's description of an error (RFC 9457).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[non_exhaustive]
pub struct Problem {
    /// The HTTP status of the answer.
    #[serde(skip)]
    pub status: StatusCode,
    /// The kind of problem, as a URI. Empty if the server sent none.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// A short name of the cause, such as `token_expired`. Empty if the server sent none.
    #[serde(default)]
    pub code: String,
    /// The title of this kind of problem.
    #[serde(default)]
    pub title: String,
    /// A description of this error, and how to fix it.
    #[serde(default)]
    pub detail: String,
    /// The wait from the header `Retry-After`.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = if self.detail.is_empty() { &self.title } else { &self.detail };
        write!(f, "{} {text}", self.status.as_u16())
    }
}

/// Parses the problem in an answer. `None` if the body of the answer is not a problem.
pub(crate) fn parse(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Option<Problem> {
    if !has_media_type(headers, PROBLEM) {
        return None;
    }
    let problem = serde_json::from_slice::<Problem>(body).ok()?;
    Some(Problem { status, retry_after: retry_after(headers), ..problem })
}

/// Reads the problem of a refused subscription. `None` if the problem is missing, is too long or
/// arrives too late. A missing problem is no error, because the status already says what happened.
pub(crate) async fn read(mut answer: Response) -> Option<Problem> {
    if !has_media_type(answer.headers(), PROBLEM) {
        return None;
    }
    let described = async {
        let body = read_body(&mut answer).await.ok()??;
        parse(answer.status(), answer.headers(), &body)
    };
    tokio::time::timeout(PROBLEM_TIMEOUT, described).await.ok()?
}

/// Reads the body of an answer. `None` if it is longer than [`ANSWER_BYTES_MAX`].
pub(crate) async fn read_body(answer: &mut Response) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}
