//! Fetches the key set of `--jwks-url`: the public keys of the issuer of tokens.
//!
//! A [`KeySetCache`] decides when a fetch is due: every five minutes, and earlier for a token with
//! an unknown key. One task fetches, so there is never more than one fetch at a time. Requests that
//! need the result wait for the fetch. If such a request ends early, the fetch continues.
//!
//! A fetch reads at most [`KEY_SET_BYTES_MAX`] bytes, follows no redirect and ends after
//! [`FETCH_TIMEOUT`]. If a fetch fails, the older set stays in use.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use downlink::hub::{Clock, Timestamp};
use downlink_access::{FETCH_TIMEOUT, KEY_SET_BYTES_MAX, KeySetCache};
use reqwest::{Client, StatusCode, Url, header};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, timeout},
};

use super::outgoing::{self, FailureLog};

/// Keeps a key set up to date.
#[derive(Debug)]
pub(crate) struct KeySets {
    /// The URL as the settings give it.
    url: String,
    source: Source,
    cache: Arc<KeySetCache>,
    clock: Clock,
    /// Wakes the task that fetches.
    wanted: Notify,
    /// Invariant: `in_flight` becomes true in the same step in which the cache begins a fetch. It
    /// becomes false when the cache has got the document or has counted the fetch as failed. Both
    /// steps hold the lock of this sender.
    progress: watch::Sender<Progress>,
    failures: FailureLog,
}

/// Where the server reads the key set: from a URL or from a file.
#[derive(Debug)]
enum Source {
    Http { client: Client, url: Url },
    File { path: PathBuf, reading: Arc<Semaphore> },
}

/// The state of the fetches.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    in_flight: bool,
    /// The number of fetches that have ended.
    ended: u64,
}

impl KeySets {
    /// Makes the key set of a URL: `https://`, `file://`, or `http://` for this machine.
    ///
    /// # Errors
    ///
    /// The error says how to correct the URL.
    pub(crate) fn new(url: &str, cache: Arc<KeySetCache>) -> anyhow::Result<Self> {
        let source = Source::new(url)?;
        Ok(Self { url: url.to_owned(), ..Self::from_source(source, cache, Clock::system()) })
    }

    /// The URL as the settings give it.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn cache(&self) -> &Arc<KeySetCache> {
        &self.cache
    }

    fn from_source(source: Source, cache: Arc<KeySetCache>, clock: Clock) -> Self {
        Self {
            url: String::new(),
            source,
            cache,
            clock,
            wanted: Notify::new(),
            progress: watch::Sender::default(),
            failures: FailureLog::default(),
        }
    }

    /// Fetches whenever a fetch is due, and calls `check_streams` after each fetch that has removed
    /// a key. It also calls `check_streams` after a fetch that gives the server a key set when it
    /// had none. Without a key set, the server cannot know whether the key of an open stream is
    /// still accepted. This future never completes.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a fetch in flight counts as failed. A later call of this function
    /// fetches again.
    pub(crate) async fn run(&self, check_streams: impl Fn()) {
        loop {
            let now = self.clock.now();
            if let Some(fetch) = self.begin(now) {
                let removals = self.cache.removals();
                let was_unknown = self.cache.current(now).is_none();
                self.fetch(fetch).await;
                if self.cache.removals() != removals {
                    tracing::info!(
                        "a key was removed from the key set; its tokens are refused and its streams end"
                    );
                    check_streams();
                } else if was_unknown && self.cache.current(self.clock.now()).is_some() {
                    check_streams();
                }
                continue;
            }
            let next = self.cache.next_fetch_at(now).as_millis();
            let wait = Duration::from_millis(next.saturating_sub(now.as_millis()));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    /// If a fetch is due, wakes the task that fetches. Waits until the fetch has ended. Returns at
    /// once if no fetch is in flight or due, for example shortly after a failed fetch. The caller
    /// then still has no key for its request.
    ///
    /// The wait ends after [`FETCH_TIMEOUT`] at the latest, even if no task runs
    /// [`run`](Self::run).
    ///
    /// # Cancel safety
    ///
    /// A waiter that is dropped does not end the fetch for other waiters.
    pub(crate) async fn fetch_now(&self) {
        let mut progress = self.progress.subscribe();
        let now = self.clock.now();
        let ended = {
            let Progress { in_flight, ended } = *progress.borrow();
            if !in_flight && self.cache.next_fetch_at(now) > now {
                return;
            }
            ended
        };
        self.wanted.notify_one();
        let outcome = progress.wait_for(|progress| progress.ended != ended);
        // The result is not needed, because the caller looks at the cache again.
        let _ = timeout(FETCH_TIMEOUT, outcome).await;
    }

    /// Begins a fetch if one is due.
    fn begin(&self, now: Timestamp) -> Option<InFlight<'_>> {
        let begins = self.progress.send_if_modified(|progress| {
            let begins = self.cache.poll_fetch(now);
            progress.in_flight |= begins;
            begins
        });
        begins.then(|| InFlight(self))
    }

    async fn fetch(&self, in_flight: InFlight<'_>) {
        let document = timeout(FETCH_TIMEOUT, self.source.read()).await;
        let outcome = document.map_err(anyhow::Error::from).flatten();
        let outcome = outcome.and_then(|document| {
            self.cache.fetched(self.clock.now(), &document).context("the document is refused")
        });
        drop(in_flight);
        match outcome {
            Ok(()) if self.failures.succeeded() => tracing::info!("fetched the key set again"),
            Ok(()) => tracing::debug!("fetched the key set"),
            Err(error) => {
                if let Some(failures) = self.failures.failed(Instant::now()) {
                    tracing::warn!(failures, "cannot fetch the key set of --jwks-url: {error:#}");
                }
            }
        }
    }
}

/// A fetch in flight. Dropping this value ends the fetch. If the cache has not got the document by
/// then, the fetch counts as failed.
struct InFlight<'a>(&'a KeySets);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.progress.send_modify(|progress| {
            self.0.cache.fetch_failed();
            progress.in_flight = false;
            progress.ended += 1;
        });
    }
}

impl Source {
    fn new(url: &str) -> anyhow::Result<Self> {
        if let Some(file) = Url::parse(url).ok().filter(|url| url.scheme() == "file") {
            let path = file.to_file_path().ok().context("the file: URL has no absolute path")?;
            return Ok(Self::File { path, reading: Arc::new(Semaphore::new(1)) });
        }
        let url = outgoing::parse_url(url)?;
        if url.scheme() == "http" && !outgoing::is_loopback(&url) {
            bail!("over http, another machine could send its own keys: use https");
        }
        Ok(Self::Http { client: outgoing::client_builder().build()?, url })
    }

    async fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Http { client, url } => {
                let request = client.get(url.clone()).header(header::ACCEPT, "application/json");
                let response = request.send().await.map_err(reqwest::Error::without_url)?;
                match response.status() {
                    StatusCode::OK => outgoing::read_body(response, KEY_SET_BYTES_MAX).await,
                    status => bail!("the answer has the status {}", status.as_u16()),
                }
            }
            Self::File { path, reading } => {
                // A read from a broken network drive may never end, and cannot be cancelled. So the
                // server starts a read only if the previous read has ended.
                let permit = Arc::clone(reading).try_acquire_owned();
                let permit = permit.context("the previous read of the file has not ended")?;
                let path = path.clone();
                let read = move || {
                    let _permit = permit;
                    read_file(&path)
                };
                tokio::task::spawn_blocking(read).await?
            }
        }
    }
}

/// Reads a key set from a file, up to one byte more than the limit. This extra byte shows the cache
/// that the file is too large.
fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    // Opening a pipe would block until another program writes to it.
    if !path.metadata()?.is_file() {
        bail!("this is not a regular file");
    }
    let mut document = Vec::new();
    File::open(path)?.take(KEY_SET_BYTES_MAX as u64 + 1).read_to_end(&mut document)?;
    Ok(document)
}

#[cfg(test)]
mod tests;
