//! The test kills the server while publishers publish and subscribers read. Then it starts a new
//! server with the same store. It repeats these steps several times. Every subscriber must get
//! every acknowledged event exactly once and in order. An event that was not acknowledged arrives
//! once or not at all.
//!
//! One start and kill of a server is a round. An ordinary run has a few rounds.
//! `DOWNLINK_CRASH_ROUNDS` sets another number, and `cargo xtask nightly` uses it to run more
//! rounds.
#![cfg(unix)]

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use downlink_client::{Delivery, EventSource, PublishRequest, Publisher};
use tokio::{task::JoinSet, time::timeout};

/// The number of rounds of an ordinary test run. They take a few seconds.
const ROUNDS: usize = 4;

/// The maximum duration of a round. Every round takes far less time.
const PATIENCE: Duration = Duration::from_secs(60);

const PUBLISHERS: usize = 3;
const TOPICS: [&str; 2] = ["a", "b/x"];

/// The query of each subscriber.
const SUBSCRIBERS: [&str; 4] = ["topic=a", "topic=b/*", "topic=a&topic=b/*", "topic=*"];

/// The data of the last event of the test.
const END: &str = "the end";

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("downlink-crash-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server with the store. Dropping this value kills the server.
struct Server {
    child: Child,
    url: String,
    /// The output of the server. It stays open while the server runs, because a server that cannot
    /// write to its stdout ends.
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(store: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_downlink"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOWNLINK_") {
                command.env_remove(name);
            }
        }
        command.args(["--listen", "127.0.0.1:0", "--store"]).arg(store);
        // The server keeps only few events in memory, so that subscribers often resume at events
        // that are only in the store.
        command.args(["--retain-events", "1000000", "--retain-bytes", "1000000000"]);
        command.args(["--history-bytes-max", "1100000", "--event-bytes-max", "1000"]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("the stream is piped");
        let mut stdout = BufReader::new(stdout);
        let mut greeting = String::new();
        stdout.read_line(&mut greeting).expect("a greeting");
        let url = greeting.trim_end().rsplit(' ').next().unwrap_or_default().to_owned();
        assert!(url.starts_with("http://"), "{greeting:?}");
        Self { child, url, _stdout: stdout }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // `kill` sends SIGKILL, so the program stops at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The record of one publisher over all rounds: the number of events that it tried to publish, and
/// its acknowledged events.
#[derive(Default)]
struct Ledger {
    tried: usize,
    /// The topic and data of each acknowledged event, in the order of the acknowledgements.
    acknowledged: Vec<(&'static str, String)>,
}

/// Publishes one event after another until a publish fails, which means that the server was killed.
async fn publish(
    number: usize,
    url: String,
    mut ledger: Ledger,
    count: Arc<AtomicUsize>,
) -> Ledger {
    let publisher = Publisher::new(&url).expect("an address");
    loop {
        let data = format!("{number}-{}", ledger.tried);
        let topic = TOPICS[ledger.tried % TOPICS.len()];
        ledger.tried += 1;
        let request = PublishRequest::to_topic(topic);
        match publisher.publish(&request, data.clone()).await {
            Ok(receipt) => {
                assert!(receipt.committed);
                ledger.acknowledged.push((topic, data));
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => return ledger,
        }
    }
}

/// The record of one subscriber over all rounds.
#[derive(Default)]
struct Reader {
    last_event_id: String,
    seen: Vec<String>,
}

/// Reads until the connection breaks or the last event of the test arrives.
async fn read(query: &'static str, url: String, mut reader: Reader) -> Reader {
    let address = format!("{url}/events?{query}&start=earliest");
    let builder = EventSource::builder(&address).last_event_id(reader.last_event_id.clone());
    let mut source = builder.build().expect("an address");
    while let Some(delivery) = source.next().await {
        match delivery {
            Delivery::Event(event) => {
                reader.seen.push(event.data);
                reader.last_event_id = event.last_event_id.to_string();
                if reader.seen.last().is_some_and(|data| data == END) {
                    break;
                }
            }
            Delivery::Gap(gap) => panic!("{query}: an unexpected gap: {gap:?}"),
            Delivery::Error(_) => break,
            _ => {}
        }
    }
    reader
}

/// Runs a server until it has acknowledged `enough` events in this round, and then kills it.
async fn round(store: &Path, ledgers: &mut Vec<Ledger>, readers: &mut Vec<Reader>, enough: usize) {
    let server = Server::start(store);
    let count = Arc::new(AtomicUsize::new(0));
    let mut publishing = JoinSet::new();
    for (number, ledger) in ledgers.drain(..).enumerate() {
        let publish = publish(number, server.url.clone(), ledger, Arc::clone(&count));
        publishing.spawn(async move { (number, publish.await) });
    }
    let mut reading = JoinSet::new();
    for (number, reader) in readers.drain(..).enumerate() {
        let read = read(SUBSCRIBERS[number], server.url.clone(), reader);
        reading.spawn(async move { (number, read.await) });
    }
    while count.load(Ordering::Relaxed) < enough {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(server);
    let published: BTreeMap<usize, Ledger> = publishing.join_all().await.into_iter().collect();
    ledgers.extend(published.into_values());
    let read: BTreeMap<usize, Reader> = reading.join_all().await.into_iter().collect();
    readers.extend(read.into_values());
}

fn check(query: &str, reader: &Reader, ledgers: &[Ledger]) {
    let mut places = HashMap::new();
    for (place, data) in reader.seen.iter().enumerate() {
        let twice = places.insert(data.as_str(), place);
        assert!(twice.is_none(), "{query}: {data} came twice");
    }
    for ledger in ledgers {
        let wanted = ledger.acknowledged.iter().filter(|(topic, _)| match query {
            "topic=a" => *topic == "a",
            "topic=b/*" => *topic == "b/x",
            _ => true,
        });
        let mut last = None;
        for (_, data) in wanted {
            let place = places.get(data.as_str());
            let place = place
                .unwrap_or_else(|| panic!("{query}: {data} was acknowledged but not delivered"));
            assert!(
                last.is_none_or(|last| last < place),
                "{query}: {data} came before an event that was acknowledged earlier"
            );
            last = Some(place);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torture_every_acknowledged_event_arrives_once_and_in_order_despite_crashes() {
    let rounds = std::env::var("DOWNLINK_CRASH_ROUNDS");
    let rounds = rounds.ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let folder = Folder::new();
    let store = folder.0.join("crash.db");
    let mut ledgers: Vec<Ledger> = (0..PUBLISHERS).map(|_| Ledger::default()).collect();
    let mut readers: Vec<Reader> = SUBSCRIBERS.iter().map(|_| Reader::default()).collect();
    for number in 0..rounds {
        // In each round, the server is killed after a different number of events, from 1 to 397.
        let enough = 1 + (number * 7919) % 397;
        let round = round(&store, &mut ledgers, &mut readers, enough);
        timeout(PATIENCE, round).await.expect("a round ends");
    }
    let server = Server::start(&store);
    let publisher = Publisher::new(&server.url).expect("an address");
    let both = PublishRequest::to_topic(TOPICS[0]).topic(TOPICS[1]);
    let _receipt = publisher.publish(&both, END).await.expect("the last event");
    for (query, reader) in SUBSCRIBERS.into_iter().zip(readers) {
        let read = timeout(PATIENCE, read(query, server.url.clone(), reader));
        let reader = read.await.expect("all events arrive");
        check(query, &reader, &ledgers);
    }
    let acknowledged: usize = ledgers.iter().map(|ledger| ledger.acknowledged.len()).sum();
    assert!(acknowledged >= rounds);
}
