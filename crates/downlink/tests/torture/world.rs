//! The surroundings of the readers of a test: a server with a hub, the publishers, and the progress
//! of the test.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use downlink::hub::{Hub, HubBuilder, Publish, SubscribeError};
use downlink::serve::{DRAIN_WITHIN, Listener, WRITE_STALL_MAX};
use downlink::{KeepAlive, LastEventId};
use fastrand::Rng;
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::foreign_socket::ForeignListener;
use super::ledger::{self, EVERYONE, Ledger};
use super::patiently;
use super::wire::Place;

/// The place of the first client's inbox. A place is the number of a recipient in the ledger, which
/// is the record of the published events. Lower places are topics, and the next places are the
/// inboxes of the other clients.
const INBOXES: ledger::Place = 1_000;

/// The number of clients with an inbox.
const CLIENTS: usize = 8;

/// Each publisher numbers its events from a different multiple of this constant, so that no two
/// events have the same number.
const NUMBERS: u64 = 1 << 40;

/// The time between two bursts (several events without a pause) of a publisher.
const TICK: Duration = Duration::from_millis(1);

/// The name of the topic with this place. Half of the topics match the pattern `red/*`, and the
/// other half match `blue/{id}/state`.
pub(crate) fn topic(place: ledger::Place) -> String {
    if place.is_multiple_of(2) { format!("red/{place}") } else { format!("blue/{place}/state") }
}

/// The topics, patterns and inbox of one reader, as a query for the server and as a set of places
/// for the ledger.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) query: String,
    pub(crate) places: BTreeSet<ledger::Place>,
}

impl Selection {
    /// Selects these topics by name.
    pub(crate) fn topics(places: impl IntoIterator<Item = ledger::Place>) -> Self {
        let places: BTreeSet<ledger::Place> = places.into_iter().collect();
        let names: Vec<_> = places.iter().map(|place| topic(*place)).collect();
        Self { query: format!("topics={}", names.join(",")), places }
    }

    /// Selects one of the two patterns, and also one topic that the pattern does not match.
    pub(crate) fn pattern(red: bool, topics: usize) -> Self {
        let (pattern, other) = if red { ("red/*", 1) } else { ("blue/%7Bid%7D/state", 0) };
        let mut places: BTreeSet<_> = (0..topics).skip(1 - other).step_by(2).collect();
        places.insert(other);
        Self { query: format!("topics={pattern},{}", topic(other)), places }
    }

    /// Adds the inbox of a client.
    pub(crate) fn and_client(mut self, number: usize) -> Self {
        let client = number % CLIENTS;
        self.query.push_str(&format!("&client=c{client}"));
        self.places.insert(INBOXES + client);
        self
    }
}

/// A hub and the ledger of the events that were published to it. Each restart of the server begins
/// a new stage with another hub, which has a new epoch.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) hub: Hub<String>,
    pub(crate) epoch: String,
    pub(crate) ledger: Ledger,
}

impl Stage {
    pub(crate) fn new(builder: HubBuilder<String>) -> Arc<Self> {
        let hub = builder.build().unwrap();
        let epoch = hub.cursor().as_str().split_once('-').unwrap().0.to_owned();
        Arc::new(Self { hub, epoch, ledger: Ledger::default() })
    }

    /// Publishes an event to these places and records it in the ledger. Returns the offset of the
    /// event.
    pub(crate) fn say(&self, number: u64, to: BTreeSet<ledger::Place>, filler: &str) -> u64 {
        let mut publish: Option<Publish<String>> = None;
        for place in to.iter().copied() {
            publish = Some(match (publish, place) {
                (None, EVERYONE) => self.hub.to_everyone(),
                (Some(publish), EVERYONE) => publish.and_to_everyone(),
                (None, INBOXES..) => self.hub.to_client(format!("c{}", place - INBOXES)),
                (Some(publish), INBOXES..) => {
                    publish.and_to_client(format!("c{}", place - INBOXES))
                }
                (None, _) => self.hub.to(topic(place)),
                (Some(publish), _) => publish.and_to(topic(place)),
            });
        }
        let receipt = publish.unwrap().publish(format!("{number} {filler}")).unwrap();
        let offset = receipt.offset().expect("a hub in memory knows the offset at once").get();
        self.ledger.note(offset, number, to);
        offset
    }
}

/// The progress of publishers and readers.
#[derive(Debug, Default)]
struct Progress {
    /// The number of published events.
    events: u64,
    /// The number of readers that have an id of the current stage.
    arrived: usize,
    /// The offset of the last event of the test, once it is published.
    last: Option<u64>,
}

/// The state that readers and publishers share.
#[derive(Debug)]
pub(crate) struct World {
    /// The address to which the readers connect.
    pub(crate) place: Place,
    stage: Mutex<Arc<Stage>>,
    progress: watch::Sender<Progress>,
}

impl World {
    pub(crate) fn new(place: Place, stage: Arc<Stage>) -> Arc<Self> {
        let progress = watch::Sender::default();
        Arc::new(Self { place, stage: Mutex::new(stage), progress })
    }

    pub(crate) fn stage(&self) -> Arc<Stage> {
        Arc::clone(&self.stage.lock().unwrap())
    }

    /// Begins another stage. No reader has an id of this stage yet.
    pub(crate) fn enter(&self, stage: Arc<Stage>) {
        self.progress.send_modify(|progress| progress.arrived = 0);
        *self.stage.lock().unwrap() = stage;
    }

    /// Publishes the last event of the test to everyone, and returns its offset. Every reader reads
    /// up to this event.
    pub(crate) fn say_last(&self) -> u64 {
        let last = self.stage().say(u64::MAX, BTreeSet::from([EVERYONE]), "");
        self.progress.send_modify(|progress| progress.last = Some(last));
        last
    }

    /// The offset of the last event of the test, if it is published.
    pub(crate) fn last(&self) -> Option<u64> {
        self.progress.borrow().last
    }

    pub(crate) async fn over(&self) {
        self.when(|progress| progress.last.is_some()).await;
    }

    /// Waits until the publishers have published this many more events, or until the last event of
    /// the test is published.
    pub(crate) async fn published_more(&self, events: u64) {
        let enough = self.progress.borrow().events + events;
        self.when(|progress| progress.events >= enough || progress.last.is_some()).await;
    }

    /// Counts a reader that has its first id of the current stage.
    pub(crate) fn note_arrival(&self) {
        self.progress.send_modify(|progress| progress.arrived += 1);
    }

    pub(crate) async fn all_arrived(&self, readers: usize) {
        patiently(self.when(|progress| progress.arrived >= readers)).await;
    }

    async fn when(&self, is_so: impl FnMut(&Progress) -> bool) {
        let mut progress = self.progress.subscribe();
        progress.wait_for(is_so).await.expect("the world owns the sender of the progress");
    }
}

/// The behaviour of publishers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) publishers: u64,
    pub(crate) topics: usize,
    /// The maximum number of events that one publisher publishes without a pause.
    pub(crate) burst_max: u64,
    pub(crate) length: Duration,
}

/// Runs several publishers for the time in `pace`, and then publishes the last event of the test.
pub(crate) async fn publish_all(world: &Arc<World>, rng: &mut Rng, pace: Pace) {
    let mut publishers = publishers(world, rng, pace);
    while let Some(ended) = publishers.join_next().await {
        ended.unwrap();
    }
    world.say_last();
}

/// The minimum number of events that publishers publish, even if a slow machine needs more time for
/// them than `Pace::length`. With fewer events, the hub would evict no events, and the test would
/// test little.
const EVENTS_MIN: u64 = 1_000;

/// Starts several publishers, which run for the time in `pace`. If the task of a publisher is
/// cancelled, the ledger still has every event that was published.
pub(crate) fn publishers(world: &Arc<World>, rng: &mut Rng, pace: Pace) -> JoinSet<()> {
    let until = Instant::now() + pace.length;
    (0..pace.publishers)
        .map(|publisher| publish(Arc::clone(world), rng.fork(), pace, publisher, until))
        .collect()
}

async fn publish(world: Arc<World>, mut rng: Rng, pace: Pace, publisher: u64, until: Instant) {
    let mut numbers = publisher * NUMBERS..;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < until || world.progress.borrow().events < EVENTS_MIN {
        ticks.tick().await;
        let stage = world.stage();
        let burst = rng.u64(1..=pace.burst_max);
        for number in numbers.by_ref().take(usize::try_from(burst).unwrap()) {
            let to = (0..rng.usize(1..=3)).map(|_| place(&mut rng, pace.topics)).collect();
            stage.say(number, to, &filler(&mut rng));
        }
        world.progress.send_modify(|progress| progress.events += burst);
    }
}

/// Picks a place at random. The first topics are picked often and the last topics rarely.
fn place(rng: &mut Rng, topics: usize) -> ledger::Place {
    match rng.usize(0..100) {
        0 => EVERYONE,
        1..10 => INBOXES + rng.usize(0..CLIENTS),
        _ => rng.usize(0..topics).min(rng.usize(0..topics)),
    }
}

/// Random text for an event's data. Some texts have several lines, and a few are longer than a
/// network packet.
fn filler(rng: &mut Rng) -> String {
    let line = "x".repeat(rng.usize(0..100));
    let lines = if rng.u8(0..200) == 0 { 100 } else { rng.usize(1..4) };
    [line.as_str()].repeat(lines).join("\n")
}

/// The query of a request: `?topics=a,b&client=c`.
#[derive(serde::Deserialize)]
struct Wanted {
    topics: String,
    client: Option<String>,
}

fn app(hub: &Hub<String>) -> Router {
    // An interval of zero becomes the shortest interval that is allowed for keep-alives. A
    // keep-alive sends the current id to a client that gets no events.
    let keep_alive = KeepAlive::new().interval(Duration::ZERO);
    let join = |State(hub): State<Hub<String>>, Query(wanted): Query<Wanted>, last: LastEventId| async move {
        let subscribe = wanted
            .topics
            .split(',')
            .fold(hub.subscribe(), |subscribe, selector| subscribe.pattern(selector));
        let subscribe = match wanted.client {
            Some(client) => subscribe.client(client),
            None => subscribe,
        };
        Ok::<_, SubscribeError>(
            subscribe.resume(last).open().await?.into_sse().keep_alive(keep_alive),
        )
    };
    Router::new()
        .route("/", get(join.clone()).post(join))
        .with_state(hub.clone())
        .merge(super::others::routes())
}

/// How the app is served.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ServedBy {
    /// `serve` serves the app on TCP sockets. The server writes streams itself.
    Direct,
    /// `serve` serves the app on sockets of a type that it does not know. The HTTP library hyper
    /// writes the streams.
    Hyper,
    /// `serve` serves the app on Unix sockets. The server writes streams itself.
    #[cfg(unix)]
    Unix,
    Axum,
}

/// The settings of `serve`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) write_stall_max: Duration,
    pub(crate) drain_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { write_stall_max: WRITE_STALL_MAX, drain_within: DRAIN_WITHIN }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) place: Place,
    /// The maximum number of connections that the server allows at the same time.
    pub(crate) connections_allowed: usize,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<io::Result<()>>,
}

impl Running {
    pub(crate) async fn new(served_by: ServedBy, hub: &Hub<String>) -> Self {
        Self::with(served_by, hub, Settings::default()).await
    }

    /// Starts a server. The settings apply only if `serve` serves the app.
    pub(crate) async fn with(served_by: ServedBy, hub: &Hub<String>, settings: Settings) -> Self {
        #[cfg(unix)]
        if let ServedBy::Unix = served_by {
            let path = free_path();
            let listener = UnixListener::bind(&path).unwrap();
            return Self::serve(listener, Place::Unix(path), hub, settings);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = Place::Tcp(listener.local_addr().unwrap());
        match served_by {
            ServedBy::Hyper => Self::serve(ForeignListener::new(listener), place, hub, settings),
            ServedBy::Axum => {
                let (stop, stopped) = oneshot::channel::<()>();
                let serve = axum::serve(listener, app(hub));
                let serve = serve.with_graceful_shutdown(hub.drain_on(stopped));
                let ended = tokio::spawn(serve.into_future());
                Self { place, connections_allowed: usize::MAX, stop, ended }
            }
            _ => Self::serve(listener, place, hub, settings),
        }
    }

    fn serve<L>(listener: L, place: Place, hub: &Hub<String>, settings: Settings) -> Self
    where
        L: Listener,
    {
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = downlink::serve(listener, app(hub))
            .write_stall_max(settings.write_stall_max)
            .drain_within(settings.drain_within);
        let connections_allowed = serve.connections_allowed();
        let ended = tokio::spawn(serve.with_graceful_shutdown(stopped).into_future());
        Self { place, connections_allowed, stop, ended }
    }

    /// Asks the server to end. The returned future completes when the server has ended.
    pub(crate) fn stop(self) -> impl Future<Output = ()> {
        self.stop.send(()).unwrap();
        async move {
            patiently(self.ended).await.unwrap().unwrap();
            self.place.remove();
        }
    }

    /// Ends the server as a crash would: every connection breaks.
    pub(crate) async fn crash(self) {
        self.ended.abort();
        assert!(patiently(self.ended).await.unwrap_err().is_cancelled());
        self.place.remove();
    }
}

/// Returns a path at which there is no socket yet.
#[cfg(unix)]
fn free_path() -> std::path::PathBuf {
    let name = format!("downlink-torture-{}-{}", std::process::id(), fastrand::u64(..));
    std::env::temp_dir().join(name)
}
