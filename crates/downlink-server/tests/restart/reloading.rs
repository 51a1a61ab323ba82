//! The server reloads under load. Each reload removes one key and adds another. No publish may be
//! refused, and no stream of another key may end.

use std::{fs, path::Path, time::Duration};

use downlink_access::Secret;
use downlink_client::{Delivery, EventSource, PublishRequest};
use tokio::time::{sleep, timeout};

use crate::{
    ALONE, Folder, Load, PATIENCE, allow_many_descriptors, check,
    load::Reached,
    program::{Program, Socket},
};

/// The number of subscribers.
const CLIENTS: usize = 1_000;

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

/// Waits until the server accepts a key, which is after the reload.
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
    let path = |name: &str| folder.0.join(name).to_str().expect("UTF-8").to_owned();
    let (store, settings) = (path("reload.db"), path("downlink.toml"));
    // If the test runs under `nohup`, its child processes ignore SIGHUP too. `env` restores the
    // default action.
    let words = ["env", "--default-signal=HUP", env!("CARGO_BIN_EXE_downlink"), "serve"];
    let words = [&words[..], &["--store", &store, "--config", &settings]].concat();
    let server = Program::start(&socket, "LISTEN_PID=$$ LISTEN_FDS=1", &words).greeted();
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
