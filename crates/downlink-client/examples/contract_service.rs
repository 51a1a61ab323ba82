//! A service that lets LaunchDarkly's SSE contract tests control an [`EventSource`].
//!
//! Run `cargo run -p downlink-client --example contract_service -- 127.0.0.1:8000`, and then
//! `sse-contract-tests --url http://127.0.0.1:8000`. Each stream is a task that owns an event
//! source. The task reports each delivery to the tests by an HTTP request (a callback). It sends
//! the callbacks in order. Before each callback, it waits for the answer to the previous callback.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header::LOCATION},
    response::IntoResponse,
    routing::{get, post},
};
use downlink_client::{Closed, DecoderLimits, Delivery, EventSource, ReconnectPolicy, StreamError};
use http::Method;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpListener, sync::mpsc, sync::watch};

/// The tests send lines of 14 million characters, so the limit is higher than the default.
const LINE_BYTES_MAX: usize = 32 * 1_024 * 1_024;

/// The maximum number of commands that wait for a busy stream. The tests send one command after
/// another, so only a few commands wait at a time.
const COMMANDS_MAX: usize = 8;

const CAPABILITIES: [&str; 9] = [
    "bom",
    "comments",
    "headers",
    "last-event-id",
    "post",
    "report",
    "read-timeout",
    "restart",
    "server-directed-shutdown-request",
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".into());
    let service = Service::default();
    let mut stopped = service.stop.subscribe();
    let app = Router::new()
        .route("/", get(status).post(start).delete(stop))
        .route("/streams/{number}", post(command).delete(close))
        .with_state(service);
    let listener = TcpListener::bind(address).await?;
    let stop = async move { stopped.changed().await.unwrap_or_default() };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    Ok(())
}

#[derive(Clone, Default)]
struct Service {
    streams: Arc<Mutex<Streams>>,
    stop: watch::Sender<()>,
}

/// Invariant: `by_number` holds the streams that were started and not closed.
#[derive(Default)]
struct Streams {
    started: u64,
    by_number: HashMap<u64, mpsc::Sender<()>>,
}

impl Service {
    /// Adds a stream. Its task ends when [`remove`](Self::remove) has dropped the sender.
    fn add(&self) -> (u64, mpsc::Receiver<()>) {
        let (restart, restarts) = mpsc::channel(COMMANDS_MAX);
        let mut streams = self.streams.lock().expect("no code that can panic runs under the lock");
        streams.started += 1;
        let number = streams.started;
        streams.by_number.insert(number, restart);
        (number, restarts)
    }

    fn find(&self, number: u64) -> Option<mpsc::Sender<()>> {
        let streams = self.streams.lock().expect("no code that can panic runs under the lock");
        streams.by_number.get(&number).cloned()
    }

    fn remove(&self, number: u64) -> Option<mpsc::Sender<()>> {
        let mut streams = self.streams.lock().expect("no code that can panic runs under the lock");
        streams.by_number.remove(&number)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StartParameters {
    stream_url: String,
    callback_url: String,
    initial_delay_ms: Option<u64>,
    read_timeout_ms: Option<u64>,
    last_event_id: Option<String>,
    headers: Option<HashMap<String, String>>,
    method: Option<String>,
    body: Option<String>,
}

#[derive(Deserialize)]
struct Command {
    command: String,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Callback {
    Event { event: CallbackEvent },
    Comment { comment: String },
    Error { error: String },
}

#[derive(Serialize)]
struct CallbackEvent {
    r#type: String,
    data: String,
    id: String,
}

async fn status() -> impl IntoResponse {
    Json(serde_json::json!({ "name": "downlink-client", "capabilities": CAPABILITIES }))
}

async fn stop(State(service): State<Service>) -> StatusCode {
    service.stop.send_replace(());
    StatusCode::NO_CONTENT
}

async fn start(
    State(service): State<Service>,
    Json(parameters): Json<StartParameters>,
) -> Result<(StatusCode, [(HeaderName, String); 1]), (StatusCode, String)> {
    let refuse = |error: Box<dyn Error>| (StatusCode::BAD_REQUEST, error.to_string());
    let source = event_source(&parameters).map_err(refuse)?;
    let (number, restarts) = service.add();
    let callbacks = Callbacks::new(parameters.callback_url);
    tokio::spawn(run(source, restarts, callbacks));
    Ok((StatusCode::CREATED, [(LOCATION, format!("/streams/{number}"))]))
}

async fn command(
    State(service): State<Service>,
    Path(number): Path<u64>,
    Json(Command { command }): Json<Command>,
) -> StatusCode {
    let Some(stream) = service.find(number) else { return StatusCode::NOT_FOUND };
    if command != "restart" {
        return StatusCode::BAD_REQUEST;
    }
    match stream.send(()).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_ended) => StatusCode::NOT_FOUND,
    }
}

async fn close(State(service): State<Service>, Path(number): Path<u64>) -> StatusCode {
    match service.remove(number) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}

fn event_source(parameters: &StartParameters) -> Result<EventSource, Box<dyn Error>> {
    let limits =
        DecoderLimits::default().line_bytes_max(LINE_BYTES_MAX).event_bytes_max(LINE_BYTES_MAX);
    let mut builder = EventSource::builder(&parameters.stream_url).comments(true).limits(limits);
    for (name, value) in parameters.headers.iter().flatten() {
        builder = builder.header(name, value);
    }
    if let Some(method) = &parameters.method {
        builder = builder.method(method.parse::<Method>()?);
    }
    if let Some(body) = &parameters.body {
        builder = builder.body(body.clone());
    }
    if let Some(id) = &parameters.last_event_id {
        builder = builder.last_event_id(id);
    }
    if let Some(delay) = parameters.initial_delay_ms {
        let policy = ReconnectPolicy::resilient().reconnection_time(Duration::from_millis(delay));
        builder = builder.reconnection(policy);
    }
    if let Some(limit) = parameters.read_timeout_ms {
        builder = builder.idle_timeout(Duration::from_millis(limit));
    }
    Ok(builder.build()?)
}

/// Reports deliveries until the tests close the stream, or the event source ends. When this
/// function returns, it drops the event source, which closes the socket.
async fn run(mut source: EventSource, mut restarts: mpsc::Receiver<()>, mut callbacks: Callbacks) {
    loop {
        let callback = tokio::select! {
            delivery = source.next() => match delivery {
                Some(delivery) => callback(delivery),
                None => break,
            },
            restart = restarts.recv() => match restart {
                Some(()) => { source.restart(); None }
                None => return,
            },
        };
        if let Some(callback) = callback {
            callbacks.send(callback).await;
        }
    }
    if let Some(Closed::Failed(error) | Closed::AttemptsSpent(error)) = source.closed_because() {
        callbacks.send(Callback::Error { error: error.to_string() }).await;
    }
}

fn callback(delivery: Delivery) -> Option<Callback> {
    match delivery {
        Delivery::Event(event) => Some(Callback::Event {
            event: CallbackEvent {
                r#type: event.event_type.into_owned(),
                data: event.data,
                id: event.last_event_id.to_string(),
            },
        }),
        Delivery::Comment(comment) => Some(Callback::Comment { comment }),
        // The tests expect no callback when the server ends a stream.
        Delivery::Error(interruption) if !matches!(interruption.error, StreamError::Ended) => {
            Some(Callback::Error { error: interruption.error.to_string() })
        }
        _ => None,
    }
}

/// Sends the callbacks of one stream, one after another. The callbacks are numbered from 1.
struct Callbacks {
    client: reqwest::Client,
    url: String,
    sent: u64,
}

impl Callbacks {
    fn new(url: String) -> Self {
        Self { client: reqwest::Client::new(), url, sent: 0 }
    }

    async fn send(&mut self, callback: Callback) {
        self.sent += 1;
        let url = format!("{}/{}", self.url, self.sent);
        let body = serde_json::to_vec(&callback).expect("strings always serialize to JSON");
        if let Err(error) = self.client.post(url).body(body).send().await {
            eprintln!("cannot send callback {}: {error}", self.sent);
        }
    }
}
