//! `downlink serve`: the greeting, the address, the log, and signals.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
};

use crate::{PATIENCE, Running, Server, downlink, run};

/// Opens a stream at the server.
fn open_stream(server: &Server) -> TcpStream {
    let mut io = TcpStream::connect(server.address()).expect("listening");
    io.set_read_timeout(Some(PATIENCE)).expect("a socket");
    write!(io, "GET /events?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("open");
    read_until(&mut io, "downlink.open");
    io
}

fn read_until(io: &mut TcpStream, text: &str) -> String {
    let mut seen = String::new();
    let mut bytes = [0; 4_096];
    while !seen.contains(text) {
        let read = io.read(&mut bytes).expect("open");
        assert!(read > 0, "ended without {text:?}: {seen:?}");
        seen.push_str(std::str::from_utf8(&bytes[..read]).expect("UTF-8"));
    }
    seen
}

#[test]
fn the_commands_of_the_greeting_work_when_pasted() {
    let server = Server::start(&[]);
    let command = |name: &str| {
        let line = server.greeting.iter().find_map(|line| line.trim().strip_prefix(name));
        line.expect("in the greeting").trim().to_owned()
    };
    let (subscribe, publish) = (command("subscribe:"), command("publish:"));
    if !Command::new("curl").arg("--version").output().is_ok_and(|found| found.status.success()) {
        // Without curl, the test publishes with the program instead.
        server.publish("news", "hello");
        return;
    }
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]);
        command
    };
    let reader = Running::start(shell(&subscribe.replace("curl", "exec curl -s --max-time 60")));
    assert_eq!(reader.stdout.next(), ": connected");
    let answer = run(shell(&publish.replace("curl", "curl -s")), "");
    assert!(answer.stdout.ends_with(",\"subscribers\":1}"), "{}", answer.stdout);
    while reader.stdout.next() != "data: hello" {}
}

#[test]
fn an_address_in_use_is_said_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let refused = run(downlink(&["--listen", &address]), "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("is in use by another program"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--listen 127.0.0.1:"), "{}", refused.stderr);
    let elsewhere = run(downlink(&["--listen", "192.0.2.1:8080", "--anonymous", "publish"]), "");
    assert_eq!(elsewhere.code, Some(1));
    assert!(elsewhere.stderr.contains("not an address of this machine"), "{}", elsewhere.stderr);
    let open = run(downlink(&["--listen", "0.0.0.0:0"]), "");
    assert_eq!(open.code, Some(1));
    assert!(open.stderr.contains("--anonymous subscribe,publish"), "{}", open.stderr);
}

#[test]
fn streams_end_in_order_at_a_signal() {
    for signal in ["TERM", "INT"] {
        let server = Server::start(&["--drain-within", "20s"]);
        let mut stream = open_stream(&server);
        server.running.signal(signal);
        let end = read_until(&mut stream, "\r\n0\r\n\r\n");
        assert!(end.contains("retry: "), "{end}");
        let ended = server.running.ended();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("shutting down"), "{}", ended.stderr);
    }
}

#[test]
fn a_drain_ends_in_its_time_whatever_peers_do() {
    let server = Server::start(&["--drain-within", "100ms"]);
    let _half = half_a_request(&server);
    server.running.signal("TERM");
    assert_eq!(server.running.ended().code, Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let server = Server::start(&["--drain-within", "1h", "--body-timeout", "1h"]);
    let _half = half_a_request(&server);
    server.running.signal("TERM");
    while !server.running.stderr.next().contains("shutting down") {}
    server.running.signal("INT");
    assert_eq!(server.running.ended().code, Some(130));
}

/// A request whose body has not arrived. The server is waiting for it.
fn half_a_request(server: &Server) -> TcpStream {
    let mut io = TcpStream::connect(server.address()).expect("listening");
    let head = "POST /events?topic=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
                Expect: 100-continue\r\n\r\n";
    io.write_all(head.as_bytes()).expect("open");
    // The server asks for the body, so the request is in progress.
    read_until(&mut io, "100 Continue");
    io
}

#[test]
fn the_log_has_each_request_on_demand_and_escaped() {
    let mut command = downlink(&["--listen", "127.0.0.1:0"]);
    command.env("DOWNLINK_LOG", "downlink_server=debug");
    let server = Server::of(command);
    let mut io = TcpStream::connect(server.address()).expect("listening");
    write!(io, "PUT /a%1b\"b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("open");
    let line = server.running.stderr.next();
    for part in ["answered", "method=PUT", r#"path="/a%1b\"b""#, "status=404"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!line.contains('\u{1b}'), "{line:?}");
    let mut command = downlink(&["--listen", "127.0.0.1:0"]);
    command.env("DOWNLINK_LOG", "downlink=loud");
    let refused = run(command, "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("DOWNLINK_LOG"), "{}", refused.stderr);
}
