//! Tests of the load generator: it must count sent, lost and repeated events correctly. The load
//! generator runs against a server with known faults and against the real server.
//!
//! The faulty server delivers an event to subscriptions before it answers the publish, so the
//! counts do not depend on timing.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};

/// A command of the program. It does not use settings from environment variables of the tests.
fn downlink(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_downlink"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DOWNLINK_") {
            command.env_remove(name);
        }
    }
    command.env("DOWNLINK_STORE", "none").args(arguments).stdin(Stdio::null());
    command
}

fn bench(server: SocketAddr, arguments: &[&str]) -> Output {
    let url = format!("--url=http://{server}/events?topic={{topic}}");
    let common = ["bench", &url, "--warmup=0s", "--settle=0s", "--duration=60s"];
    downlink(&[&common, arguments].concat()).output().expect("the program runs")
}

/// Runs the load generator and returns its report, which is the JSON object that it prints.
#[track_caller]
fn report(server: SocketAddr, arguments: &[&str]) -> Value {
    let output = bench(server, &[&["--json"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(said, "", "progress is printed only on a terminal");
    serde_json::from_slice(&output.stdout).expect("one object")
}

/// Asserts that each value in `expected` is also in the report.
#[track_caller]
fn assert_figures(report: &Value, expected: &Value) {
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&report[name], value, "{name} in {report}");
    }
}

/// A function that decides about the faults of the faulty server. After each publish, the server
/// calls it for each subscription, and sends the payloads that it returns. `events` has all
/// payloads published so far.
type Script = fn(subscription: usize, events: &[String]) -> Vec<String>;

/// Starts a faulty server. The server sends the payloads that the script returns, and answers each
/// publish with this status.
fn scripted(script: Script, status: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("the listener is bound");
    let subscriptions = Arc::new(Mutex::new(Vec::new()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let subscriptions = subscriptions.clone();
            thread::spawn(move || serve(stream, &subscriptions, script, status));
        }
    });
    address
}

fn serve(
    stream: TcpStream,
    subscriptions: &Mutex<Vec<TcpStream>>,
    script: Script,
    status: &str,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    let mut events = Vec::new();
    loop {
        let (method, length) = read_head(&mut reader)?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        if method == "GET" {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            // The lock is held while the head is written. So as soon as a client has read the head,
            // it gets every event that is published.
            let mut subscriptions = subscriptions.lock().expect("no thread panicked");
            writer.write_all(head.as_bytes()).ok()?;
            subscriptions.push(writer.try_clone().ok()?);
            continue;
        }
        events.push(String::from_utf8(body).ok()?);
        for (number, subscription) in
            subscriptions.lock().expect("no thread panicked").iter_mut().enumerate()
        {
            for payload in script(number, &events) {
                subscription.write_all(in_chunks(&payload).as_bytes()).ok()?;
            }
        }
        write!(writer, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").ok()?;
    }
}

/// Reads the head of a request. Returns the method and the length of the body.
fn read_head(reader: &mut BufReader<TcpStream>) -> Option<(String, usize)> {
    let (mut method, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            return Some((method?, length));
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().ok()?;
        }
        method.get_or_insert_with(|| line.split(' ').next().unwrap_or_default().to_owned());
    }
}

/// An event in two HTTP chunks. The split is in the middle of the record that the load generator
/// puts into each event.
fn in_chunks(payload: &str) -> String {
    let frame = format!("data: {payload}\n\n");
    let (one, two) = frame.split_at(25);
    format!("{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n", one.len(), two.len())
}

fn newest(_: usize, events: &[String]) -> Vec<String> {
    events.last().cloned().into_iter().collect()
}

const TEN_EVENTS: [&str; 4] = ["--connections=3", "--events=10", "--rate=1000", "--drain=500ms"];

#[test]
fn the_report_of_a_server_without_faults_has_no_fault() {
    let report = report(scripted(newest, "200 OK"), &TEN_EVENTS);
    assert_figures(
        &report,
        &json!({
            "connections": 3, "published": 10, "refused": 0, "expected": 30, "received": 30,
            "lost": 0, "duplicated": 0, "out_of_order": 0, "wrong_topic": 0, "foreign": 0,
            "exact": true, "flawless": true, "connections_ended_early": 0, "problem": null,
        }),
    );
}

#[test]
fn each_fault_is_counted_exactly() {
    let script: Script = |subscription, events| {
        let event = |number: usize| events[number].clone();
        match (subscription, events.len() - 1) {
            (0, 3) | (1, 7) => vec![],
            (1, 5) => vec![event(5), event(5)],
            (1, 8) => vec![event(8), event(7)],
            (_, newest) => vec![event(newest)],
        }
    };
    let report = report(scripted(script, "200 OK"), &TEN_EVENTS);
    assert_figures(
        &report,
        &json!({
            "published": 10, "expected": 30, "received": 29, "lost": 1, "duplicated": 1,
            "out_of_order": 1, "foreign": 0, "exact": true, "flawless": false,
        }),
    );
}

#[test]
fn a_duplicate_of_the_last_event_is_counted() {
    let script: Script = |_, events| vec![events[events.len() - 1].clone(); 2];
    let report = report(scripted(script, "200 OK"), &["-c2", "--events=1"]);
    assert_figures(&report, &json!({ "received": 2, "duplicated": 2, "lost": 0 }));
}

#[test]
fn events_of_other_topics_and_runs_are_counted_separately() {
    // The faulty server ignores topics, so each subscription also gets the two events of the other
    // topic.
    let server = scripted(newest, "200 OK");
    let arguments = ["--connections=2", "--topics=2", "--events=4", "--rate=1000"];
    let first = report(server, &arguments);
    assert_figures(&first, &json!({ "expected": 4, "received": 4, "wrong_topic": 4 }));
    let stranger: Script = |_, events| {
        let newest = &events[events.len() - 1];
        vec![newest.clone(), newest.replacen("DlBenchRec", "DlBenchRec00000000", 1)]
    };
    let second = report(scripted(stranger, "200 OK"), &["-c1", "--events=3", "--rate=1000"]);
    assert_figures(&second, &json!({ "received": 3, "foreign": 3, "lost": 0 }));
}

#[test]
fn a_refused_event_does_not_count_as_lost() {
    let nothing: Script = |_, _| vec![];
    let report = report(scripted(nothing, "503 Busy"), &["-c2", "--events=3", "--rate=1000"]);
    assert_figures(
        &report,
        &json!({
            "published": 3, "refused": 3, "expected": 0, "lost": 0,
            "problem": "publishing was answered with 503",
        }),
    );
}

#[test]
fn a_thousand_refusals_in_a_row_end_the_run() {
    let nothing: Script = |_, _| vec![];
    let server = scripted(nothing, "503 Busy");
    let published = |events: &str| {
        let report = report(server, &["-c1", "--rate=1000000", events]);
        (report["published"].as_u64(), report["problem"].as_str().map(str::to_owned))
    };
    let once = Some("publishing was answered with 503".to_owned());
    assert_eq!(published("--events=999"), (Some(999), once));
    let given_up = "publishing failed 1000 times in a row: publishing was answered with 503";
    assert_eq!(published("--events=1001"), (Some(1_000), Some(given_up.to_owned())));
}

#[test]
fn an_unreachable_server_is_an_error() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = bench(gone, &["-c1"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("no connection to {gone} came up")), "{said}");
}

/// The process of the real server. Dropping this value kills the process.
struct ServerProcess {
    child: Child,
    address: SocketAddr,
}

impl ServerProcess {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(flags: &[&str]) -> Self {
        let mut command = downlink(&[&["dev", "--listen", "127.0.0.1:0"], flags].concat());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("the stream is piped"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(
                lines.read_line(&mut line).expect("a line") > 0,
                "the server has printed no address"
            );
            let address = line.split("http://").nth(1).and_then(|rest| {
                rest.trim_end().trim_end_matches('/').split([' ', '/']).next()?.parse().ok()
            });
            if let Some(address) = address {
                break address;
            }
        };
        thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, address }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_real_server_loses_no_event_at_a_fixed_rate() {
    let server = ServerProcess::start();
    let report = report(
        server.address,
        &["--connections=200", "--topics=7", "--events=100", "--rate=2000", "--drain=30s"],
    );
    assert_figures(
        &report,
        &json!({
            "connections": 200, "published": 100, "refused": 0, "lost": 0, "flawless": true,
            "rate": 2000.0, "window": null, "server": null, "problem": null,
        }),
    );
    // There are 200 connections on 7 topics: 29 on each of the first four topics and 28 on each of
    // the others. The first two topics get 15 events each, and the others get 14.
    assert_eq!(report["expected"], 29 * (15 + 15 + 14 + 14) + 28 * (14 * 3));
}

/// With a window of 4, the load generator publishes an event only while fewer than 4 events are on
/// their way to the subscribers.
#[test]
fn the_real_server_loses_no_event_with_a_window_of_4_events() {
    let server = ServerProcess::start();
    let picture = std::env::temp_dir().join(format!("downlink-bench-{}.svg", std::process::id()));
    let plot = format!("--plot={}", picture.display());
    let pid = format!("--server-pid={}", server.child.id());
    let mut arguments =
        vec!["-c100", "--window=4", "--events=300", "--drain=30s", "--payload-bytes=5000", &plot];
    if cfg!(target_os = "linux") {
        arguments.push(&pid);
    }
    let report = report(server.address, &arguments);
    assert_figures(
        &report,
        &json!({
            "published": 300, "expected": 30_000, "received": 30_000, "flawless": true,
            "rate": null, "window": 4,
        }),
    );
    assert_eq!(report["server"].is_object(), cfg!(target_os = "linux"));
    let svg = std::fs::read_to_string(&picture).expect("the picture");
    std::fs::remove_file(&picture).expect("the picture");
    assert!(svg.contains("100 connections, window of 4 events"), "{svg}");
}

#[test]
fn the_printed_table_has_the_figures_of_the_run() {
    let server = ServerProcess::start();
    let output = bench(server.address, &["-c2", "--events=5", "--rate=1000"]);
    let table = String::from_utf8(output.stdout).unwrap();
    let value = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{table}"))[name.len()..].trim().to_owned()
    };
    assert_eq!(value("events published"), "5");
    assert_eq!(value("deliveries expected"), "10");
    assert_eq!(value("lost"), "0");
    assert!(value("latency p99.9").ends_with(" ms"));
}

#[test]
fn each_event_of_a_batch_is_counted() {
    let server = ServerProcess::start();
    let publish_url = format!("--publish-url=http://{}/events/batch", server.address);
    let arguments = [
        "-c3",
        "--events=100",
        "--window=50",
        "--batch=10",
        &publish_url,
        "--publish-body={\"topic\":\"{topic}\",\"data\":\"{payload}\"}\\n",
        "--drain=30s",
    ];
    let report = report(server.address, &arguments);
    assert_figures(
        &report,
        &json!({ "published": 100, "refused": 0, "received": 300, "flawless": true }),
    );
}

#[test]
fn events_of_different_publishers_may_come_in_any_order() {
    let server = ServerProcess::start();
    let arguments = ["-c2", "--events=500", "--window=100", "--publishers=8", "--drain=30s"];
    let report = report(server.address, &arguments);
    assert_figures(&report, &json!({ "received": 1_000, "lost": 0, "flawless": true }));
}

/// With `--quiet-rate`, the load generator also publishes to a separate topic with one reader.
#[test]
fn a_quiet_topic_has_its_own_figures() {
    let server = ServerProcess::start();
    let arguments = ["-c20", "--events=30", "--rate=300", "--quiet-rate=100", "--drain=30s"];
    let report = report(server.address, &arguments);
    assert_figures(&report, &json!({ "received": 600, "lost": 0, "flawless": true }));
    let quiet = &report["quiet"];
    assert_figures(quiet, &json!({ "lost": 0, "duplicated": 0, "flawless": true }));
    assert!(quiet["published"].as_u64().is_some_and(|published| published > 0), "{quiet}");
    assert_eq!(quiet["published"], quiet["received"]);
}

const STALLED: [&str; 5] =
    ["-c2", "--stalled=1", "--events=10", "--rate=1000", "--payload-bytes=1000"];

#[test]
fn stalled_readers_resume_without_a_loss() {
    let server = ServerProcess::start();
    let report = report(server.address, &[&STALLED[..], &["--drain=30s"]].concat());
    assert_figures(&report, &json!({ "received": 20, "flawless": true }));
    let expected = json!({ "readers": 1, "cut": 0, "exact": 1, "one_gap": 0, "failed": 0 });
    assert_figures(&report["stalled"], &expected);
}

#[test]
fn events_that_a_stalled_reader_misses_without_a_gap_are_a_fault() {
    let script: Script = |subscription, events| match (subscription, events.len() - 1) {
        (2, 4 | 5) => vec![],
        (_, newest) => vec![events[newest].clone()],
    };
    let report = report(scripted(script, "200 OK"), &STALLED);
    assert_figures(&report, &json!({ "received": 20, "lost": 0, "flawless": false }));
    let problem = "it missed 2 events without a report";
    let expected = json!({ "readers": 1, "exact": 0, "failed": 1, "problem": problem });
    assert_figures(&report["stalled"], &expected);
}

#[test]
#[cfg(target_os = "linux")]
fn reconnect_storms_leave_no_socket_open() {
    let server = ServerProcess::start();
    let pid = format!("--server-pid={}", server.child.id());
    let report = report(server.address, &["-c20", "--storms=2", &pid]);
    assert_figures(&report, &json!({ "flawless": true, "problem": null }));
    let storms = report["storms"].as_array().expect("a list");
    assert_eq!(storms.len(), 2);
    for storm in storms {
        assert_figures(storm, &json!({ "connections": 20, "sockets_left": 0 }));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn clients_resume_without_a_loss_after_a_crash() {
    let folder = std::env::temp_dir().join(format!("downlink-comeback-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let store = folder.join("store.db").display().to_string();
    let server = ServerProcess::start_with(&["--store", &store]);
    let program = env!("CARGO_BIN_EXE_downlink");
    let line = format!("'{program}' dev --listen {} --store '{store}'", server.address);
    let pid = format!("--server-pid={}", server.child.id());
    let report = report(server.address, &["-c20", "--comeback", &line, &pid]);
    std::fs::remove_dir_all(&folder).expect("the folder");
    let expected = json!({
        "connections": 20, "lost": 0, "duplicated": 0, "out_of_order": 0, "split": 0, "gaps": 0,
        "foreign": 0, "flawless": true, "problem": null,
    });
    assert_figures(&report, &expected);
    let published = [&report["acknowledged"], &report["unanswered_kept"]];
    let published: u64 = published.iter().filter_map(|number| number.as_u64()).sum();
    assert!(published >= 110, "{report}");
    assert_eq!(report["received"], published * 20);
}
