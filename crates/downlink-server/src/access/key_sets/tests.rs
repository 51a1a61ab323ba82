//! Tests of the fetches of a key set, over real connections on this machine.

use std::{
    convert::Infallible,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::Response,
    routing::get,
};
use downlink_access::{
    AccessError, FETCH_EVERY, FETCH_INTERVAL_MIN, KEY_SET_STALE_MAX, TokenKeys, TokenRules, Tokens,
};
use futures_util::{FutureExt as _, future::join_all};
use tokio::task::JoinHandle;

use super::*;
use crate::access::local_server::LocalServer;

const KEYS: &str = include_str!("../../../../downlink-access/tests/fixtures/keys.json");
/// A token whose key is not in the set. Its signature does not matter.
const UNKNOWN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6Im5ldyJ9.e30.AAAA";

fn is_waiting(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
    future.now_or_never().is_none()
}

/// The issuer. It counts requests, and answers only while its gate is open.
struct Issuer {
    gate: Semaphore,
    requests: AtomicUsize,
    arrived: Notify,
    answer: Box<dyn Fn() -> Response<Body> + Send + Sync>,
}

impl Issuer {
    fn new(answer: impl Fn() -> Response<Body> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(1_000),
            requests: AtomicUsize::new(0),
            arrived: Notify::new(),
            answer: Box::new(answer),
        })
    }

    fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }

    fn close_gate(&self) {
        self.gate.forget_permits(1_000);
    }

    fn open_gate(&self) {
        self.gate.add_permits(1_000);
    }
}

async fn answer(State(issuer): State<Arc<Issuer>>) -> Response<Body> {
    issuer.requests.fetch_add(1, SeqCst);
    issuer.arrived.notify_one();
    issuer.gate.acquire().await.unwrap().forget();
    (issuer.answer)()
}

fn serve(issuer: &Arc<Issuer>) -> LocalServer {
    let router = Router::new().route("/keys", get(answer)).route("/other", get(answer));
    LocalServer::start(router.with_state(Arc::clone(issuer)))
}

/// A key set, and the task that keeps it up to date.
struct Fetching {
    keys: Arc<KeySets>,
    cache: Arc<KeySetCache>,
    clock: Clock,
    task: JoinHandle<()>,
}

impl Fetching {
    fn new(url: &str) -> Self {
        Self::with(Source::new(url).unwrap())
    }

    fn with(source: Source) -> Self {
        let (cache, clock) = (Arc::new(KeySetCache::new()), Clock::manual());
        let keys = Arc::new(KeySets::from_source(source, Arc::clone(&cache), clock.clone()));
        let task = Self::spawn(&keys);
        Self { keys, cache, clock, task }
    }

    fn spawn(keys: &Arc<KeySets>) -> JoinHandle<()> {
        let keys = Arc::clone(keys);
        tokio::spawn(async move { keys.run(|| {}).await })
    }

    /// Waits for the end of a fetch. Returns the number of keys in use.
    async fn fetched(&self) -> Option<usize> {
        self.keys.fetch_now().await;
        self.usable()
    }

    fn usable(&self) -> Option<usize> {
        self.cache.current(self.clock.now()).map(|set| set.usable())
    }

    fn verify(&self, token: &str) -> AccessError {
        let rules = TokenRules {
            issuer: Some("https://issuer.example".into()),
            audiences: vec!["downlink".into()],
            ..TokenRules::default()
        };
        let keys = TokenKeys::new().key_set(Arc::clone(&self.cache));
        Tokens::new(keys, rules).unwrap().verify(token, self.clock.now()).unwrap_err()
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn with_status(status: u16, body: impl Into<Body>) -> Response<Body> {
    Response::builder().status(status).body(body.into()).unwrap()
}

fn padded(bytes: usize) -> String {
    format!("{KEYS}{}", " ".repeat(bytes - KEYS.len()))
}

/// A body in pieces, without a `Content-Length`.
fn streamed(text: String) -> Body {
    let pieces: Vec<_> = text.as_bytes().chunks(10_000).map(Bytes::copy_from_slice).collect();
    Body::from_stream(futures_util::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)))
}

/// Fetches once from an issuer with this answer. Returns the number of keys in use.
async fn fetch(answer: impl Fn() -> Response<Body> + Send + Sync + 'static) -> Option<usize> {
    let server = serve(&Issuer::new(answer));
    Fetching::new(&server.url("/keys")).fetched().await
}

#[tokio::test]
async fn the_first_fetch_begins_without_a_request() {
    let issuer = Issuer::new(|| with_status(200, KEYS));
    let server = serve(&issuer);
    let fetching = Fetching::new(&server.url("/keys"));
    let mut progress = fetching.keys.progress.subscribe();
    progress.wait_for(|progress| progress.ended == 1).await.unwrap();
    assert_eq!((fetching.usable(), issuer.requests()), (Some(4), 1));
}

#[tokio::test]
async fn waiting_requests_share_one_fetch() {
    let issuer = Issuer::new(|| with_status(200, KEYS));
    issuer.close_gate();
    let server = serve(&issuer);
    let fetching = Fetching::new(&server.url("/keys"));
    assert_eq!(fetching.verify(UNKNOWN), AccessError::KeysUnavailable);
    let mut waiting: Vec<_> = (0..200).map(|_| Box::pin(fetching.keys.fetch_now())).collect();
    for wait in &mut waiting {
        assert!(is_waiting(wait));
    }
    issuer.arrived.notified().await;
    issuer.open_gate();
    join_all(waiting).await;
    assert_eq!((fetching.usable(), issuer.requests()), (Some(4), 1));
    fetching.keys.fetch_now().await;
    assert_eq!(issuer.requests(), 1, "no fetch is due");
    assert_eq!(fetching.keys.progress.borrow().ended, 1);
}

#[tokio::test]
async fn a_dropped_waiter_does_not_end_the_fetch() {
    let issuer = Issuer::new(|| with_status(200, KEYS));
    issuer.close_gate();
    let server = serve(&issuer);
    let fetching = Fetching::new(&server.url("/keys"));
    let mut dropped = Box::pin(fetching.keys.fetch_now());
    let mut waiting = Box::pin(fetching.keys.fetch_now());
    assert!(is_waiting(&mut dropped));
    assert!(is_waiting(&mut waiting));
    issuer.arrived.notified().await;
    drop(dropped);
    issuer.open_gate();
    waiting.await;
    assert_eq!((fetching.usable(), issuer.requests()), (Some(4), 1));
}

#[tokio::test]
async fn an_unknown_key_causes_at_most_one_fetch_per_interval() {
    let issuer = Issuer::new(|| with_status(200, KEYS));
    let server = serve(&issuer);
    let fetching = Fetching::new(&server.url("/keys"));
    fetching.keys.fetch_now().await;
    assert_eq!(fetching.verify(UNKNOWN), AccessError::KeyUnknown);
    fetching.keys.fetch_now().await;
    assert_eq!(issuer.requests(), 1);
    fetching.clock.advance(FETCH_INTERVAL_MIN);
    assert_eq!(fetching.verify(UNKNOWN), AccessError::KeysUnavailable);
    fetching.keys.fetch_now().await;
    assert_eq!(issuer.requests(), 2);
    assert_eq!(fetching.verify(UNKNOWN), AccessError::KeyUnknown);
    fetching.keys.fetch_now().await;
    assert_eq!(issuer.requests(), 2);
}

#[tokio::test]
async fn after_a_failure_the_older_set_is_used_until_it_is_stale() {
    let fails = Arc::new(AtomicUsize::new(0));
    let failing = Arc::clone(&fails);
    let issuer = Issuer::new(move || match failing.load(SeqCst) {
        0 => with_status(200, KEYS),
        _ => with_status(500, "down"),
    });
    let server = serve(&issuer);
    let fetching = Fetching::new(&server.url("/keys"));
    assert_eq!(fetching.fetched().await, Some(4));
    fails.store(1, SeqCst);
    fetching.clock.advance(FETCH_EVERY);
    assert_eq!(fetching.fetched().await, Some(4));
    assert_eq!(issuer.requests(), 2);
    assert_eq!(fetching.fetched().await, Some(4));
    assert_eq!(issuer.requests(), 2, "a failed fetch is not repeated before the interval ends");
    fetching.clock.advance(KEY_SET_STALE_MAX);
    assert_eq!(fetching.fetched().await, None);
    fails.store(0, SeqCst);
    fetching.clock.advance(FETCH_INTERVAL_MIN);
    assert_eq!(fetching.fetched().await, Some(4));
}

#[tokio::test]
async fn a_removed_key_is_gone_after_the_next_fetch() {
    let removed = Arc::new(AtomicUsize::new(0));
    let is_removed = Arc::clone(&removed);
    let issuer = Issuer::new(move || {
        let mut set: serde_json::Value = serde_json::from_str(KEYS).unwrap();
        set["keys"].as_array_mut().unwrap().truncate(4 - is_removed.load(SeqCst));
        with_status(200, set.to_string())
    });
    let server = serve(&issuer);
    let fetching = Fetching::new(&server.url("/keys"));
    assert_eq!(fetching.fetched().await, Some(4));
    removed.store(1, SeqCst);
    fetching.clock.advance(FETCH_EVERY);
    assert_eq!(fetching.fetched().await, Some(3));
}

#[tokio::test]
async fn only_an_answer_with_the_status_200_gives_keys() {
    assert_eq!(fetch(|| with_status(200, KEYS)).await, Some(4));
    assert_eq!(fetch(|| with_status(203, KEYS)).await, None);
    assert_eq!(fetch(|| with_status(404, KEYS)).await, None);
    assert_eq!(fetch(|| with_status(503, KEYS)).await, None);
    assert_eq!(fetch(|| with_status(200, "<html>")).await, None);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let issuer = Issuer::new(|| {
        let moved = Response::builder().status(302).header("location", "/other");
        moved.body(Body::from(KEYS)).unwrap()
    });
    let server = serve(&issuer);
    assert_eq!(Fetching::new(&server.url("/keys")).fetched().await, None);
    assert_eq!(issuer.requests(), 1);
}

#[tokio::test]
async fn a_key_set_is_accepted_up_to_its_size_limit() {
    assert_eq!(fetch(|| with_status(200, padded(KEY_SET_BYTES_MAX))).await, Some(4));
    assert_eq!(fetch(|| with_status(200, padded(KEY_SET_BYTES_MAX + 1))).await, None);
    assert_eq!(fetch(|| with_status(200, streamed(padded(KEY_SET_BYTES_MAX)))).await, Some(4));
    assert_eq!(fetch(|| with_status(200, streamed(padded(KEY_SET_BYTES_MAX + 1)))).await, None);
}

#[tokio::test]
async fn a_body_without_an_end_is_read_up_to_the_limit() {
    let endless = || {
        let piece = Bytes::from_static(&[b' '; 1_000]);
        futures_util::stream::repeat_with(move || Ok::<_, Infallible>(piece.clone()))
    };
    assert_eq!(fetch(move || with_status(200, Body::from_stream(endless()))).await, None);
}

#[tokio::test]
async fn a_fetch_ends_at_the_timeout_if_the_issuer_does_not_answer() {
    let issuer = Issuer::new(|| with_status(200, KEYS));
    issuer.close_gate();
    let server = serve(&issuer);
    let fetching = Fetching::new(&server.url("/keys"));
    let mut waiting = Box::pin(fetching.keys.fetch_now());
    assert!(is_waiting(&mut waiting));
    issuer.arrived.notified().await;
    tokio::time::pause();
    tokio::time::advance(FETCH_TIMEOUT - Duration::from_millis(100)).await;
    assert!(is_waiting(&mut waiting));
    tokio::time::advance(Duration::from_millis(200)).await;
    waiting.await;
    tokio::time::resume();
    let mut progress = fetching.keys.progress.subscribe();
    progress.wait_for(|progress| progress.ended == 1).await.unwrap();
    assert_eq!(fetching.usable(), None);
    issuer.open_gate();
    fetching.clock.advance(FETCH_INTERVAL_MIN);
    assert_eq!(fetching.fetched().await, Some(4));
}

#[tokio::test]
async fn an_issuer_that_is_down_is_asked_again() {
    let issuer = Issuer::new(|| with_status(200, KEYS));
    let server = serve(&issuer);
    let (address, url) = (server.address(), server.url("/keys"));
    drop(server);
    let fetching = Fetching::new(&url);
    assert_eq!(fetching.fetched().await, None);
    let router = Router::new().route("/keys", get(answer)).with_state(issuer);
    let _server = LocalServer::start_at(address, router);
    fetching.clock.advance(FETCH_INTERVAL_MIN);
    assert_eq!(fetching.fetched().await, Some(4));
}

/// A task that is aborted during a fetch must not leave requests waiting for the outcome.
#[tokio::test]
async fn aborting_the_task_ends_the_waits_of_requests_and_a_new_task_fetches_again() {
    let issuer = Issuer::new(|| with_status(200, KEYS));
    issuer.close_gate();
    let server = serve(&issuer);
    let fetching = Fetching::new(&server.url("/keys"));
    let mut waiting = Box::pin(fetching.keys.fetch_now());
    assert!(is_waiting(&mut waiting));
    issuer.arrived.notified().await;
    fetching.task.abort();
    waiting.await;
    assert_eq!(fetching.usable(), None);
    issuer.open_gate();
    fetching.clock.advance(FETCH_INTERVAL_MIN);
    let task = Fetching::spawn(&fetching.keys);
    assert_eq!(fetching.fetched().await, Some(4));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_at_the_timeout_if_no_task_fetches() {
    let source = Source::new("http://127.0.0.1:1/").unwrap();
    let keys = KeySets::from_source(source, Arc::default(), Clock::manual());
    let start = Instant::now();
    keys.fetch_now().await;
    assert_eq!(start.elapsed(), FETCH_TIMEOUT);
}

/// A file with a key set, in the folder for temporary files.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("downlink-{name}-{}.json", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    fn url(&self) -> String {
        Url::from_file_path(&self.0).unwrap().into()
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn a_file_is_accepted_up_to_its_size_limit() {
    let file = KeyFile::new("limit", &padded(KEY_SET_BYTES_MAX));
    assert_eq!(Fetching::new(&file.url()).fetched().await, Some(4));
    file.write(&padded(KEY_SET_BYTES_MAX + 1));
    assert_eq!(Fetching::new(&file.url()).fetched().await, None);
}

#[tokio::test]
async fn a_folder_or_a_pipe_is_not_a_key_set() {
    let folder = Url::from_directory_path(std::env::temp_dir()).unwrap();
    assert_eq!(Fetching::new(folder.as_str()).fetched().await, None);
    assert_eq!(Fetching::new("file:///dev/stdin").fetched().await, None);
    assert_eq!(Fetching::new("file:///does/not/exist").fetched().await, None);
}

/// The time of the test is paused. It advances only while the task sleeps and no file is being
/// read.
#[tokio::test(start_paused = true)]
async fn a_changed_file_is_read_without_a_request() {
    let file = KeyFile::new("changed", KEYS);
    let fetching = Fetching::new(&file.url());
    let mut progress = fetching.keys.progress.subscribe();
    progress.wait_for(|progress| progress.ended == 1).await.unwrap();
    assert_eq!(fetching.usable(), Some(4));
    let mut set: serde_json::Value = serde_json::from_str(KEYS).unwrap();
    set["keys"].as_array_mut().unwrap().truncate(1);
    file.write(&set.to_string());
    fetching.clock.advance(FETCH_EVERY);
    progress.wait_for(|progress| progress.ended == 2).await.unwrap();
    assert_eq!(fetching.usable(), Some(1));
}

#[test]
fn a_key_set_comes_over_https_or_from_a_file_or_from_this_machine() {
    let source = |text: &str| Source::new(text).map(drop).map_err(|error| error.to_string());
    assert_eq!(source("http://127.0.0.1:8000/keys"), Ok(()));
    assert_eq!(source("http://localhost/keys"), Ok(()));
    assert_eq!(source("file:///etc/downlink/keys.json"), Ok(()));
    assert!(source("http://issuer.example/keys").unwrap_err().contains("use https"));
    assert!(source("http://127.0.0.1.example/keys").unwrap_err().contains("use https"));
    assert!(source("file://other.example/keys").is_err());
    assert!(source("keys.json").is_err());
    assert_eq!(source("https://issuer.example/keys").is_ok(), cfg!(feature = "https"));
}

#[cfg(feature = "https")]
mod https {
    //! Fetches over TLS, with a certificate for localhost that only tests use.

    use std::net::TcpListener as StdListener;

    use reqwest::Certificate;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

    use super::*;

    const CERTIFICATE: &[u8] = include_bytes!("../../../tests/cli/tls/certificate.pem");
    const KEY: &[u8] = include_bytes!("../../../tests/cli/tls/key.pem");

    /// Answers every request with the key set. Returns the URL.
    async fn issuer() -> String {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
        let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let url = format!("https://localhost:{}/keys", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((peer, _)) = listener.accept().await {
                let Ok(mut peer) = acceptor.accept(peer).await else { continue };
                let _ = peer.read(&mut [0; 4_096]).await;
                let length = KEYS.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{KEYS}");
                let _ = peer.write_all(answer.as_bytes()).await;
                let _ = peer.shutdown().await;
            }
        });
        url
    }

    #[tokio::test]
    async fn a_certificate_that_the_system_does_not_trust_is_refused() {
        assert_eq!(Fetching::new(&issuer().await).fetched().await, None);
    }

    #[tokio::test]
    async fn keys_come_over_tls() {
        let url = Url::parse(&issuer().await).unwrap();
        let trusted = Certificate::from_pem(CERTIFICATE).unwrap();
        let client = outgoing::client_builder().tls_certs_only([trusted]).build().unwrap();
        assert_eq!(Fetching::with(Source::Http { client, url }).fetched().await, Some(4));
    }
}
