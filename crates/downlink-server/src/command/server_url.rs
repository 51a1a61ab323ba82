//! Parses the address of a server for `publish`, `subscribe` and `health`.
//!
//! A user may copy the address from a browser or a document, so it may end with `/events` and have
//! a query. `unix:` with a path is the address of a server on a Unix socket. The parser drops the
//! fragment. It keeps every other part of an address, or returns an error.

use std::{fmt, path::PathBuf, str::FromStr};

use anyhow::Context as _;
use downlink_client::{EventSource, EventSourceBuilder, Publisher};
use reqwest::{Client, RequestBuilder, redirect, retry};

use super::exit;

/// The base URL of a server on a Unix socket. Every server accepts this host name.
const BEHIND_A_SOCKET: &str = "http://localhost";

/// The value of `--url`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ServerUrl {
    /// The URL without `/events`, and without a slash at the end.
    base: String,
    /// The query parameters of the address, in their order.
    pub(super) query: Vec<(String, String)>,
    socket: Option<PathBuf>,
}

impl ServerUrl {
    /// Whether an argument is an address and not a topic. A topic never contains `//`.
    pub(super) fn is_meant(text: &str) -> bool {
        text.contains("://") || text.starts_with("unix:/")
    }

    /// Whether the server is on this machine: on a Unix socket or a loopback address.
    pub(super) fn is_on_this_machine(&self) -> bool {
        let host = self.base.strip_prefix("http://").unwrap_or_default();
        let host = host.split('/').next().unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        self.socket.is_some()
            || name == "localhost"
            || address.is_ok_and(|address| address.is_loopback())
    }

    pub(super) fn publisher(&self) -> anyhow::Result<Publisher> {
        let publisher = Publisher::new(&self.base).with_context(|| self.not_usable());
        let publisher = publisher.map_err(exit::usage)?;
        match &self.socket {
            #[cfg(unix)]
            Some(path) => Ok(publisher.with_unix_socket(path)?),
            _ => Ok(publisher),
        }
    }

    /// A GET request for a path of the server. It uses no proxy and follows no redirect, so only
    /// the server itself can answer.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<RequestBuilder> {
        let builder = Client::builder();
        let builder = match &self.socket {
            #[cfg(unix)]
            Some(socket) => builder.unix_socket(socket.as_path()),
            _ => builder,
        };
        // Without TLS, the request needs no certificates, and a container may have none.
        #[cfg(feature = "https")]
        let builder =
            if self.base.starts_with("https:") { builder } else { builder.tls_certs_only([]) };
        let builder = builder.no_proxy().redirect(redirect::Policy::none()).retry(retry::never());
        Ok(builder.build()?.get(format!("{}{path}", self.base)))
    }

    fn not_usable(&self) -> String {
        format!("{} is not a server address", self.base)
    }
}

/// An event source for a subscription at one of these servers. Each server has its own query.
pub(super) fn event_source(
    urls: &[ServerUrl],
    queries: &[String],
) -> anyhow::Result<EventSourceBuilder> {
    let sockets: Vec<_> = urls.iter().filter_map(|url| url.socket.as_deref()).collect();
    anyhow::ensure!(
        sockets.is_empty() || urls.len() == 1,
        "a unix: address leads to one server: give it alone, or give only URLs"
    );
    let mut addresses =
        urls.iter().zip(queries).map(|(url, query)| format!("{}/events?{query}", url.base));
    let builder = EventSource::builder(addresses.next().unwrap_or_default());
    let builder = addresses.fold(builder, EventSourceBuilder::add_url);
    Ok(match sockets.as_slice() {
        #[cfg(unix)]
        [path] => builder.unix_socket(*path),
        _ => builder,
    })
}

/// The context of an error about these addresses.
pub(super) fn not_usable(urls: &[ServerUrl]) -> String {
    match urls {
        [url] => url.not_usable(),
        _ => "these addresses cannot be used together".to_owned(),
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(socket) => write!(f, "unix:{}", socket.display()),
            None => f.write_str(&self.base),
        }
    }
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || cfg!(not(unix)) {
                return Err("give a path after unix:, on a system with Unix sockets".into());
            }
            let base = BEHIND_A_SOCKET.to_owned();
            return Ok(Self { base, query: Vec::new(), socket: Some(path.into()) });
        }
        let (text, _fragment) = text.split_once('#').unwrap_or((text, ""));
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let (scheme, rest) = address.split_once("://").unwrap_or(("", ""));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() || !matches!(scheme, "http" | "https") {
            return Err("this is not a server address; write http://127.0.0.1:8080, \
                        https://push.example or unix:/run/downlink.sock"
                .into());
        }
        if scheme == "https" && cfg!(not(feature = "https")) {
            return Err(
                "this program was built without TLS; build it with its default features".into()
            );
        }
        let path = format!("/{path}");
        let path = path.trim_end_matches('/');
        let path = path.strip_suffix("/events").unwrap_or(path).trim_end_matches('/');
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Ok(Self { base: format!("{scheme}://{host}{path}"), query, socket: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, base: &str, query: &[(&str, &str)]) {
        let url: ServerUrl = text.parse().unwrap();
        let query: Vec<_> = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!((&*url.base, &*url.query), (base, &*query), "{text}");
    }

    #[test]
    fn the_path_events_is_removed_from_an_address() {
        for text in ["http://h:1", "http://h:1/", "http://h:1/events", "http://h:1/events/"] {
            check(text, "http://h:1", &[]);
        }
        check("http://h/live/events", "http://h/live", &[]);
        check("http://h/live//", "http://h/live", &[]);
        check("http://events", "http://events", &[]);
        check("http://h/my-events", "http://h/my-events", &[]);
    }

    #[test]
    fn only_loopback_addresses_and_sockets_are_on_this_machine() {
        let local = |text: &str| text.parse::<ServerUrl>().unwrap().is_on_this_machine();
        for text in ["http://127.0.0.1:8080", "http://[::1]:1/x", "http://localhost/events"] {
            assert!(local(text), "{text}");
        }
        for text in ["http://10.0.0.1:8080", "http://localhost.evil.example", "http://127.evil/"] {
            assert!(!local(text), "{text}");
        }
    }

    #[test]
    fn query_parameters_are_kept() {
        let query = [("topic", "a b"), ("topic", "c/*"), ("start", "live")];
        check("http://h/events?topic=a%20b&topic=c/*&start=live#x", "http://h", &query);
        check("http://h?topic=a", "http://h", &[("topic", "a")]);
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_address_needs_a_path() {
        for text in ["unix:/run/a b.sock", "unix:///run/a b.sock"] {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!(url.socket, Some("/run/a b.sock".into()), "{text}");
        }
        assert!("unix:".parse::<ServerUrl>().unwrap_err().contains("give a path after unix:"));
    }

    #[test]
    fn an_error_about_an_invalid_address_gives_examples() {
        for text in ["nonsense", "ftp://h", "http://", "http:///events", "h:8080", ""] {
            let refused = text.parse::<ServerUrl>().unwrap_err();
            assert!(refused.contains("http://127.0.0.1:8080"), "{text}: {refused}");
        }
    }

    #[test]
    fn an_https_address_needs_the_feature_https() {
        let parsed = "https://h".parse::<ServerUrl>();
        assert_eq!(parsed.is_ok(), cfg!(feature = "https"), "{parsed:?}");
    }

    #[test]
    fn an_address_is_not_taken_for_a_topic() {
        assert!(ServerUrl::is_meant("http://h/events?topic=a") && ServerUrl::is_meant("ftp://h"));
        assert!(ServerUrl::is_meant("unix:/run/downlink.sock"));
        assert!(!ServerUrl::is_meant("orders/*") && !ServerUrl::is_meant("unix:a"));
    }
}
