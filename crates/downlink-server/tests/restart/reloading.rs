//! The server reloads under load. In one test, each reload removes one key and adds another. In the
//! other test, each reload changes how much history topics keep. No publish may be refused, and no
//! stream of another key may end.

use std::{fs, path::Path, time::Duration};

use downlink_access::Secret;
use downlink_client::{Delivery, EventSource, GapReason, PublishRequest, Publisher};
use tokio::time::{sleep, timeout};

use crate::{
    ALONE, Folder, Load, PATIENCE, allow_many_descriptors, check,
    load::Reached,
    program::{Program, Socket},
};

/// The number of subscribers in the test of keys.
const CLIENTS: usize = 1_000;

/// The number of subscribers in the test of retention.
const CLIENTS_OF_RETENTION: usize = 200;

/// The topic whose retention changes.
const OLD: &str = "old";

const RELOADS: usize = 3;

/// Makes a key file and returns the key.
fn key(folder: &Path, name: &str) -> String {
    let secret = Secret::generate().expect("randomness");
    secret.create_file(&folder.join(name)).expect("a new file");
    secret.text().to_string()
}

/// Writes the settings file, in which the server has the steady key and one more.
fn write_settings(folder: &Path, other: &str) {
    let keys = [folder.join("steady.key"), folder.join(other)];
    let keys = format!("publish-key-file = {keys:?}\nretain-events = 1000000\n");
    fs::write(folder.join("downlink.toml"), keys).expect("a file");
}

/// Starts a server with the settings file and the store in this folder.
fn serve(socket: &Socket, folder: &Path) -> Program {
    let path = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
    let (store, settings) = (path("reload.db"), path("downlink.toml"));
    // If the test runs under `nohup`, its child processes ignore SIGHUP too. `env` restores the
    // default action.
    let words = ["env", "--default-signal=HUP", env!("CARGO_BIN_EXE_downlink"), "serve"];
    let words = [&words[..], &["--store", &store, "--config", &settings]].concat();
    Program::start(socket, "LISTEN_PID=$$ LISTEN_FDS=1", &words).greeted()
}

/// Waits until the server accepts a key. The server accepts it after the reload.
async fn accepts(server: &Reached) {
    let publisher = server.publisher();
    let accepted = async {
        while publisher.publish(&PublishRequest::to_topic("other"), "x").await.is_err() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, accepted).await.expect("the server reloads");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_cut_no_stream_and_refuse_no_publish() {
    let _alone = ALONE.lock().await;
    allow_many_descriptors();
    let folder = Folder::new("reload");
    let steady = key(&folder.0, "steady.key");
    let mut other = key(&folder.0, "0.key");
    write_settings(&folder.0, "0.key");
    let socket = Socket::tcp();
    let server = serve(&socket, &folder.0);
    let url = format!("http://{}", socket.place);
    let reached = Reached { url: url.clone(), key: steady };
    let load = Load::start(&reached, CLIENTS).await;
    for number in 1..=RELOADS {
        let mut of_other = EventSource::builder(format!("{url}/events?topic=none"))
            .bearer_token(&other)
            .build()
            .expect("an address");
        assert!(matches!(of_other.next().await, Some(Delivery::Open(_))));
        load.goes_on(100).await;
        let file = format!("{number}.key");
        other = key(&folder.0, &file);
        write_settings(&folder.0, &file);
        server.hang_up();
        accepts(&Reached { url: url.clone(), key: other.clone() }).await;
        let ended = timeout(PATIENCE, async { while of_other.next().await.is_some() {} }).await;
        ended.expect("the stream of the removed key ends for good");
        assert!(of_other.closed_because().is_some());
    }
    load.goes_on(100).await;
    let (published, read) = load.end(&reached).await;
    server.terminate();
    server.ended();
    check(&published, &read);
    assert!(read.iter().all(|read| read.connections == 1), "a reload cut a stream");
    let events: usize = published.iter().map(|publisher| publisher.took.len()).sum();
    println!("reload: {RELOADS} reloads, {} subscribers, {events} events", read.len());
}

/// Writes the settings file with other retention rules. The topic [`OLD`] keeps this many events.
/// The topics of the load keep all of their events, whatever the number is.
fn write_retention(folder: &Path, events: usize) {
    let settings = format!(
        "publish-key-file = {:?}\nretain-events = {}\nretain = [\"{OLD}=events:{events}\"]\n",
        folder.join("steady.key"),
        1_000_000 - events
    );
    fs::write(folder.join("downlink.toml"), settings).expect("a file");
}

/// The number of events of the topic [`OLD`] in `GET /topics`.
async fn events(server: &Reached) -> usize {
    let url = format!("{}/topics?topic={OLD}", server.url);
    let answer = reqwest::Client::new().get(url).bearer_auth(&server.key).send().await;
    let text = answer.expect("an answer").text().await.expect("a body");
    let topic: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    topic["events"].as_u64().unwrap_or_else(|| panic!("{topic}")) as usize
}

/// Publishes events to the topic [`OLD`] and returns the id of the last event.
async fn publish_old(publisher: &Publisher, numbers: std::ops::Range<usize>) -> String {
    let mut id = String::new();
    for number in numbers {
        let request = PublishRequest::to_topic(OLD);
        id = publisher.publish(&request, number.to_string()).await.expect("an answer").id;
    }
    id
}

/// Resumes after an event of the topic [`OLD`]. Returns the reason of the gap, if there is one, and
/// the numbers of the events up to the number `last`.
async fn resume(server: &Reached, after: &str, last: usize) -> (Option<GapReason>, Vec<usize>) {
    let builder = EventSource::builder(format!("{}/events?topic={OLD}", server.url));
    let mut source = builder.bearer_token(&server.key).last_event_id(after).build().expect("a URL");
    let (mut gap, mut numbers) = (None, Vec::new());
    while numbers.last() != Some(&last) {
        match source.next().await.expect("the stream stays open") {
            Delivery::Gap(reported) => gap = Some(reported.reason),
            Delivery::Event(event) => numbers.push(event.data.parse().expect("a number")),
            _ => {}
        }
    }
    (gap, numbers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_of_retention_under_load_cut_no_stream_and_lose_no_event() {
    let _alone = ALONE.lock().await;
    allow_many_descriptors();
    let folder = Folder::new("retention");
    let steady = key(&folder.0, "steady.key");
    write_retention(&folder.0, 1_000);
    let socket = Socket::tcp();
    let server = serve(&socket, &folder.0);
    let reached = Reached { url: format!("http://{}", socket.place), key: steady };
    let publisher = reached.publisher();
    let load = Load::start(&reached, CLIENTS_OF_RETENTION).await;
    let hundredth = publish_old(&publisher, 0..100).await;
    publish_old(&publisher, 100..300).await;
    assert_eq!(resume(&reached, &hundredth, 299).await, (None, (100..300).collect()));

    write_retention(&folder.0, 10);
    server.hang_up();
    let smaller = async { while events(&reached).await != 10 {} };
    timeout(PATIENCE, smaller).await.expect("the topic has fewer events after the reload");
    load.goes_on(100).await;
    // The store evicts events a moment later than the log in memory.
    let evicted = async {
        while resume(&reached, &hundredth, 299).await
            != (Some(GapReason::Evicted), (290..300).collect())
        {}
    };
    timeout(PATIENCE, evicted).await.expect("a resuming subscriber gets one gap");

    write_retention(&folder.0, 500);
    server.hang_up();
    let mut next = 300;
    let larger = async {
        while events(&reached).await <= 10 {
            publish_old(&publisher, next..next + 1).await;
            next += 1;
        }
    };
    timeout(PATIENCE, larger).await.expect("the topic keeps more events after the reload");
    let first = next - events(&reached).await;
    publish_old(&publisher, next..next + 300).await;
    assert_eq!(events(&reached).await, next + 300 - first);
    load.goes_on(100).await;
    let (published, read) = load.end(&reached).await;
    check(&published, &read);
    assert!(read.iter().all(|read| read.connections == 1), "a reload cut a stream");
    server.terminate();
    server.ended();

    let _server = serve(&socket, &folder.0);
    // The store may have used the old rule for a moment longer than the log in memory.
    let kept = events(&reached).await;
    assert!((300..=next + 300 - first).contains(&kept), "{kept} events after the restart");
    let (_, numbers) = resume(&reached, &hundredth, next + 299).await;
    assert_eq!(numbers, (next + 300 - kept..next + 300).collect::<Vec<_>>());
}
