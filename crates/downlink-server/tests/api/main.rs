//! Tests of the HTTP API over real sockets: every route, every parameter and every refusal.
//!
//! Tests wait for events, never for a fixed time. A test that hangs fails after [`PATIENCE`].

mod answer;
mod bad_input;
mod batches;
mod bodies;
mod described;
mod finishing;
mod limits;
mod openapi;
mod overview;
mod publishing;
mod relaying;
mod resuming;
mod settings;
mod stream;
mod streaming;
mod subscribing;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Once,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use answer::Answer;
use clap::Parser;
use downlink::hub::{Hub, Stats};
use downlink_access::Secret;
use downlink_server::{
    access::{AccessSettings, Control, Role},
    app,
    config::Settings,
};
use serde_json::Value;
use stream::Stream;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

/// The maximum duration of a wait. Every test takes far less time.
const PATIENCE: Duration = Duration::from_secs(30);

async fn patiently<F: Future>(waited_for: F) -> F::Output {
    timeout(PATIENCE, waited_for).await.expect("the wait ends in time")
}

/// The number of panics in the server's code since the first server was started. It must stay 0.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // A test that fails also panics, but only panics of the server count.
            if !panic.location().is_some_and(|at| at.file().contains("/tests/")) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            report(panic);
        }));
    });
}

/// The flags of `downlink dev`.
#[derive(Parser)]
struct DevelopmentFlags {
    #[command(flatten)]
    settings: Settings,
}

/// The flags of `downlink serve`.
#[derive(Parser)]
struct ProductionFlags {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    access: AccessSettings,
}

/// A folder with two key files. Dropping this value removes the folder.
struct KeyFolder(PathBuf);

impl KeyFolder {
    fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("downlink-api-{}-{number}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0).expect("a folder for the test");
        folder
    }

    /// Makes a key file. Returns its path and its key.
    fn key(&self, name: &str) -> (String, String) {
        let secret = Secret::generate().expect("random bytes");
        let path = self.0.join(name);
        secret.create_file(&path).expect("a new file");
        (path.to_str().expect("UTF-8").to_owned(), secret.text().to_string())
    }
}

impl Drop for KeyFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running server.
struct Server {
    address: SocketAddr,
    hub: Hub<String>,
    /// The header line with the key that each request sends. A development server needs none.
    credential: String,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<std::io::Result<()>>,
    _keys: Option<KeyFolder>,
}

impl Server {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a development server with these flags.
    async fn with(flags: &[&str]) -> Self {
        let flags = [&["downlink", "--store", "none"], flags].concat();
        let settings = DevelopmentFlags::parse_from(flags).settings;
        Self::listening(settings, Control::development(), Role::Development).await
    }

    /// Starts a production server with these flags. Each request sends the publish key.
    async fn production(flags: &[&str]) -> Self {
        let keys = KeyFolder::new();
        let (publish_file, key) = keys.key("publish.key");
        let (ticket_file, _) = keys.key("ticket.key");
        let files = ["--publish-key-file", &publish_file, "--ticket-key-file", &ticket_file];
        let flags = [&["downlink", "--store", "none"][..], &files, flags].concat();
        let ProductionFlags { settings, access } = ProductionFlags::parse_from(flags);
        let control = Control::open(&settings, &access).expect("key files");
        let server = Self::listening(settings, control, Role::Only).await;
        Self { credential: format!("Authorization: Bearer {key}\r\n"), _keys: Some(keys), ..server }
    }

    async fn listening(settings: Settings, control: Control, role: Role) -> Self {
        count_panics();
        settings.check(None).expect("consistent settings");
        let requesters = Arc::default();
        let hub = app::hub(&settings, &requesters, app::Source::Publishers);
        let (hub, _) = hub.expect("consistent settings");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the listener is bound");
        let counters = Arc::<app::Counters>::default();
        let stats = counters.listener("public");
        let served = (hub.clone(), requesters, None);
        let app = app::app(served, settings.clone(), Arc::new(control), role, counters);
        let mut serve = downlink::serve(listener, app)
            .header_timeout(settings.header_timeout)
            .idle_timeout(settings.idle_timeout)
            .answer_at_limit(app::ANSWERED_AT_LIMIT)
            .write_stall_max(settings.write_stall_max)
            .drain_within(settings.drain_within)
            .record_stats(&stats);
        if let Some(connections_max) = settings.connections_max {
            serve = serve.connections_max(connections_max);
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = serve.with_graceful_shutdown(hub.drain_on(stopped));
        let ended = tokio::spawn(serve.into_future());
        let (credential, stop) = (String::new(), Some(stop));
        Self { address, hub, credential, stop, ended, _keys: None }
    }

    /// The same server. Its requests send no credential from now on.
    fn without_key(self) -> Self {
        Self { credential: String::new(), ..self }
    }

    fn stop(&mut self) {
        self.stop
            .take()
            .expect("the test stops the server only once")
            .send(())
            .expect("the server runs");
    }

    async fn ended(self) {
        patiently(self.ended).await.expect("the task did not panic").expect("no error");
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server listens")
    }

    /// Sends bytes, and reads the answer until the server closes the connection.
    async fn exchange(&self, request: &[u8]) -> String {
        let (mut reader, mut writer) = self.connect().await.into_split();
        let mut answer = Vec::new();
        let write = async {
            // The server may answer and close the connection before it has read the whole request,
            // so an error is ignored.
            let _ = writer.write_all(request).await;
        };
        let (_, read) =
            patiently(async { tokio::join!(write, reader.read_to_end(&mut answer)) }).await;
        let _ = read;
        String::from_utf8(answer).expect("UTF-8")
    }

    /// Sends one request and returns the answer. In `headers`, each line ends with CRLF.
    async fn ask(&self, method: &str, path: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             {}{headers}\r\n",
            self.address,
            body.len(),
            self.credential,
        );
        Answer::parse(&self.exchange(&[head.as_bytes(), body].concat()).await)
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "").await
    }

    async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.ask("POST", path, "", body).await
    }

    /// Publishes an event and returns the answer. Panics if the server refuses the event.
    async fn publish(&self, query: &str, data: &str) -> Value {
        self.post(&format!("/events?{query}"), data).await.json()
    }

    /// Publishes an event and returns its id. Panics if the server refuses the event.
    async fn publish_id(&self, query: &str, data: &str) -> String {
        self.publish(query, data).await["id"].as_str().expect("an id").to_owned()
    }

    /// Requests a stream. The server may refuse it.
    async fn stream(&self, query: &str, headers: &str) -> Stream {
        let mut io = self.connect().await;
        let Self { address, credential, .. } = self;
        let request =
            format!("GET /events?{query} HTTP/1.1\r\nHost: {address}\r\n{credential}{headers}\r\n");
        io.write_all(request.as_bytes()).await.expect("the connection is open");
        Stream::begin(io).await
    }

    /// Opens a subscription.
    async fn subscribe(&self, query: &str) -> Stream {
        let mut stream = self.stream(query, "").await;
        assert_eq!(stream.status(), 200, "{}", stream.head);
        let opened = stream.next().await.expect("the first event");
        assert_eq!(opened.event_type, "downlink.open");
        stream
    }

    /// Asserts that the server refuses this request, that the hub (the log of events with its
    /// subscriptions) does not change, and that the server still works.
    async fn refuses(
        &self,
        request: (&str, &str, &str),
        body: impl AsRef<[u8]>,
        with: (u16, &str),
    ) {
        let (method, path, headers) = request;
        let before = self.hub.stats();
        let answer = self.ask(method, path, headers, body).await;
        let detail = answer.problem(with.0);
        assert!(detail.contains(with.1), "{method} {path}: {detail:?} without {:?}", with.1);
        self.is_unharmed(&before).await;
    }

    /// Asserts that the hub has not changed, that the server has not panicked, and that a publish
    /// works.
    async fn is_unharmed(&self, before: &Stats) {
        let mut after = self.hub.stats();
        // Only the number of refusals may change.
        after.refused = before.refused;
        assert_eq!(after, *before);
        assert_eq!(PANICS.load(Ordering::Relaxed), 0);
        assert_eq!(self.get("/healthz").await.status, 200);
        self.publish_id("topic=unharmed", "x").await;
    }
}

/// Escapes text so that it can be a value in a query.
fn escaped(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
