//! The checks that come before every route: the path and the `Host` of a request, the page that has
//! sent it, and its credentials.
//!
//! The guard answers preflights and adds the CORS headers to every answer. It gives the route the
//! rights of the request as a [`Caller`]. The route checks these rights, because only the route
//! knows the topics.
//!
//! `Host` must be a name of this server. Without this check, an attacker could make another domain
//! name resolve to the address of this server, and a page of that domain could then use the server.

use std::{sync::atomic::Ordering, time::Instant};

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request::Parts,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use downlink::{
    LastEventId,
    access::{Caller, Origin, Origins, single_value, tickets},
    serve::PeerAddr,
};

use super::{
    discard,
    reply::{Refused, RefusedAs, bad_request, forbidden, not_found, shown},
    state::App,
};
use crate::{
    access::{ClientAddress, Credentials, Role, Rules, is_open},
    logs::RequestLine,
};

/// Headers that a proxy adds. A development server refuses requests with one of them, because a
/// proxy on this machine can forward the requests of strangers.
const PROXY_HEADERS: [&str; 8] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "cf-connecting-ip",
    "true-client-ip",
];

pub(super) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let version = request.version();
    let (request, cut) = discard::discard_rest(request);
    let (mut head, body) = request.into_parts();
    let by_event_source = is_event_source(&head);
    let (method, uri) = (head.method.clone(), head.uri.clone());
    let peer = head.extensions.get::<PeerAddr>().copied().unwrap_or(PeerAddr::Unknown);
    let address = app.control.client_address(app.role, peer, &head.headers);
    let mut line = RequestLine::begin((&method, &uri), &head.headers, peer, address);
    let rules = app.control.rules();
    let (origin, outcome) = match check(&app, &rules, &head, address, by_event_source).await {
        Ok((origin, outcome)) => (origin, Ok(outcome)),
        Err((origin, refused)) => (origin, Err(refused)),
    };
    let mut response = match outcome {
        Ok(Outcome::Preflight) => {
            drop(body);
            (StatusCode::NO_CONTENT, Origins::preflight()).into_response()
        }
        Ok(Outcome::Open) => next.run(Request::from_parts(head, body)).await,
        Ok(Outcome::Caller(caller)) => {
            line.iter_mut().for_each(|line| line.key = caller.verified().key());
            head.extensions.insert(caller);
            let shares_connection = version >= Version::HTTP_2;
            let origin = origin.clone();
            head.extensions.insert(Sender { peer, address, origin, shares_connection });
            next.run(Request::from_parts(head, body)).await
        }
        Err(refused) => {
            drop(body);
            refused.into_response_for(by_event_source)
        }
    };
    let refused_as: Option<RefusedAs> = response.extensions().get().copied();
    if let Some(refused_as) = refused_as {
        count(&app, &method, uri.path(), refused_as);
    }
    rules.origins.mark(&origin, response.headers_mut());
    // If the body was not read to its end, an HTTP/1 connection cannot carry another request.
    if cut.load(Ordering::Relaxed) && version <= Version::HTTP_11 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(line) = line {
        line.write(&response, refused_as.and_then(|refused_as| refused_as.code));
    }
    response
}

/// Counts a refused request for the metrics.
fn count(app: &App, method: &Method, path: &str, refused_as: RefusedAs) {
    if *method == Method::POST && ["/events", "/events/batch"].contains(&path) {
        app.counters.note_publish(refused_as.result);
    }
    if let Some(code) = refused_as.code {
        app.counters.note_auth_failure(code);
    }
}

/// Where a request comes from.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) peer: PeerAddr,
    pub(super) address: ClientAddress,
    pub(super) origin: Origin,
    /// Whether the connection may have several streams at once.
    pub(super) shares_connection: bool,
}

fn is_subscription(head: &Parts) -> bool {
    head.uri.path() == "/events" && head.method == Method::GET
}

/// Whether an `EventSource` of a browser has sent the request.
fn is_event_source(head: &Parts) -> bool {
    is_subscription(head) && LastEventId::from_request(&head.headers, head.uri.query()).is_browser()
}

enum Outcome {
    /// The request is a CORS preflight: a browser asks whether a page may send another request.
    Preflight,
    /// The path needs no right.
    Open,
    Caller(Caller),
}

/// Checks a request. An error contains the origin too, because the CORS headers of the answer
/// depend on the origin. Without these headers, the page could not read the refusal.
async fn check(
    app: &App,
    rules: &Rules,
    head: &Parts,
    address: ClientAddress,
    by_event_source: bool,
) -> Result<(Origin, Outcome), (Origin, Refused)> {
    let (path, headers, method) = (head.uri.path(), &head.headers, &head.method);
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if reads && ["/healthz", "/readyz"].contains(&path) {
        // `Host` is not checked on these paths. Many health checks know only an IP address, and
        // some health checks use HTTP/1.0 and send no `Host`.
        return Ok((Origin::None, Outcome::Open));
    }
    let unknown = |refused| (Origin::None, refused);
    let host = host(head).map_err(unknown)?;
    check_host(app, &rules.host_names, host).map_err(unknown)?;
    if app.role == Role::Development {
        check_no_proxy(headers).map_err(unknown)?;
    }
    let names = rules.host_names.iter().map(String::as_str);
    let origin = rules.origins.of(headers, method, names.chain([host]));
    let origin = origin.map_err(|name| unknown(given_twice(&name)))?;
    if let Origin::Foreign(page) = &origin {
        return Err(unknown(foreign(page)));
    }
    if !app.role.serves(path) {
        return Err((origin, not_served(path)));
    }
    if *method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return Ok((origin, Outcome::Preflight));
    }
    if reads && is_open(path) {
        return Ok((origin, Outcome::Open));
    }
    let from = (&origin, address);
    match caller(app, rules, head, from, by_event_source).await {
        Ok(caller) => Ok((origin, Outcome::Caller(caller))),
        Err(refused) => Err((origin, refused)),
    }
}

/// Verifies the credentials of a request.
async fn caller(
    app: &App,
    rules: &Rules,
    head: &Parts,
    (origin, address): (&Origin, ClientAddress),
    by_event_source: bool,
) -> Result<Caller, Refused> {
    let tickets = tickets(head.uri.query());
    let (headers, method) = (&head.headers, &head.method);
    let tickets = &*tickets;
    let credentials = Credentials { headers, tickets, origin, rules, method, by_event_source };
    let rates = app.control.rates().filter(|_| app.control.has_credential(&credentials));
    let attempt = rates.as_ref().map_or(Ok(()), |rates| rates.attempt(address, Instant::now()));
    // A stranger may have the same IP address as the app. The stranger's bad credentials must not
    // keep the app from publishing. So the limit of bad credentials does not apply to a request
    // with a key that this listener accepts.
    attempt.or_else(|exceeded| match app.control.has_key(app.role, &credentials) {
        true => Ok(()),
        false => Err(exceeded),
    })?;
    match app.control.verify(app.role, &credentials).await {
        Ok(caller) => Ok(caller),
        Err(error) => {
            let is_for_app = is_subscription(head) && app.control.is_for_app(&credentials, &error);
            if is_for_app {
                return Ok(app.control.with_bad_cookie(&credentials, error));
            }
            if let Some(rates) = rates.filter(|_| error.status() == 401) {
                rates.failed(address, Instant::now());
            }
            if is_subscription(head) && app.control.is_cookie(&credentials) {
                return Ok(app.control.with_bad_cookie(&credentials, error));
            }
            Err(error.into())
        }
    }
}

fn host(head: &Parts) -> Result<&str, Refused> {
    let host = single_value(&head.headers, &header::HOST).map_err(|name| given_twice(&name))?;
    let target = head.uri.authority().map(|authority| authority.as_str());
    match (host, target) {
        (Some(host), Some(target)) if !host.eq_ignore_ascii_case(target) => {
            Err(bad_request("The Host header and the address of the request are different."))
        }
        (host, target) => host
            .or(target)
            .ok_or_else(|| bad_request("Send a Host header with the name of this server.")),
    }
}

/// The refusal of a path that a public listener does not serve.
fn not_served(path: &str) -> Refused {
    not_found(format!(
        "There is nothing at {} on this address. Subscribe and publish at /events.",
        shown(path)
    ))
}

fn given_twice(name: &HeaderName) -> Refused {
    bad_request(format!("Send only one {name} header, in visible ASCII."))
}

fn check_host(app: &App, names: &[String], host: &str) -> Result<(), Refused> {
    let allowed = |name: &String| {
        name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(without_port(host))
    };
    // If the settings give no host name, a listener that other machines can reach accepts every
    // name. An admin listener can be reached only from this machine.
    let is_public = app.role.is_public() && !app.settings.is_local();
    let open = is_public && names.is_empty();
    if open || is_loopback(without_port(host)) || names.iter().any(allowed) {
        return Ok(());
    }
    let advice = match app.role {
        Role::Development => "A server for other machines is started with downlink serve.",
        _ => "To allow it, start the server with --host and that name.",
    };
    Err(forbidden(format!("The host name {} is not allowed. {advice}", shown(host)))
        .code("host_denied"))
}

fn check_no_proxy(headers: &HeaderMap) -> Result<(), Refused> {
    let Some(name) = PROXY_HEADERS.iter().find(|name| headers.contains_key(**name)) else {
        return Ok(());
    };
    Err(forbidden(format!(
        "The request has come through a proxy, as its header {name} shows, and a development \
         server is only for programs on this machine. Behind a proxy, use downlink serve."
    ))
    .code("proxy_denied"))
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

fn foreign(page: &str) -> Refused {
    forbidden(format!(
        "Pages of {} may not use this server. To allow them, start it with --cors-origin and their \
         origin.",
        shown(page)
    ))
    .code("origin_denied")
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
    fn loopback_names_are_recognized() {
        for name in ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in ["evil.example", "localhost.evil.example", "10.0.0.1", "", "[::2]"] {
            assert!(!is_loopback(name), "{name}");
        }
    }
}
