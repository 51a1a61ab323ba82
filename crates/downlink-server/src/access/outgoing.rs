//! Shared functions for the requests that the server itself sends. It sends requests to the issuer
//! of tokens, and to the app that decides about subscriptions.
//!
//! The client follows no redirect, uses no proxy, keeps no cookies and never sends a request twice.
//! A body is read only up to a limit, whatever its `Content-Length` says. The callers of this
//! module set the time limits of their requests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Response, Url, redirect, retry};
use tokio::{sync::Semaphore, time::Instant};

/// The time for which an unused connection stays open. Common app servers close an unused
/// connection after 2 seconds or more. The client closes it earlier, because a request would fail
/// if the app closed the connection at the same moment.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// The maximum number of simultaneous lookups of host names. A lookup cannot be cancelled. Without
/// this limit, lookups at a name server that does not answer would occupy all threads for blocking
/// work.
const LOOKUPS_MAX: usize = 4;

/// The minimum time between two log messages about failures of the same kind.
const FAILURE_MESSAGE_EVERY: Duration = Duration::from_secs(60);

/// The name of the server in `User-Agent`.
const USER_AGENT: &str = concat!("downlink/", env!("CARGO_PKG_VERSION"));

/// The settings of the HTTP client.
pub(crate) fn client_builder() -> ClientBuilder {
    Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .http1_only()
        .pool_idle_timeout(IDLE_MAX)
        .dns_resolver(Arc::new(Resolver::default()))
}

/// Parses an `http` or `https` URL.
///
/// # Errors
///
/// The error says how to correct the URL. It does not repeat the URL, which may have a secret.
pub(super) fn parse_url(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text).context("this is not a URL")?;
    match url.scheme() {
        "http" => {}
        "https" if cfg!(feature = "https") => {}
        "https" => bail!("this program was built without the feature `https`"),
        scheme => bail!("the URL begins with {scheme:?}, but it must begin with http or https"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        bail!("the URL has a user name or a password, which the server cannot use");
    }
    Ok(url)
}

/// Whether the host of a URL is this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    ip.map_or_else(|_| is_localhost(host), |ip| ip.to_canonical().is_loopback())
}

/// Reads the body of a response.
///
/// # Errors
///
/// The body is longer than `bytes_max`, or the connection failed.
pub(super) async fn read_body(mut response: Response, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        if chunk.len() > bytes_max - body.len() {
            bail!("the body has more than {bytes_max} bytes");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Looks up host names with the system's resolver, at most [`LOOKUPS_MAX`] at a time. The name
/// `localhost` always means this machine and needs no lookup.
#[derive(Debug)]
struct Resolver(Arc<Semaphore>);

impl Default for Resolver {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS_MAX)))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let permits = Arc::clone(&self.0);
        Box::pin(async move {
            if is_localhost(name.as_str()) {
                let this_machine = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                let addresses = this_machine.map(|ip: IpAddr| SocketAddr::new(ip, 0));
                return Ok(Box::new(addresses.into_iter()) as Addrs);
            }
            let permit = permits.acquire_owned().await?;
            let look_up = move || {
                // The permit is released when the lookup ends. The request may have ended before
                // that.
                let _permit = permit;
                (name.as_str(), 0).to_socket_addrs()
            };
            Ok(Box::new(tokio::task::spawn_blocking(look_up).await??) as Addrs)
        })
    }
}

fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
}

/// Limits the log messages about repeated failures. The first failure is logged. After that, at
/// most one message is logged in each period of [`FAILURE_MESSAGE_EVERY`].
#[derive(Debug, Default)]
pub(super) struct FailureLog(
    /// A thread that holds this lock takes no other lock. It holds the lock only to read or change
    /// the counts.
    Mutex<Failures>,
);

#[derive(Debug, Default)]
struct Failures {
    shown_at: Option<Instant>,
    /// The number of failures since the last message.
    count: u64,
    /// Whether a message was logged since the last success.
    announced: bool,
}

impl FailureLog {
    /// Counts a failure. If a message is due, returns the number of failures since the previous
    /// message, including this failure.
    pub(super) fn failed(&self, now: Instant) -> Option<u64> {
        let mut failures = self.0.lock();
        failures.count += 1;
        if failures.shown_at.is_some_and(|shown| now < shown + FAILURE_MESSAGE_EVERY) {
            return None;
        }
        (failures.shown_at, failures.announced) = (Some(now), true);
        Some(std::mem::take(&mut failures.count))
    }

    /// Records a success. Returns whether a message about failures was logged since the previous
    /// success.
    pub(super) fn succeeded(&self) -> bool {
        std::mem::take(&mut self.0.lock().announced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_begins_with_http_or_https_and_has_no_password() {
        assert!(parse_url("http://app.example/may-i?x=1").is_ok());
        assert_eq!(parse_url("https://app.example").is_ok(), cfg!(feature = "https"));
        for text in ["app.example", "ftp://app", "file:///a", "http://", "http://u:p@app", ""] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_url_is_loopback_only_if_its_host_is_this_machine() {
        let is = |text: &str| is_loopback(&Url::parse(text).unwrap());
        assert!(is("http://127.0.0.1:8000/") && is("http://127.9/") && is("http://[::1]/"));
        assert!(is("http://localhost/") && is("http://LOCALHOST:1/"));
        assert!(!is("http://localhost.example/") && !is("http://127.0.0.1.example/"));
        assert!(!is("http://10.0.0.1/") && !is("http://[::2]/") && !is("http://0.0.0.0/"));
    }

    #[tokio::test]
    async fn localhost_is_this_machine_without_a_lookup() {
        let resolver = Resolver(Arc::new(Semaphore::new(0)));
        let found = resolver.resolve("LocalHost".parse().unwrap()).await.unwrap();
        assert!(found.map(|address| address.ip()).all(|ip| ip.is_loopback()));
    }

    #[tokio::test]
    async fn a_failed_lookup_releases_its_permit() {
        let resolver = Resolver::default();
        assert!(resolver.resolve("a\0b".parse().unwrap()).await.is_err());
        assert_eq!(resolver.0.available_permits(), LOOKUPS_MAX);
    }

    #[test]
    fn at_most_one_message_about_failures_is_logged_in_an_interval() {
        let (log, start) = (FailureLog::default(), Instant::now());
        assert!(!log.succeeded());
        assert_eq!(log.failed(start), Some(1));
        assert_eq!(log.failed(start), None);
        assert!(log.succeeded() && !log.succeeded());
        assert_eq!(log.failed(start + FAILURE_MESSAGE_EVERY - Duration::from_millis(1)), None);
        assert!(!log.succeeded(), "the failure was not logged");
        assert_eq!(log.failed(start + FAILURE_MESSAGE_EVERY), Some(3));
    }
}
