//! A web server on this machine that answers the requests of the tested server. It is the app of
//! `--authorize-url`, or the issuer of `--jwks-url`.
//!
//! The web server runs in a thread with its own runtime. When it stops, all its connections break,
//! as they do when a process ends.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};

use crate::patiently;

/// The answer to each request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// The status, the value of `Cache-Control`, and the body.
    Answer(u16, &'static str, String),
    /// No answer until another reply is set.
    Wait,
}

impl Reply {
    pub(crate) fn json(value: &Value) -> Self {
        Self::Answer(200, "no-store", value.to_string())
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::Answer(status, "no-store", String::new())
    }

    /// A reply that may be used again for an hour.
    pub(crate) fn lasting(value: &Value) -> Self {
        Self::Answer(200, "private, max-age=3600", value.to_string())
    }
}

/// A request that has arrived.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    headers: HeaderMap,
    body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("ASCII"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

struct Shared {
    reply: watch::Sender<Reply>,
    asked: watch::Sender<Vec<Asked>>,
    open: AtomicUsize,
    open_max: AtomicUsize,
}

/// A running web server. It stops when it is dropped.
pub(crate) struct Web {
    shared: Arc<Shared>,
    address: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Web {
    /// Starts a server that gives this reply to each request.
    pub(crate) fn start(reply: Reply) -> Self {
        let shared = Arc::new(Shared {
            reply: watch::Sender::new(reply),
            asked: watch::Sender::default(),
            open: AtomicUsize::new(0),
            open_max: AtomicUsize::new(0),
        });
        let address = "127.0.0.1:0".parse().expect("an address");
        let mut web = Self { shared, address, running: None };
        web.start_again();
        web
    }

    /// Starts the server at the same address, after it has stopped.
    pub(crate) fn start_again(&mut self) {
        let (address, shared) = (self.address, Arc::clone(&self.shared));
        let (stop, stopped) = oneshot::channel();
        let (bound, address_of) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::bind(address).await.expect("a free port");
                bound.send(listener.local_addr().expect("bound")).expect("the test waits");
                let router = Router::new().fallback(answer).with_state(shared);
                tokio::select! {
                    served = axum::serve(listener, router) => served.expect("it serves"),
                    _ = stopped => {}
                }
            });
        });
        self.address = address_of.recv().expect("the server starts");
        self.running = Some((stop, thread));
    }

    /// Stops the server. Its address then refuses connections.
    pub(crate) fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            thread.join().expect("the thread did not panic");
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Sets the reply to each request, including requests that wait.
    pub(crate) fn reply(&self, reply: Reply) {
        self.shared.reply.send_replace(reply);
    }

    /// The requests that have arrived.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.borrow().clone()
    }

    /// Waits until this many requests have arrived, and returns the newest.
    pub(crate) async fn asked_times(&self, times: usize) -> Asked {
        let mut asked = self.shared.asked.subscribe();
        let asked = patiently(asked.wait_for(|asked| asked.len() >= times)).await;
        let asked = asked.expect("the sender still exists");
        asked.last().expect("a request").clone()
    }

    /// The largest number of requests that were open at the same time.
    pub(crate) fn open_max(&self) -> usize {
        self.shared.open_max.load(Ordering::SeqCst)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Counts a request as open until this value is dropped.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
        shared.open_max.fetch_max(open, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> Response {
    let open = Open::new(Arc::clone(&shared));
    shared.asked.send_modify(|asked| asked.push(Asked { headers, body }));
    let mut reply = shared.reply.subscribe();
    let reply = reply.wait_for(|reply| !matches!(reply, Reply::Wait)).await;
    let reply = reply.expect("the sender still exists").clone();
    drop(open);
    let Reply::Answer(status, cached, body) = reply else { unreachable!("it does not wait") };
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [("cache-control", cached)], body).into_response()
}
