//! Access control for a server without credentials.
//!
//! A server on a loopback address accepts requests from programs on this machine and from its own
//! page. `Host` must be a name of this server. Without this check, an attacker could make a foreign
//! domain name resolve to this address. A page of that domain could then use the server. `Origin`
//! must be the server's own origin, so requests from pages of other origins are refused. Another
//! port of localhost is another origin too. No answer has a CORS header, so browsers show no answer
//! to pages of other origins.

use std::sync::atomic::Ordering;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    discard,
    reply::{Refused, bad_request, forbidden, shown},
    state::App,
};
use crate::config::{Right, Settings};

/// Paths that a probe may request without any right and with any `Host`. A probe knows only an IP
/// address, and some probes send no `Host` because they use HTTP/1.0.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let version = request.version();
    let (request, cut) = discard::discard_rest(request);
    let checked = check(&app.settings, &request);
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(refused) => {
            drop(request);
            refused.into_response()
        }
    };
    // If the body was not read to its end, an HTTP/1 connection cannot carry another request.
    if cut.load(Ordering::Relaxed) && version <= Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let status = response.status().as_u16();
    tracing::debug!(%method, path = %shown(uri.path()), status, "answered");
    response
}

fn check(settings: &Settings, request: &Request) -> Result<(), Refused> {
    let right = match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => Right::Subscribe,
        _ => Right::Publish,
    };
    if right == Right::Subscribe && OPEN_PATHS.contains(&request.uri().path()) {
        return Ok(());
    }
    let host = host(request)?;
    check_host(settings, host)?;
    check_origin(request.headers(), request.method(), host, &settings.hosts)?;
    if settings.allows(right) {
        return Ok(());
    }
    let right = match right {
        Right::Subscribe => "subscribe",
        Right::Publish => "publish",
    };
    Err(forbidden(format!(
        "No client may {right}: the server was started without --anonymous {right}."
    )))
}

fn host(request: &Request) -> Result<&str, Refused> {
    let host = one(request.headers(), &header::HOST)?;
    let target = request.uri().authority().map(|authority| authority.as_str());
    match (host, target) {
        (Some(host), Some(target)) if !host.eq_ignore_ascii_case(target) => {
            Err(bad_request("The Host header and the address of the request are different."))
        }
        (host, target) => host
            .or(target)
            .ok_or_else(|| bad_request("Send a Host header with the name of this server.")),
    }
}

/// The value of a header that may be given only once. With two values, a proxy might check the
/// first value and this server the second.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refused> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err(bad_request(format!("Send only one {name} header, in visible ASCII."))),
    }
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
        "The host name {} is not allowed. To allow it, start the server with --host and that name.",
        shown(host)
    )))
}

/// The host without its port. An IPv6 address keeps its brackets.
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

fn check_origin(
    headers: &HeaderMap,
    method: &Method,
    host: &str,
    names: &[String],
) -> Result<(), Refused> {
    let site = one(headers, &SEC_FETCH_SITE)?;
    let origin = one(headers, &header::ORIGIN)?;
    // With this value, the browser says that the page has the origin of the server.
    // `Sec-Fetch-Site` is more reliable than `Host`, because a proxy may have changed `Host`.
    if site == Some("same-origin") {
        return Ok(());
    }
    if let Some(origin) = origin {
        let own = is_own(origin, host) || names.iter().any(|name| is_own(origin, name));
        return if own { Ok(()) } else { Err(foreign(origin)) };
    }
    // Some requests of browsers have no `Origin`, but they have `Sec-Fetch-Site`.
    let navigates = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    let safe = matches!(*method, Method::GET | Method::HEAD);
    match site {
        None | Some("none") => Ok(()),
        Some(_) if safe && navigates => Ok(()),
        Some(_) => Err(foreign("another site")),
    }
}

/// Whether an origin belongs to a server with this name. The default port of a scheme may be
/// written or left out, in the origin and in the name.
fn is_own(origin: &str, name: &str) -> bool {
    let schemes = [("http://", ":80"), ("https://", ":443")];
    let own = schemes.iter().find_map(|(scheme, port)| Some((origin.strip_prefix(scheme)?, port)));
    let Some((rest, port)) = own else { return false };
    let bare = |text: &str| text.strip_suffix(*port).unwrap_or(text).to_ascii_lowercase();
    bare(rest) == bare(name)
}

fn foreign(origin: &str) -> Refused {
    forbidden(format!(
        "Pages of {} may not use this server: use the server's own page or a program.",
        shown(origin)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_not_part_of_the_name() {
        assert_eq!(without_port("localhost:8080"), "localhost");
        assert_eq!(without_port("[::1]:8080"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
        assert_eq!(without_port("localhost"), "localhost");
    }

    #[test]
    fn loopback_names_are_recognised() {
        for name in ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in ["evil.example", "localhost.evil.example", "10.0.0.1", "", "[::2]"] {
            assert!(!is_loopback(name), "{name}");
        }
    }

    fn origin(origin: &'static str, host: &str, names: &[&str]) -> bool {
        let headers = HeaderMap::from_iter([(header::ORIGIN, origin.parse().unwrap())]);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        check_origin(&headers, &Method::POST, host, &names).is_ok()
    }

    #[test]
    fn only_the_same_origin_is_allowed() {
        assert!(origin("http://127.0.0.1:8080", "127.0.0.1:8080", &[]));
        assert!(origin("https://push.example", "push.example", &[]));
        assert!(!origin("http://127.0.0.1:8081", "127.0.0.1:8080", &[]));
        assert!(!origin("http://localhost:8080", "127.0.0.1:8080", &[]));
        assert!(!origin("null", "127.0.0.1:8080", &[]));
        assert!(!origin("http://127.0.0.1:8080.evil.example", "127.0.0.1:8080", &[]));
    }

    #[test]
    fn the_default_port_of_the_scheme_may_be_left_out() {
        assert!(origin("https://name", "name:443", &[]) && origin("https://Name:443", "name", &[]));
        assert!(origin("http://name", "name:80", &[]));
        assert!(!origin("http://name", "name:443", &[]) && !origin("https://name", "name:80", &[]));
        assert!(!origin("https://name:8443", "name", &[]));
    }

    #[test]
    fn an_origin_with_a_host_name_of_the_server_is_allowed_behind_a_proxy() {
        let names = ["push.example", "other.example:8443"];
        assert!(origin("https://push.example", "127.0.0.1:8080", &names));
        assert!(origin("https://other.example:8443", "127.0.0.1:8080", &names));
        assert!(!origin("https://other.example", "127.0.0.1:8080", &names));
        assert!(!origin("https://push.example:444", "127.0.0.1:8080", &names));
    }

    fn site(headers: &[(&'static str, &'static str)], method: &Method) -> bool {
        let parsed = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut all = HeaderMap::new();
        headers.iter().map(parsed).for_each(|(name, value)| _ = all.append(name, value));
        check_origin(&all, method, "localhost", &[]).is_ok()
    }

    #[test]
    fn without_an_origin_header_the_fetch_site_decides() {
        let of = |site, mode| [("sec-fetch-site", site), ("sec-fetch-mode", mode)];
        assert!(site(&of("same-origin", "cors"), &Method::GET));
        assert!(site(&of("none", "navigate"), &Method::GET));
        assert!(site(&of("cross-site", "navigate"), &Method::GET));
        assert!(!site(&of("same-site", "no-cors"), &Method::GET));
        assert!(!site(&of("cross-site", "navigate"), &Method::POST));
    }

    #[test]
    fn the_fetch_site_header_overrules_the_origin_header() {
        let (own, foreign) = (("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site"));
        let origin = ("origin", "https://behind.a.proxy");
        assert!(site(&[own, origin], &Method::POST));
        assert!(!site(&[foreign, origin], &Method::POST) && !site(&[origin], &Method::POST));
        assert!(!site(&[own, foreign], &Method::POST), "two values of the header are refused");
        assert!(!site(&[origin, ("origin", "http://localhost")], &Method::POST));
    }
}
