//! Tests of readers that disconnect and reconnect. Each reader must get every event once, or a gap
//! that covers the event.

use std::sync::Arc;
use std::time::Duration;

use downlink::hub::{Hub, HubBuilder, HubRetention, Retention};
use fastrand::Rng;
use tokio::task::JoinSet;

use super::reader::{Habits, NARROW, Reader};
use super::wire::{Connection, Turn};
use super::world::{Pace, Running, Selection, ServedBy, Stage, World, publish_all, topic};
use super::{SECONDS, dice, length, others, patiently};

pub(crate) const TOPICS: usize = 20;
const READERS: usize = 200;

/// A retention with which busy topics keep their events only for a moment.
const LITTLE: Retention = Retention { events_max: 64, age_max: None, ..Retention::DEFAULT };

/// A retention with which a topic keeps all events of a test.
const ALL: Retention = Retention { events_max: usize::MAX, bytes_max: usize::MAX, age_max: None };

/// The builder of a hub that soon evicts most events. The hub keeps the events to everyone for
/// longer. It also keeps the events of the last topic for longer. The publishers publish to this
/// topic least often.
fn forgetful() -> HubBuilder<String> {
    let quiet = Retention { age_max: None, ..Retention::DEFAULT };
    let retention = HubRetention::from(LITTLE).inboxes(LITTLE).everyone(quiet);
    Hub::builder().text().retention(retention.topics(topic(TOPICS - 1), quiet))
}

/// The builder of a hub that evicts nothing.
pub(crate) fn retentive() -> HubBuilder<String> {
    Hub::builder().text().retention(HubRetention::from(ALL).inboxes(ALL).everyone(ALL))
}

/// Makes readers. Each reader reads the last topic (the quietest), a few random topics, or a
/// pattern. A third of the readers also read a client's inbox.
pub(crate) fn readers(count: usize, rng: &mut Rng, away_max: u64) -> Vec<Reader> {
    let reader = |number: usize| {
        let selection = match number % 10 {
            0 => Selection::topics([TOPICS - 1]),
            1 | 2 => Selection::pattern(number % 10 == 1, TOPICS),
            _ => Selection::topics((0..rng.usize(1..=4)).map(|_| rng.usize(0..TOPICS))),
        };
        let selection = if number % 3 == 1 { selection.and_client(number) } else { selection };
        let window_bytes = (number % 16 == 5).then_some(NARROW);
        let habits = Habits { away_max, pause_max: away_max / 10, window_bytes, odd: true };
        Reader::new(format!("reader {number}"), selection, habits, rng.fork())
    };
    (0..count).map(reader).collect()
}

/// Starts all readers.
pub(crate) fn send_off(readers: Vec<Reader>, world: &Arc<World>) -> JoinSet<(Reader, Connection)> {
    readers.into_iter().map(|reader| reader.run(Arc::clone(world))).collect()
}

/// Waits until each reader has read the last event.
pub(crate) async fn gather(
    mut running: JoinSet<(Reader, Connection)>,
) -> Vec<(Reader, Connection)> {
    let mut gathered = Vec::new();
    while let Some(ended) = patiently(running.join_next()).await {
        gathered.push(ended.unwrap());
    }
    gathered
}

/// Stops the server. Asserts that each stream ends as HTTP requires, and that all subscriptions
/// have ended.
pub(crate) async fn part(
    server: Running,
    stage: &Stage,
    gathered: Vec<(Reader, Connection)>,
) -> Vec<Reader> {
    let stopped = server.stop();
    let mut readers = Vec::new();
    for (reader, mut connection) in gathered {
        let mut rest = downlink_proto::Decoder::default();
        let mut turn = Turn::Open;
        while turn == Turn::Open {
            turn = patiently(connection.read(usize::MAX, &mut rest)).await.1;
        }
        assert_eq!(turn, Turn::Ended, "{}", reader.name());
        readers.push(reader);
    }
    stopped.await;
    assert_eq!(stage.hub.stats().subscribers, 0);
    readers
}

/// Runs readers, which connect and disconnect, while publishers publish. Then compares the events
/// that each reader received with the ledger, the record of all published events.
pub(crate) async fn torture(
    builder: HubBuilder<String>,
    served_by: ServedBy,
    readers: Vec<Reader>,
    rng: &mut Rng,
    pace: Pace,
) -> Vec<Reader> {
    let stage = Stage::new(builder);
    let server = Running::new(served_by, &stage.hub).await;
    let world = World::new(server.place.clone(), Arc::clone(&stage));
    let running = send_off(readers, &world);
    let others = others::send_off(&world, rng);
    publish_all(&world, rng, pace).await;
    let exchanges = patiently(others.join_all()).await;
    assert!(exchanges.iter().all(|exchanges| *exchanges > 0), "{exchanges:?}");
    let gathered = gather(running).await;
    let readers = part(server, &stage, gathered).await;
    let last = world.last().unwrap();
    for reader in &readers {
        let [life] = &reader.lives[..] else { panic!("{} saw another epoch", reader.name()) };
        stage.ledger.check(reader.name(), &reader.selection.places, &life.seen, last);
    }
    report(&readers, last);
    readers
}

/// Prints the results of a run. Asserts that readers received events, reconnected, and were cut off
/// in the middle of frames.
fn report(readers: &[Reader], published: u64) {
    let sum = |count: fn(&Reader) -> usize| readers.iter().map(count).sum::<usize>();
    let events = sum(|reader| reader.lives.iter().map(|life| life.seen.events.len()).sum());
    let (connections, cut_frames) =
        (sum(|reader| reader.connections), sum(|reader| reader.cut_frames));
    let (holes, without) =
        (sum(Reader::holes), readers.iter().filter(|reader| reader.holes() == 0).count());
    eprintln!(
        "{published} published; {} readers, {without} without a hole: {events} events, {holes} \
         holes, {connections} connections, {cut_frames} of them cut within a frame",
        readers.len()
    );
    assert!(events > readers.len() && connections > readers.len() && cut_frames > 0);
}

async fn forgetful_torture(served_by: ServedBy, mut rng: Rng, length: Duration) {
    let readers = readers(READERS, &mut rng, 3_000);
    let pace = Pace { publishers: 3, topics: TOPICS, burst_max: 5, length };
    let readers = torture(forgetful(), served_by, readers, &mut rng, pace).await;
    assert!(readers.iter().any(|reader| reader.holes() > 0), "no reader got a gap");
    assert!(readers.iter().any(|reader| reader.holes() == 0), "every reader got a gap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnect_torture() {
    forgetful_torture(ServedBy::Direct, dice("reconnect_torture"), length()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnect_torture_under_axum_serve() {
    let rng = dice("reconnect_torture_under_axum_serve");
    forgetful_torture(ServedBy::Axum, rng, Duration::from_secs(SECONDS)).await;
}

async fn retentive_torture(served_by: ServedBy, mut rng: Rng) {
    let readers = readers(READERS, &mut rng, 1_000);
    let pace = Pace { publishers: 3, topics: TOPICS, burst_max: 1, length: length() };
    let readers = torture(retentive(), served_by, readers, &mut rng, pace).await;
    assert!(readers.iter().all(|reader| reader.holes() == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_without_gap_torture() {
    retentive_torture(ServedBy::Direct, dice("resume_without_gap_torture")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_without_gap_torture_over_hyper() {
    retentive_torture(ServedBy::Hyper, dice("resume_without_gap_torture_over_hyper")).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_without_gap_torture_on_unix_sockets() {
    retentive_torture(ServedBy::Unix, dice("resume_without_gap_torture_on_unix_sockets")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnect_torture_over_hyper() {
    let rng = dice("reconnect_torture_over_hyper");
    forgetful_torture(ServedBy::Hyper, rng, length()).await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnect_torture_on_unix_sockets() {
    let rng = dice("reconnect_torture_on_unix_sockets");
    forgetful_torture(ServedBy::Unix, rng, length()).await;
}
