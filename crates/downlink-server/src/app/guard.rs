//! Access control for a server without credentials.
//!
//! A server on loopback serves this machine and its own pages. `Host` must be a name of this
//! server, so a foreign domain name that resolves to this address is refused. `Origin` must be this
//! server's own: a page of another origin is refused, and another port of localhost is another
//! origin. The guard grants nothing: no answer carries a CORS header.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    linger,
    reply::{Refused, bad_request, forbidden, shown},
    state::App,
};
use crate::config::{Right, Settings};

/// Paths that a probe may request without any right.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let request = linger::lingering(request);
    let response = match check(&app.settings, &request) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    let status = response.status().as_u16();
    tracing::debug!(%method, path = %shown(uri.path()), status, "answered");
    response
}

fn check(settings: &Settings, request: &Request) -> Result<(), Refused> {
    let host = host(request)?;
    check_host(settings, host)?;
    check_origin(request.headers(), request.method(), host)?;
    let right = match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => Right::Subscribe,
        _ => Right::Publish,
    };
    if settings.allows(right) || OPEN_PATHS.contains(&request.uri().path()) {
        return Ok(());
    }
    let right = match right {
        Right::Subscribe => "subscribe",
        Right::Publish => "publish",
    };
    Err(forbidden(format!(
        "This server lets no client {right}: it was not started with --anonymous {right}."
    )))
}

fn host(request: &Request) -> Result<&str, Refused> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) => request.uri().authority().map(|authority| authority.as_str()),
        _ => None,
    };
    host.ok_or_else(|| bad_request("Send one Host header, with the name of this server."))
}

fn check_host(settings: &Settings, host: &str) -> Result<(), Refused> {
    let allowed = |name: &String| {
        name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(without_port(host))
    };
    let open = !settings.is_local() && settings.hosts.is_empty();
    if open || is_loopback(without_port(host)) || settings.hosts.iter().any(allowed) {
        return Ok(());
    }
    Err(forbidden(format!(
        "This server does not have the name {}. If it should, start it with --host and that name.",
        shown(host)
    )))
}

/// The host without its port; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_loopback(name: &str) -> bool {
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    let address = address.parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn check_origin(headers: &HeaderMap, method: &Method, host: &str) -> Result<(), Refused> {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("null");
        let own = ["http://", "https://"].iter().any(|scheme| {
            origin.strip_prefix(scheme).is_some_and(|rest| rest.eq_ignore_ascii_case(host))
        });
        return if own { Ok(()) } else { Err(foreign(origin)) };
    }
    // A browser that sends no `Origin` still sends `Sec-Fetch-Site`.
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    let navigates = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    let safe = matches!(*method, Method::GET | Method::HEAD);
    match site {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) if safe && navigates => Ok(()),
        Some(_) => Err(foreign("another site")),
    }
}

fn foreign(origin: &str) -> Refused {
    forbidden(format!(
        "Pages of {} may not use this server: send the request from its own page or a program.",
        shown(origin)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_not_part_of_the_name() {
        assert_eq!(without_port("localhost:8080"), "localhost");
        assert_eq!(without_port("[::1]:8080"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
        assert_eq!(without_port("localhost"), "localhost");
    }

    #[test]
    fn loopback_names_are_ours() {
        for name in ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in ["evil.example", "localhost.evil.example", "10.0.0.1", "", "[::2]"] {
            assert!(!is_loopback(name), "{name}");
        }
    }

    fn origin(origin: &'static str, host: &str) -> bool {
        let headers = HeaderMap::from_iter([(header::ORIGIN, origin.parse().unwrap())]);
        check_origin(&headers, &Method::POST, host).is_ok()
    }

    #[test]
    fn only_the_very_same_origin_is_ours() {
        assert!(origin("http://127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(origin("https://push.example", "push.example"));
        assert!(!origin("http://127.0.0.1:8081", "127.0.0.1:8080"));
        assert!(!origin("http://localhost:8080", "127.0.0.1:8080"));
        assert!(!origin("null", "127.0.0.1:8080"));
        assert!(!origin("http://127.0.0.1:8080.evil.example", "127.0.0.1:8080"));
    }

    fn site(site: &'static str, mode: &'static str, method: &Method) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("sec-fetch-site", site.parse().unwrap());
        headers.insert("sec-fetch-mode", mode.parse().unwrap());
        check_origin(&headers, method, "localhost").is_ok()
    }

    #[test]
    fn without_an_origin_the_site_counts() {
        assert!(site("same-origin", "cors", &Method::GET));
        assert!(site("none", "navigate", &Method::GET));
        assert!(site("cross-site", "navigate", &Method::GET));
        assert!(!site("same-site", "no-cors", &Method::GET));
        assert!(!site("cross-site", "navigate", &Method::POST));
    }
}
