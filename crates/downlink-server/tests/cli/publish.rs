//! Tests of `downlink publish`.

use std::{io::Write as _, process::Stdio};

use crate::{Running, Server, downlink, run};

/// Starts a subscriber that prints `count` events and then ends.
fn subscriber(server: &Server, topic: &str, count: &str) -> Running {
    // With this start, the subscriber gets the events even if it connects after the publish.
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
fn data_comes_from_an_argument_or_stdin() {
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
    assert!(lines[1].starts_with(r#"{"data":"two\nlines","event":"note","id":"my-1""#));
}

/// Runs `downlink publish` with these bytes as its stdin. Returns the data of the events that a
/// subscriber gets.
fn published_from_stdin(server: &Server, topic: &str, flags: &[&str], stdin: &str) -> String {
    let arguments = ["publish", "--url", &server.url, "-t", topic];
    let published = run(downlink(&[&arguments[..], flags].concat()), stdin);
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    let read = subscriber(server, topic, "1").ended();
    let event: serde_json::Value = serde_json::from_str(&read.stdout).expect("JSON");
    event["data"].as_str().expect("a text").to_owned()
}

#[test]
fn the_last_line_end_of_stdin_is_not_part_of_the_data() {
    let server = Server::start(&[]);
    let data = |topic, flags, stdin| published_from_stdin(&server, topic, flags, stdin);
    assert_eq!(data("a", &[], "foo\n"), "foo");
    assert_eq!(data("b", &[], "foo\r\n"), "foo");
    assert_eq!(data("c", &[], "foo\n\n"), "foo\n");
    assert_eq!(data("d", &[], "\n"), "");
    assert_eq!(data("e", &["--keep-line-end"], "foo\n"), "foo\n");
    assert_eq!(data("f", &["foo\n"], ""), "foo\n", "an argument keeps its line end");
}

#[test]
fn an_empty_stdin_is_an_error() {
    let server = Server::start(&[]);
    let refused = run(downlink(&["publish", "--url", &server.url, "-t", "a"]), "");
    assert_eq!((refused.code, &*refused.stdout), (Some(1), ""));
    assert!(refused.stderr.contains("stdin is empty"), "{}", refused.stderr);
    server.publish("a", "");
}

#[test]
fn the_url_may_name_topics() {
    let server = Server::start(&[]);
    let url = format!("{}/events?topic=a&client=c", server.url);
    let published = run(downlink(&["publish", "--url", &url, "x"]), "");
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    assert!(subscriber(&server, "a", "1").stdout.next().contains(r#""data":"x""#));
    let url = format!("{}/events?topic=a&event=note", server.url);
    let refused = run(downlink(&["publish", "--url", &url, "x"]), "");
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("the parameter \"event\""), "{}", refused.stderr);
}

#[test]
fn a_stream_may_keep_its_ids_and_types() {
    let server = Server::start(&[]);
    let publish = |flags: &[&str]| {
        let arguments = ["publish", "--url", &server.url, "-t", "a", "--stream", "event-stream"];
        let stream = "id: own-1\nevent: error\ndata: x\n\nid: own-1\nevent: error\ndata: x\n\n";
        run(downlink(&[&arguments[..], flags].concat()), stream)
    };
    let answer = |ended: &crate::Ended| -> serde_json::Value {
        assert!(ended.stdout.ends_with("}\n"), "{}", ended.stderr);
        serde_json::from_str(&ended.stdout).expect("JSON")
    };
    let dropped = answer(&publish(&["--ids", "drop", "--types", "prefix"]));
    assert_eq!((&dropped["events"], &dropped["repeated"]), (&2.into(), &0.into()), "{dropped}");
    let kept = answer(&publish(&["--ids", "keep", "--types", "drop"]));
    assert_eq!((&kept["events"], &kept["repeated"]), (&1.into(), &1.into()), "{kept}");
    let refused = publish(&["--types", "keep"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("Event 1 of the stream"), "{}", refused.stderr);
    let alone = run(downlink(&["publish", "-t", "a", "--ids", "keep", "x"]), "");
    assert_eq!(alone.code, Some(2), "--ids needs --stream: {}", alone.stderr);
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
        publish(&["--client", "alice", "--client", "bob", "--retry", "1000", "x"]).code,
        Some(0)
    );
    let key = ["--idempotency-key", "k", "-t", "a", "x"];
    assert_eq!(publish(&key).stdout, publish(&key).stdout);
    assert_eq!(publish(&["-t", "a", "--last", "x"]).code, Some(0));
    let refused = publish(&["-t", "a", "x"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("A topic of the event is finished"), "{}", refused.stderr);
}

#[test]
fn events_of_streams_are_published_as_soon_as_they_arrive() {
    let server = Server::start(&[]);
    for (format, first, second) in
        [("event-stream", "data: 1\n\n", "data: 2\n\n"), ("ndjson", "1\n", "2\n")]
    {
        let arguments =
            ["publish", "--url", &server.url, "-t", format, "--stream", format, "--last"];
        let mut command = downlink(&arguments);
        command.stdin(Stdio::piped());
        let mut publishing = Running::start(command);
        let mut stdin = publishing.stdin.take().expect("the stream is piped");
        let reader = subscriber(&server, format, "2");
        stdin.write_all(first.as_bytes()).expect("the program reads stdin");
        assert!(reader.stdout.next().contains(r#""data":"1""#));
        stdin.write_all(second.as_bytes()).expect("the program reads stdin");
        assert!(reader.stdout.next().contains(r#""data":"2""#));
        drop(stdin);
        let published = publishing.ended();
        assert_eq!(published.code, Some(0), "{}", published.stderr);
        assert!(published.stdout.starts_with("{\"events\":2,\"id\":\""), "{}", published.stdout);
        assert_eq!(reader.ended().code, Some(0));
    }
}

#[test]
fn a_refused_stream_ends_before_its_stdin_ends() {
    let server = Server::start(&[]);
    let arguments = ["publish", "--url", &server.url, "-t", "a", "--stream", "ndjson"];
    let mut command = downlink(&arguments);
    command.stdin(Stdio::piped());
    let mut publishing = Running::start(command);
    let mut stdin = publishing.stdin.take().expect("the stream is piped");
    stdin.write_all(b"1\n{\n").expect("the program reads stdin");
    let ended = publishing.ended();
    drop(stdin);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("Event 2 of the stream: A line is not JSON"), "{}", ended.stderr);
    assert!(ended.stderr.contains("Published: 1"), "{}", ended.stderr);
}

#[test]
fn each_error_is_one_line() {
    let server = Server::start(&[]);
    // This listener only finds a free port. After it is dropped, no server listens on the port.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", nobody.local_addr().expect("the listener is bound"));
    drop(nobody);
    for (arguments, says) in [
        (vec!["--url", &*server.url, "-t", "a//b", "x"], "\"a//b\" is not a topic"),
        (vec!["--url", &*address, "-t", "a", "x"], "the connection failed"),
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
    let nobody = run(downlink(&["publish", "x"]), "");
    assert_eq!((nobody.code, &*nobody.stdout), (Some(2), ""));
    assert!(nobody.stderr.contains("no recipient: give --topic"), "{}", nobody.stderr);
}
