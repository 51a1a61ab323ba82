//! Prevents pages of other origins from posting in the name of a signed-in user.
//!
//! Browsers do not send the cookie with requests from pages of other sites. But for a browser, all
//! ports of this machine are one site. So a page on another port could post with the user's cookie.
//! For this reason the server also checks the origin of each POST.

use axum::{
    extract::Request,
    http::{
        HeaderMap, Method, StatusCode,
        header::{HOST, ORIGIN},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use downlink::http::Problem;

/// Answers a POST from another origin with 403.
pub(crate) async fn only_our_own(request: Request, next: Next) -> Response {
    if request.method() == Method::POST && !is_our_own(request.headers()) {
        let sentence = "The request is from a page of another origin. Use the page of this server.";
        return Problem::new(StatusCode::FORBIDDEN).detail(sentence).into_response();
    }
    next.run(request).await
}

/// True if the request is from a page of this server, or from a program that is not a browser.
fn is_our_own(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().ok().and_then(|origin| {
            origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
        });
        return origin.is_some() && origin == text(HOST);
    }
    let site = headers.get("sec-fetch-site");
    site.is_none_or(|site| site == "same-origin" || site == "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &'static str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| {
            (name.parse().expect("the name is valid"), value.parse().expect("the value is valid"))
        });
        is_our_own(&headers.collect())
    }

    #[test]
    fn page_may_post_only_from_this_host_and_port() {
        let host = ("host", "127.0.0.1:8080");
        assert!(check(&[host]));
        assert!(check(&[host, ("origin", "http://127.0.0.1:8080")]));
        assert!(check(&[host, ("origin", "https://127.0.0.1:8080")]));
        for origin in ["http://127.0.0.1:8081", "http://127.0.0.1", "http://evil", "null", ""] {
            assert!(!check(&[host, ("origin", origin)]), "{origin:?}");
        }
        assert!(!check(&[("origin", "http://127.0.0.1:8080")]));
    }

    #[test]
    fn sec_fetch_site_is_checked_if_there_is_no_origin() {
        for (site, expected) in
            [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false)]
        {
            assert_eq!(check(&[("host", "a"), ("sec-fetch-site", site)]), expected);
        }
    }
}
