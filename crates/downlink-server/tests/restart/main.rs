//! The server is restarted under load, behind a real nginx. One server replaces another on the same
//! listening socket and with the same store, while publishers publish and subscribers read through
//! nginx. No publish may be refused, and every subscriber must get every event exactly once and in
//! order.
//!
//! The test does the work of a supervisor: it keeps the listening socket open and hands it to each
//! server. An ordinary run has a hundred subscribers and two restarts. `DOWNLINK_RESTART_CLIENTS`
//! sets another number of subscribers, and a run with this variable has six restarts. `cargo xtask
//! nightly` sets the variable. If nginx is not installed, the tests are skipped and print a
//! message. Another test, which needs no nginx, reloads the server under load.
#![cfg(unix)]

mod load;
mod nginx;
mod program;
mod reloading;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use downlink_client::PublishRequest;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{
    load::{BUSY, END, Published, Reached, Read, STEADY, Tally, publish, read},
    nginx::{Connections, Nginx},
    program::{Program, Socket},
};

/// The number of subscribers of an ordinary test run.
const CLIENTS: usize = 100;

/// The number of restarts of an ordinary test run.
const RESTARTS: usize = 2;

/// The number of restarts of a long run.
const LONG_RESTARTS: usize = 6;

/// The number of publishers of the topic [`STEADY`].
const STEADY_PUBLISHERS: usize = 4;

/// The number of publishers of the topic [`BUSY`].
const BUSY_PUBLISHERS: usize = 8;

/// The number of subscribers of the topic [`BUSY`].
const BUSY_CLIENTS: usize = 4;

/// The maximum duration of a wait. Every wait takes far less time.
const PATIENCE: Duration = Duration::from_secs(180);

/// The folder of one test. Dropping this value removes the folder.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("downlink-restart-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The time at which a restart began, and the time at which it was complete. A restart is complete
/// when the old server has ended and the next server has printed its greeting.
type Restart = (Instant, Instant);

/// Replaces a server. With `overlap`, the next server is started before the old server gets the
/// signal to end. Without `overlap`, the next server is started after the old server has ended.
fn restart(old: Program, socket: &Socket, store: &Path, overlap: bool) -> (Program, Restart) {
    let begun = Instant::now();
    let next = if overlap {
        let next = Program::server(socket, store);
        old.terminate();
        let next = next.greeted();
        old.ended();
        next
    } else {
        old.terminate();
        old.ended();
        Program::server(socket, store).greeted()
    };
    (next, (begun, Instant::now()))
}

/// The publishers and subscribers of a run.
struct Load {
    tally: Arc<Tally>,
    readers: usize,
    reading: JoinSet<Read>,
    publishing: JoinSet<Published>,
}

impl Load {
    async fn start(server: &Reached, clients: usize) -> Self {
        let tally = Arc::new(Tally::default());
        let mut load = Self {
            tally,
            readers: clients + BUSY_CLIENTS,
            reading: JoinSet::new(),
            publishing: JoinSet::new(),
        };
        let client = reqwest::Client::new();
        let topics = [(STEADY, clients), (BUSY, BUSY_CLIENTS)];
        for topic in
            topics.iter().flat_map(|(topic, readers)| std::iter::repeat_n(*topic, *readers))
        {
            load.reading.spawn(read(
                topic,
                server.clone(),
                client.clone(),
                Arc::clone(&load.tally),
            ));
        }
        load.all_are_connected(0).await;
        // With more subscribers, each event causes more deliveries. So publishers pause for longer,
        // and the rate of deliveries stays the same.
        let steady = Duration::from_millis(clients as u64 / 2);
        for number in 0..STEADY_PUBLISHERS {
            load.publish(STEADY, number, server, steady);
        }
        for number in 0..BUSY_PUBLISHERS {
            load.publish(BUSY, number, server, Duration::from_millis(1));
        }
        load
    }

    fn publish(&mut self, topic: &'static str, number: usize, server: &Reached, pause: Duration) {
        let tally = Arc::clone(&self.tally);
        self.publishing.spawn(publish(topic, number, server.clone(), pause, tally));
    }

    /// Waits until every subscriber has reconnected after the latest restart. A subscriber opens
    /// one connection at the start, and one after each restart.
    async fn all_are_connected(&self, restarts: usize) {
        let opened = async {
            while self.tally.opened() < (restarts + 1) * self.readers {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, opened).await.expect("all subscribers connect");
    }

    /// Waits until the server has acknowledged `more` further publishes.
    async fn goes_on(&self, more: usize) {
        let enough = self.tally.acknowledged() + more;
        let acknowledged = async {
            while self.tally.acknowledged() < enough {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, acknowledged).await.expect("publishing continues");
    }

    /// Stops the publishers, publishes the last event of each topic, and waits until the
    /// subscribers have read it.
    async fn end(self, server: &Reached) -> (Vec<Published>, Vec<Read>) {
        self.tally.stop();
        let published = self.publishing.join_all().await;
        let publisher = server.publisher();
        for topic in [STEADY, BUSY] {
            let last = publisher.publish(&PublishRequest::to_topic(topic), END).await;
            assert!(last.expect("the last event").committed);
        }
        let read = timeout(PATIENCE, self.reading.join_all()).await.expect("all events arrive");
        (published, read)
    }
}

/// Restarts the server several times under load, checks what publishers and subscribers recorded,
/// and returns a report.
async fn restarts_under_load(
    name: &str,
    connections: Connections,
    clients: usize,
    restarts: usize,
) -> String {
    let folder = Folder::new(name);
    let store = folder.0.join("restart.db");
    let socket = match connections {
        Connections::Fresh => Socket::unix(&folder.0.join("app.sock")),
        Connections::Kept => Socket::tcp(),
    };
    let mut server = Program::server(&socket, &store).greeted();
    let nginx = Nginx::start(&socket, connections, &folder.0);
    let key = std::fs::read_to_string(folder.0.join("downlink-publish.key"));
    let key = key.expect("the first server has made a key").trim_end().to_owned();
    let reached = Reached { url: nginx.url.clone(), key };
    let load = Load::start(&reached, clients).await;
    let mut times = Vec::new();
    for number in 0..restarts {
        load.goes_on(100).await;
        let (socket, store) = (socket.clone(), store.clone());
        let restarting = move || restart(server, &socket, &store, number % 2 == 0);
        let restarted = tokio::task::spawn_blocking(restarting).await.expect("a server");
        server = restarted.0;
        times.push(restarted.1);
        load.all_are_connected(number + 1).await;
    }
    load.goes_on(100).await;
    let (published, read) = load.end(&reached).await;
    server.terminate();
    server.ended();
    let requests = nginx.requests();
    check(&published, &read);
    assert!(read.iter().all(|read| read.connections > 1), "a restart ends every stream");
    format!("{name}: {}; {requests}", report(&published, &read, &times))
}

/// Asserts that every subscriber of a topic got each event of the topic once. All subscribers must
/// have got the events in the same order, and the events of each publisher must be in the order in
/// which it published them.
fn check(published: &[Published], read: &[Read]) {
    for topic in [STEADY, BUSY] {
        let published = published.iter().filter(|published| published.topic == topic);
        let mut read = read.iter().filter(|read| read.topic == topic);
        let seen = &read.next().expect("a reader of the topic").seen;
        for other in read {
            assert!(other.seen == *seen, "{topic}: two subscribers got different events");
        }
        let mut total = 0;
        for publisher in published {
            let prefix = format!("{}-", publisher.number);
            let theirs = seen.iter().filter(|data| data.starts_with(&prefix)).cloned();
            let events = (0..publisher.took.len()).map(|event| format!("{prefix}{event}"));
            assert!(
                theirs.eq(events),
                "{topic}, {prefix}: an event is missing, repeated or out of order"
            );
            total += publisher.took.len();
        }
        assert_eq!(seen.len(), total, "{topic}: events that no publisher sent");
    }
}

/// Returns a report about the run. It says how long publishers waited for their answers.
fn report(published: &[Published], read: &[Read], restarts: &[Restart]) -> String {
    let events: usize = published.iter().map(|publisher| publisher.took.len()).sum();
    let deliveries: usize = read.iter().map(|read| read.seen.len()).sum();
    let mut pauses: Vec<Duration> = restarts
        .iter()
        .flat_map(|restart| published.iter().filter_map(|publisher| publisher.longest_in(*restart)))
        .collect();
    pauses.sort();
    let handed_over = restarts.iter().map(|(begun, over)| over.duration_since(*begun));
    format!(
        "{} restarts, {} subscribers, {} publishers, {events} events, {deliveries} \
         deliveries; from the signal to the next greeting {:?}; a publisher waited {:?} (median of \
         the longest waits in each restart), {:?} at most",
        restarts.len(),
        read.len(),
        published.len(),
        handed_over.collect::<Vec<_>>(),
        pauses.get(pauses.len() / 2),
        pauses.last(),
    )
}

/// Raises the limit of open files of this process. The default limit of some systems allows fewer
/// than a thousand connections.
fn allow_many_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("a limit up to the maximum");
}

/// The running test holds this lock, so that the tests run one after the other. Two tests at the
/// same time would take longer.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn torture(name: &str, connections: Connections) -> String {
    let nginx = Command::new("nginx").arg("-v").stderr(Stdio::null()).status();
    if !nginx.is_ok_and(|status| status.success()) {
        return format!("{name}: skipped: no nginx; as root: apt-get install nginx-light");
    }
    let _alone = ALONE.lock().await;
    allow_many_descriptors();
    let clients = std::env::var("DOWNLINK_RESTART_CLIENTS");
    match clients.ok().and_then(|clients| clients.parse().ok()) {
        Some(clients) => restarts_under_load(name, connections, clients, LONG_RESTARTS).await,
        None => restarts_under_load(name, connections, CLIENTS, RESTARTS).await,
    }
}

/// nginx opens a new connection for each request and repeats no failed request. So a restart that
/// breaks a single request makes the test fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torture_every_publish_succeeds_even_if_nginx_repeats_no_request() {
    println!("{}", torture("fresh", Connections::Fresh).await);
}

/// nginx keeps connections to the server open. If a connection ends without an answer, nginx
/// repeats the request. Each publish has an idempotency key, so the server does not publish the
/// event twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torture_every_publish_succeeds_if_nginx_keeps_connections_open() {
    println!("{}", torture("kept", Connections::Kept).await);
}
