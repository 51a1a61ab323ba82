//! The log of the server: a line about each request and each stream, and lines about limits and
//! refusals. No line has a secret or a character that could change a terminal.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::mpsc::{Receiver, channel},
    thread,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    PATIENCE, patiently,
    program::Program,
    request::{Place, Request},
    site::Site,
};

/// A server that logs in JSON, and the lines of its log.
struct Logged {
    site: Site,
    lines: Receiver<Value>,
    /// All lines that were received.
    text: String,
}

impl Logged {
    fn start(flags: &[&str]) -> Self {
        Self::start_at("info", flags)
    }

    fn start_at(level: &str, flags: &[&str]) -> Self {
        let mut site = Site::start(&[]);
        let mut command = site.another(&[&["--log-format", "json"], flags].concat());
        command.env("DOWNLINK_LOG", level).stderr(Stdio::piped());
        site.stop();
        let mut child = command.spawn().expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("the stream is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stderr.lines() {
                let line = line.expect("a pipe");
                let line = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        site.replace_by(Program::greeted(child));
        Self { site, lines, text: String::new() }
    }

    /// The next line with this message.
    fn line(&mut self, message: &str) -> Value {
        self.line_where(message, |_| true)
    }

    /// The next line with this message that meets a condition.
    fn line_where(&mut self, message: &str, is: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no line {message:?} after {}", self.text));
            self.text += &format!("{line}\n");
            if line["message"] == message && is(&line) {
                return line;
            }
        }
    }

    /// Ends the server, and returns all lines.
    fn rest(mut self) -> String {
        self.site.stop();
        self.text.extend(self.lines.iter().map(|line| format!("{line}\n")));
        self.text
    }
}

#[tokio::test]
async fn a_request_has_one_line_with_its_result() {
    let mut logged = Logged::start_at("info,access=debug", &[]);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let publish = Request::post("/events?topic=rooms/1&topic=rooms/2", "x");
    let publish = publish.header("traceparent", parent).header("X-Request-Id", "r-17");
    let publish = publish.header("User-Agent", "tester/1").bearer(&logged.site.keys.publish_key());
    assert_eq!(publish.ask(logged.site.admin()).await.status, 200);
    let line = logged.line("request");
    for (field, value) in [
        ("level", "DEBUG"),
        ("target", "access"),
        ("method", "POST"),
        ("path", "/events"),
        ("topics", "rooms/1 rooms/2"),
        ("address", "127.0.0.1"),
        ("traceparent", parent),
        ("request_id", "r-17"),
        ("user_agent", "tester/1"),
    ] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    assert_eq!((&line["status"], &line["events"]), (&200.into(), &1.into()), "{line}");
    assert!(line["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{line}");
    assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
    assert!(line["key"].is_string() && line["bytes"].is_u64(), "{line}");

    let batch = "{\"topic\":\"a\",\"data\":1}\n{\"topic\":\"b\",\"data\":2}\n";
    let batch = Request::post("/events/batch", batch).bearer(&logged.site.keys.publish_key());
    assert_eq!(batch.ask(logged.site.admin()).await.status, 200);
    assert_eq!(logged.line("request")["events"], 2);

    let unknown = Request::get("/events?topic=rooms/1&client=ada").bearer("guess");
    assert_eq!(unknown.ask(logged.site.public()).await.status, 401);
    let line = logged.line("request");
    assert_eq!((&line["status"], &line["reason"]), (&401.into(), &"key_unknown".into()), "{line}");
    assert_eq!((&line["client"], &line["key"]), (&"ada".into(), &Value::Null), "{line}");

    assert_eq!(Request::get("/metrics").ask(logged.site.admin()).await.status, 401);
    let line = logged.line("request");
    assert_eq!((&line["path"], &line["status"]), (&"/metrics".into(), &401.into()), "{line}");
    assert_eq!(line["level"], "INFO", "{line}");
}

/// A browser that is refused gets a 204 or an empty stream, because an `EventSource` treats an
/// error as final. The operator must still see the refusal.
#[tokio::test]
async fn the_refusal_of_a_browser_is_logged_although_its_status_is_no_error() {
    let mut logged = Logged::start(&["--public", "news", "--subscribers-max", "1"]);
    let held = logged.site.subscribe(Request::get("/events?topic=news")).await;
    logged.site.assert_comes_back(Request::get("/events?topic=news")).await;
    let line = logged.line("request");
    assert_eq!((&line["status"], &line["level"]), (&200.into(), &"INFO".into()), "{line}");
    assert!(line["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{line}");
    drop(held);
    logged.site.revoke("client=ada").await;
    let ada = Request::get("/events?topic=rooms/1").bearer(&logged.site.keys.user("ada"));
    assert_eq!(ada.of_browser().ask(logged.site.public()).await.status, 204);
    let line = logged.line("request");
    assert_eq!((&line["status"], &line["reason"]), (&204.into(), &"revoked".into()), "{line}");
}

/// Publishes and health checks come many times in a second.
#[tokio::test]
async fn at_the_default_level_a_request_that_succeeds_has_no_line() {
    let logged = Logged::start(&[]);
    assert_eq!(Request::get("/healthz").ask(logged.site.public()).await.status, 200);
    logged.site.publish("topic=rooms/1", "x").await;
    assert_eq!(Request::get("/nothing").ask(logged.site.public()).await.status, 404);
    let lines = logged.rest();
    let paths = ["/healthz", "/events", "/nothing"].map(|path| lines.contains(path));
    assert_eq!(paths, [false, false, true], "{lines}");
}

#[tokio::test]
async fn a_stream_has_one_line_when_it_ends() {
    let mut logged = Logged::start(&["--trusted-proxy", "127.0.0.1"]);
    let request = Request::get("/events?topic=rooms/1&topic=rooms/2")
        .bearer(&logged.site.keys.user("ada"))
        .header("X-Forwarded-For", "192.0.2.7")
        .header("X-Request-Id", "r-18")
        .header("User-Agent", "tester/2");
    let mut stream = logged.site.subscribe(request.clone()).await;
    logged.site.publish("topic=rooms/1", "hello").await;
    assert_eq!(stream.data().await, "hello");
    let listed = logged.site.operate(Request::get("/clients")).await.json();
    assert_eq!(listed["clients"][0]["user_agent"], "tester/2", "{listed}");
    drop(stream);
    let line = logged.line("stream ended");
    for (field, value) in [
        ("target", "access"),
        ("address", "192.0.2.7"),
        ("peer", "127.0.0.1"),
        ("client", "ada"),
        ("topics", "rooms/1 rooms/2"),
        ("reason", "left"),
        ("request_id", "r-18"),
        ("user_agent", "tester/2"),
    ] {
        assert_eq!(line[field], value, "{field} of {line}");
    }
    assert_eq!(line["events"], 1, "{line}");
    assert!(line["bytes"].as_u64().is_some_and(|bytes| bytes > 5), "{line}");
    assert!(line["seconds"].as_f64().is_some_and(|seconds| seconds < 60.0), "{line}");
    let revoked = logged.site.subscribe(request.clone()).await;
    logged.site.revoke("client=ada").await;
    drop(revoked.rest().await);
    assert_eq!(logged.line("stream ended")["reason"], "revoked");
    // A request that opens a stream has no line of its own.
    assert!(!logged.text.lines().any(|line| line.contains("\"GET\"") && line.contains("/events")));
}

#[tokio::test]
async fn the_line_of_an_expired_stream_has_the_reason_expired() {
    let mut logged = Logged::start(&["--public", "news", "--max-age", "1s"]);
    let stream = logged.site.subscribe(Request::get("/events?topic=news")).await;
    drop(stream.rest().await);
    assert_eq!(logged.line("stream ended")["reason"], "expired");
}

#[tokio::test]
async fn no_line_has_a_secret_or_a_character_that_changes_a_terminal() {
    let logged = Logged::start_at("debug", &["--public", "news"]);
    let site = &logged.site;
    let ticket = site.ticket("topic=rooms/1&client=ada").await;
    let (key, token) = (site.keys.publish_key(), site.keys.user("ada"));
    drop(site.subscribe(Request::get(format!("/events?ticket={ticket}"))).await);
    drop(site.subscribe(Request::get("/events?topic=rooms/1").bearer(&token)).await);
    site.publish("topic=rooms/1", "the data of an event").await;
    let tampered = format!("/events?topic=news&ticket=x{ticket}");
    assert_eq!(Request::get(tampered).ask(site.public()).await.status, 401);
    let half = Request::get("/events?topic=news").bearer(&token[..token.len() - 2]);
    assert_eq!(half.ask(site.public()).await.status, 401);
    let cookie = Request::get("/events?topic=news").header("Cookie", format!("downlink={token}x"));
    assert_eq!(cookie.ask(site.public()).await.status, 200);
    let escapes = "/ev%1b%5b31m?topic=%1b%5b31m%c2%9b31m%e2%80%ae&client=%0d%0aforged";
    let strange =
        Request::get(escapes).header("User-Agent", "a\u{9b}31m\u{202e}\u{ad}\u{200b}\u{e0041}");
    let strange = strange.header("X-Request-Id", "\u{9b}\u{2066}");
    assert_eq!(strange.ask(site.public()).await.status, 404);
    let lines = logged.rest();
    assert!(lines.contains("/ev%1b%5b31m"), "{lines}");
    for secret in [&*ticket, &key, &token, "the data of an event"] {
        // A line may contain a part of a secret, because long texts are shortened. The first bytes
        // of a ticket and of a token are not secret.
        let from = if secret.len() > 100 { 60 } else { 0 };
        for part in secret.as_bytes()[from..].chunks_exact(12) {
            let part = std::str::from_utf8(part).expect("ASCII");
            assert!(!lines.contains(part), "{part} in {lines}");
        }
    }
    // The lines were parsed, so an escaped character would appear here as itself.
    let values: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for text in values.iter().filter_map(Value::as_object).flatten().filter_map(|(_, v)| v.as_str())
    {
        let hidden = ['\u{ad}', '\u{200b}', '\u{202e}', '\u{2066}', '\u{e0041}'];
        let is_dangerous = |c: char| c.is_control() || hidden.contains(&c);
        assert!(!text.contains(is_dangerous), "{text:?}");
    }
}

#[tokio::test]
async fn limits_and_refusals_are_logged_at_a_limited_rate() {
    let flags = ["--connections-per-address-max", "1", "--public", "news"];
    let flags = [&flags[..], &["--publishes-per-address", "1/h,burst:1"]].concat();
    let mut logged = Logged::start(&flags);
    let held = logged.site.subscribe(Request::get("/events?topic=news")).await;
    let refused = Request::get("/events?topic=news").ask(logged.site.public()).await;
    assert_eq!(refused.status, 429);
    let line = logged.line("connections were refused, because a limit is reached");
    assert_eq!(line["limit"], "connections_per_address_max", "{line}");
    assert_eq!((&line["level"], &line["count"]), (&"WARN".into(), &1.into()), "{line}");
    assert_eq!(line["listener"], "public", "{line}");
    drop(held);
    logged.line("stream ended");

    let guess = || Request::post("/events?topic=rooms/1", "x").bearer("guess");
    for _ in 0..3 {
        assert_eq!(guess().ask(logged.site.admin()).await.status, 401);
    }
    let line = logged.line("requests were refused by access control");
    assert_eq!(line["code"], "key_unknown", "{line}");
    let first = line["count"].as_u64().expect("a number");
    assert!((1..=3).contains(&first), "{line}");
    for _ in 0..20 {
        assert_eq!(guess().ask(logged.site.admin()).await.status, 401);
    }
    let lines = logged.rest();
    let of_keys = lines.lines().filter(|line| line.contains("refused by access control"));
    let counts =
        of_keys.map(|line| serde_json::from_str::<Value>(line).expect("JSON")["count"].as_u64());
    // After the first line, no line is due for a minute. So the second line is written only when
    // the server ends.
    assert_eq!(counts.collect::<Vec<_>>(), [Some(first), Some(23 - first)], "{lines}");
}

#[tokio::test]
async fn a_publisher_above_its_rate_is_logged() {
    let mut logged = Logged::start(&["--publishes-per-address", "1/h,burst:1"]);
    let publish =
        || Request::post("/events?topic=rooms/1", "x").bearer(&logged.site.keys.user("ada"));
    assert_eq!(publish().ask(logged.site.public()).await.status, 200);
    assert_eq!(publish().ask(logged.site.public()).await.status, 429);
    let line = logged.line("publishes were refused");
    assert_eq!((&line["reason"], &line["level"]), (&"rate_limited".into(), &"WARN".into()));
    let metric = "downlink_publishes_total{result=\"rate_limited\"}";
    assert_eq!(logged.site.metric(metric).await, "1");
}

#[tokio::test]
async fn a_gap_and_a_stalled_reader_are_logged() {
    let flags = ["--public", "news", "--retain-events", "1", "--write-stall-max", "1s"];
    let mut logged = Logged::start(&flags);
    let first = logged.site.publish("topic=news", "1").await;
    for data in ["2", "3"] {
        logged.site.publish("topic=news", data).await;
    }
    let resume = Request::get("/events?topic=news").header("Last-Event-ID", first);
    let mut late = logged.site.subscribe(resume).await;
    late.gap().await;
    let line = logged.line("subscribers got gaps");
    assert_eq!((&line["reason"], &line["count"]), (&"evicted".into(), &1.into()), "{line}");
    assert_eq!(logged.site.metric("downlink_gaps_total{reason=\"evicted\"}").await, "1");
    drop(late);
    logged.line("stream ended");

    let Place::Tcp(address) = logged.site.public() else { panic!("the listener is on TCP") };
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("an option of every socket");
    let mut stalled = socket.connect(*address).await.expect("the server listens");
    let request = Request::get("/events?topic=news").text(logged.site.public(), "");
    stalled.write_all(request.as_bytes()).await.expect("the connection is open");
    let metric = "downlink_disconnects_total{reason=\"stalled\"}";
    let big = "x".repeat(60_000);
    patiently(async {
        while logged.site.metric(metric).await == "0" {
            logged.site.publish("topic=news", &big).await;
        }
    })
    .await;
    let line = logged.line("streams were cut");
    assert_eq!((&line["reason"], &line["level"]), (&"stalled".into(), &"WARN".into()), "{line}");
    drop(stalled);
}

/// The program that reads stderr has stopped, so the pipe is full. The server must go on, and say
/// how many lines it has left out.
#[tokio::test]
async fn a_log_without_a_reader_does_not_stop_requests() {
    let mut site = Site::start(&[]);
    let mut command = site.another(&[]);
    command.env("DOWNLINK_LOG", "info").stderr(Stdio::piped());
    site.stop();
    let mut child = command.spawn().expect("the program starts");
    let _unread = child.stderr.take().expect("the stream is piped");
    site.replace_by(Program::greeted(child));
    // Long lines fill the queue with fewer requests. In a line, each of these characters takes 4
    // bytes.
    let agent = "\u{10000}".repeat(160);
    let path = format!("/{}", "x".repeat(120));
    patiently(async {
        while site.metric("downlink_log_lines_dropped_total").await == "0" {
            for _ in 0..500 {
                let request = Request::get(&*path).header("User-Agent", &*agent);
                let request = request.header("X-Request-Id", &agent[..128 * 4]);
                assert_eq!(request.ask(site.public()).await.status, 404);
            }
        }
    })
    .await;
    // The server ends, although it cannot write its last lines.
    site.stop();
}

/// A client that leaves before it has an answer must not leave the log without a line.
#[tokio::test]
async fn a_client_that_leaves_before_the_answer_is_logged() {
    let mut logged = Logged::start(&[]);
    let Place::Tcp(address) = logged.site.admin() else { panic!("the listener is on TCP") };
    let mut io = TcpStream::connect(address).await.expect("the server listens");
    let publish =
        Request::post("/events?topic=rooms/1", "").bearer(&logged.site.keys.publish_key());
    let head = publish.text(logged.site.admin(), "Content-Length: 5\r\nExpect: 100-continue\r\n");
    io.write_all(head.as_bytes()).await.expect("the connection is open");
    // With this answer, the server asks for the body, so the request is in progress.
    let mut answer = [0; 12];
    patiently(io.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 100");
    drop(io);
    let line = logged.line("request");
    assert_eq!(line["topics"], "rooms/1", "{line}");
    assert!(line["status"] == Value::Null || line["status"] == 400, "{line}");
}

#[tokio::test]
async fn the_limit_of_connections_is_logged() {
    let mut logged = Logged::start(&["--connections-max", "2", "--public", "news"]);
    let news = || Request::get("/events?topic=news");
    let held = [logged.site.subscribe(news()).await, logged.site.subscribe(news()).await];
    assert_eq!(news().ask(logged.site.public()).await.status, 503);
    let line = logged.line("connections were refused, because a limit is reached");
    assert_eq!((&line["limit"], &line["count"]), (&"connections_max".into(), &1.into()), "{line}");
    let metric =
        "downlink_connections_refused_total{listener=\"public\",reason=\"connections_max\"}";
    assert_eq!(logged.site.metric(metric).await, "1");
    assert_eq!(Request::get("/readyz").ask(logged.site.public()).await.status, 200);
    drop(held);
}

#[tokio::test]
async fn a_shutdown_and_the_streams_that_it_ends_are_logged() {
    let logged = Logged::start(&["--public", "news"]);
    let stream = logged.site.subscribe(Request::get("/events?topic=news")).await;
    let reading = tokio::spawn(stream.rest());
    let lines = tokio::task::spawn_blocking(move || logged.rest()).await.expect("no panic");
    assert_eq!(patiently(reading).await.expect("no panic"), [""; 0]);
    let shutting_down = lines.find("shutting down").expect("a line about the shutdown");
    let ended = lines.find("\"reason\":\"drained\"").expect("a line about the stream");
    assert!(shutting_down < ended, "{lines}");
}
