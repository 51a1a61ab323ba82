//! `downlink publish`.

use std::{io::Write as _, process::Stdio};

use crate::{Running, Server, downlink, run};

/// Starts a subscriber that prints `count` events and then ends.
fn subscriber(server: &Server, topic: &str, count: &str) -> Running {
    // `last:` reads history too, so the subscriber may connect before or after the publish.
    let arguments = [
        "subscribe",
        "--url",
        &server.url,
        "--json",
        "--start",
        "last:100",
        "--count",
        count,
        topic,
    ];
    Running::start(downlink(&arguments))
}

#[test]
fn an_argument_and_stdin_are_data() {
    let server = Server::start(&[]);
    let printed = server.publish("a", "argument");
    let printed: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert!(printed["id"].as_str().expect("an id").ends_with("-1"));
    assert_eq!(printed["subscribers"], 0);
    let arguments =
        ["publish", "--url", &server.url, "--topic", "a", "--event", "note", "--id", "my-1"];
    let published = run(downlink(&arguments), "two\nlines");
    assert_eq!(published.stdout, "{\"id\":\"my-1\",\"subscribers\":0}\n", "{}", published.stderr);
    let read = subscriber(&server, "a", "2").ended();
    assert_eq!(read.code, Some(0), "{}", read.stderr);
    let lines: Vec<&str> = read.stdout.lines().collect();
    assert!(lines[0].contains(r#""data":"argument""#), "{lines:?}");
    assert_eq!(lines[1], r#"{"data":"two\nlines","event":"note","id":"my-1"}"#);
}

#[test]
fn every_flag_reaches_the_server() {
    let server = Server::start(&[]);
    let publish = |more: &[&str]| {
        let url = server.url.clone();
        run(downlink(&[&["publish", "--url", &url], more].concat()), "")
    };
    assert_eq!(publish(&["--everyone", "x"]).code, Some(0));
    assert_eq!(
        publish(&["--client", "alice", "--client", "bob", "--retry", "5", "x"]).code,
        Some(0)
    );
    let key = ["--idempotency-key", "k", "-t", "a", "x"];
    assert_eq!(publish(&key).stdout, publish(&key).stdout);
    assert_eq!(publish(&["-t", "a", "--last", "x"]).code, Some(0));
    let refused = publish(&["-t", "a", "x"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("The topic is finished."), "{}", refused.stderr);
}

#[test]
fn streams_of_both_formats_are_published_as_they_come() {
    let server = Server::start(&[]);
    for (format, first, second) in
        [("event-stream", "data: 1\n\n", "data: 2\n\n"), ("ndjson", "1\n", "2\n")]
    {
        let arguments =
            ["publish", "--url", &server.url, "-t", format, "--stream", format, "--last"];
        let mut command = downlink(&arguments);
        command.stdin(Stdio::piped());
        let mut publishing = Running::start(command);
        let mut stdin = publishing.stdin.take().expect("piped");
        let reader = subscriber(&server, format, "2");
        stdin.write_all(first.as_bytes()).expect("read");
        assert!(reader.stdout.next().contains(r#""data":"1""#));
        stdin.write_all(second.as_bytes()).expect("read");
        assert!(reader.stdout.next().contains(r#""data":"2""#));
        drop(stdin);
        let published = publishing.ended();
        assert_eq!(published.code, Some(0), "{}", published.stderr);
        assert!(published.stdout.starts_with("{\"id\":\""), "{}", published.stdout);
        assert_eq!(reader.ended().code, Some(0));
    }
}

#[test]
fn a_refused_stream_ends_without_waiting_for_stdin() {
    let server = Server::start(&[]);
    let arguments = ["publish", "--url", &server.url, "-t", "a", "--stream", "ndjson"];
    let mut command = downlink(&arguments);
    command.stdin(Stdio::piped());
    let mut publishing = Running::start(command);
    let mut stdin = publishing.stdin.take().expect("piped");
    stdin.write_all(b"1\n{\n").expect("read");
    let ended = publishing.ended();
    drop(stdin);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("Event 2 of the stream: A line is not JSON"), "{}", ended.stderr);
    assert!(ended.stderr.contains("Published: 1"), "{}", ended.stderr);
}

#[test]
fn errors_are_one_line_each() {
    let server = Server::start(&[]);
    // This port was free a moment ago, and no server listens on it.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", nobody.local_addr().expect("bound"));
    drop(nobody);
    for (arguments, says) in [
        (vec!["--url", &*server.url, "x"], "no recipient: give --topic"),
        (vec!["--url", &*server.url, "-t", "a//b", "x"], "\"a//b\" is not a topic"),
        (vec!["--url", "nonsense", "-t", "a", "x"], "nonsense is not the address of a server"),
        (vec!["--url", &*address, "-t", "a", "x"], "did not get through"),
    ] {
        let ended = run(downlink(&[&["publish"], &*arguments].concat()), "");
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
        assert!(ended.stderr.starts_with("downlink: "), "{}", ended.stderr);
        assert!(ended.stderr.contains(says), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
    let ended = run(downlink(&["publish", "--url", &server.url, "-t", "a"]), b"\xff");
    assert!(ended.stderr.contains("cannot read stdin as UTF-8"), "{}", ended.stderr);
    let both = ["publish", "-t", "a", "--stream", "ndjson", "data"];
    assert_eq!(run(downlink(&both), "").code, Some(2));
}
