//! Tests with one reader that stops reading (it stalls). The other readers must still get all
//! events, and the server must disconnect only the stalled reader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use downlink::hub::{Connection as Subscriber, DisconnectReason, Observer};
use downlink_proto::{Decoder, Item};
use fastrand::Rng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::reader::{Habits, NARROW, Reader};
use super::reconnect::{gather, part, retentive};
use super::wire::{Connection, Manner, Turn};
use super::world::{Running, Selection, ServedBy, Settings, Stage, World};
use super::{dice, length, patiently};

/// The number of readers in one round of a test, including the stalled reader.
const READERS: usize = 1_000;

/// The client id of the reader that stalls.
const STALLED: &str = "c0";

const STALL_MAX: Duration = Duration::from_secs(1);

/// The number of events that only the stalled reader gets. Together these events have 512 KiB. The
/// kernel buffers far less for a reader with a small receive window.
const FLOOD: u64 = 64;
const FLOOD_BYTES: usize = 8 << 10;

/// The number of events for the topic that all readers read. The readers that do not stall must get
/// all of them.
const EVENTS: u64 = 64;

/// An observer of the hub that reports each subscription that ends, and the reason.
struct Departures(mpsc::UnboundedSender<(Option<String>, DisconnectReason)>);

impl Observer for Departures {
    fn disconnected(&self, subscriber: &Subscriber, reason: DisconnectReason) {
        let client = subscriber.client.as_ref().map(ToString::to_string);
        let _ = self.0.send((client, reason));
    }
}

/// Opens a stream, reads `downlink.open`, and stops reading.
async fn stall(server: &Running) -> Connection {
    let Selection { query, .. } = Selection::topics([0]).and_client(0);
    let asked = Connection::ask(&server.place, &query, "", Some(NARROW), Manner::Plain).await;
    let (mut connection, mut decoder) = (asked.unwrap(), Decoder::default());
    while !matches!(decoder.poll_item(), Some(Item::Event(_))) {
        patiently(connection.read(1, &mut decoder)).await;
    }
    connection
}

/// Reads the connection of the stalled reader to its end. Returns the number of events that
/// arrived, and how the connection ended.
async fn events_left(mut connection: Connection) -> (u64, Turn) {
    let (mut decoder, mut events, mut turn) = (Decoder::default(), 0, Turn::Open);
    while turn == Turn::Open {
        turn = patiently(connection.read(usize::MAX, &mut decoder)).await.1;
        let items = std::iter::from_fn(|| decoder.poll_item());
        events += items.filter(|item| matches!(item, Item::Event(_))).count() as u64;
    }
    (events, turn)
}

/// Publishes more data to the stalled reader than the reader's socket can buffer.
fn flood(stage: &Stage) {
    let data = "x".repeat(FLOOD_BYTES);
    for _ in 0..FLOOD {
        let receipt = stage.hub.to_client(STALLED).publish(data.clone()).unwrap();
        assert_eq!(receipt.matched(), Some(1));
    }
}

async fn round(served_by: ServedBy, rng: &mut Rng) {
    let (left, mut departures) = mpsc::unbounded_channel();
    let stage = Stage::new(retentive().observer(Departures(left)));
    let settings = Settings { write_stall_max: STALL_MAX, ..Settings::default() };
    let server = Running::with(served_by, &stage.hub, settings).await;
    // This process has both ends of each connection, so it needs two file descriptors for each
    // connection.
    let readers = (server.connections_allowed / 2).min(READERS);
    let world = World::new(server.place.clone(), Arc::clone(&stage));
    let habits = Habits { away_max: 0, pause_max: 0, window_bytes: None, odd: false };
    let steady = |number| {
        let reader =
            Reader::new(format!("reader {number}"), Selection::topics([0]), habits, rng.fork());
        reader.stay(Arc::clone(&world))
    };
    let steady: JoinSet<_> = (1..readers).map(steady).collect();
    world.all_arrived(readers - 1).await;
    let stalled = stall(&server).await;
    assert_eq!(stage.hub.stats().subscribers, readers);

    flood(&stage);
    for number in 0..EVENTS {
        stage.say(number, BTreeSet::from([0]), "");
    }
    world.say_last();
    let gathered = gather(steady).await;
    let departed = patiently(departures.recv()).await;
    assert_eq!(departed, Some((Some(STALLED.to_owned()), DisconnectReason::Stalled)));
    assert_eq!(stage.hub.stats().subscribers, readers - 1);
    assert!(departures.try_recv().is_err(), "another reader was disconnected");
    let (events, turn) = events_left(stalled).await;
    assert!(turn == Turn::Broken && events < FLOOD, "{turn:?} after {events} events");

    let last = world.last().unwrap();
    for reader in part(server, &stage, gathered).await {
        assert_eq!(reader.connections, 1);
        stage.ledger.check(reader.name(), &reader.selection.places, &reader.lives[0].seen, last);
    }
}

async fn rounds(served_by: ServedBy, mut rng: Rng) {
    let (began, mut rounds) = (Instant::now(), 0);
    while rounds == 0 || began.elapsed() < length() {
        round(served_by, &mut rng).await;
        rounds += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_at_its_deadline_even_if_a_reader_stalls() {
    let (left, mut departures) = mpsc::unbounded_channel();
    let stage = Stage::new(retentive().observer(Departures(left)));
    // The stall limit is so long that only the deadline of the drain can end the stalled
    // connection.
    let write_stall_max = Duration::from_secs(3_600);
    let settings = Settings { write_stall_max, drain_within: STALL_MAX };
    let server = Running::with(ServedBy::Direct, &stage.hub, settings).await;
    let stalled = stall(&server).await;
    flood(&stage);
    server.stop().await;
    assert_eq!(patiently(departures.recv()).await.unwrap().1, DisconnectReason::Left);
    assert_eq!(stage.hub.stats().subscribers, 0);
    let (events, turn) = events_left(stalled).await;
    assert!(turn == Turn::Broken && events < FLOOD, "{turn:?} after {events} events");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_reader_torture() {
    rounds(ServedBy::Direct, dice("stalled_reader_torture")).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_reader_torture_on_unix_sockets() {
    rounds(ServedBy::Unix, dice("stalled_reader_torture_on_unix_sockets")).await;
}
