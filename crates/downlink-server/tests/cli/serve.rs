//! Tests of a running server: the greeting that it prints, its address, its log and signals. The
//! first signal starts a graceful shutdown, which is called a drain.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
};

use crate::{PATIENCE, Running, Server, downlink, run};
#[cfg(unix)]
use crate::{listening::Folder, production, through_a_shell};

/// Opens a stream at the server.
fn open_stream(server: &Server) -> TcpStream {
    let mut io = TcpStream::connect(server.address()).expect("the server listens");
    io.set_read_timeout(Some(PATIENCE)).expect("a socket");
    write!(io, "GET /events?topic=a HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("the connection is open");
    read_until(&mut io, "downlink.open");
    io
}

fn read_until(io: &mut TcpStream, text: &str) -> String {
    let mut seen = String::new();
    let mut bytes = [0; 4_096];
    while !seen.contains(text) {
        let read = io.read(&mut bytes).expect("the connection is open");
        assert!(read > 0, "ended without {text:?}: {seen:?}");
        seen.push_str(std::str::from_utf8(&bytes[..read]).expect("UTF-8"));
    }
    seen
}

/// Runs the two curl commands of a greeting in this folder. The event must arrive.
pub(crate) fn assert_commands_work(greeting: &[String], folder: &Path) {
    let command = |name: &str| {
        let line = greeting.iter().find_map(|line| line.trim().strip_prefix(name));
        line.expect("the greeting has the command").trim().to_owned()
    };
    let (subscribe, publish) = (command("subscribe:"), command("publish:"));
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(folder);
        command
    };
    let reader = Running::start(shell(&subscribe.replace("curl", "exec curl -s --max-time 60")));
    assert_eq!(reader.stdout.next(), ": connected", "{subscribe}");
    let answer = run(shell(&publish.replace("curl", "curl -s")), "");
    assert!(answer.stdout.ends_with(",\"subscribers\":1}\n"), "{publish}: {}", answer.stdout);
    while reader.stdout.next() != "data: hello" {}
}

/// Whether curl is installed. The tests of the greeting need it.
pub(crate) fn has_curl() -> bool {
    let curl = Command::new("curl").arg("--version").stdout(Stdio::null()).status();
    curl.is_ok_and(|status| status.success())
}

#[test]
fn the_commands_in_the_greeting_of_a_development_server_work() {
    let server = Server::start(&[]);
    assert!(server.greeting[1].contains("every program on this machine may do everything"));
    assert!(server.greeting.contains(&format!("  page:       {}/", server.url)));
    if has_curl() {
        assert_commands_work(&server.greeting, Path::new("."));
    }
    server.publish("news", "hello");
}

#[test]
fn errors_about_the_address_say_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("the listener is bound").to_string();
    let refused = run(downlink(&["--listen", &address]), "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("is in use by another program"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--listen 127.0.0.1:"), "{}", refused.stderr);
}

/// A proxy can forward the requests of strangers to a Unix socket, so a development server refuses
/// a Unix socket too.
#[test]
fn a_development_server_listens_only_on_loopback_addresses() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8080", "unix:/run/downlink.sock"] {
        for command in [&["dev"][..], &[]] {
            let refused = run(downlink(&[command, &["--listen", listen]].concat()), "");
            assert_eq!((refused.code, &*refused.stdout), (Some(78), ""), "{listen}");
            let advice = format!("not on {listen}: start downlink serve");
            assert!(refused.stderr.contains(&advice), "{}", refused.stderr);
        }
    }
    let started = Server::of(downlink(&["dev", "--listen", "127.0.0.1:0"]));
    started.publish("a", "x");
}

#[test]
fn a_signal_ends_the_bodies_of_streams_and_then_the_server() {
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

/// If the test runs under `nohup`, its child processes ignore SIGHUP too. So the server is started
/// through `env`, which restores the default action of SIGHUP.
#[cfg(target_os = "linux")]
#[test]
fn a_closed_terminal_starts_the_drain() {
    let command = downlink(&["--listen", "127.0.0.1:0", "--drain-within", "20s"]);
    let script = "exec env --default-signal=HUP \"$@\"";
    let server = Server::of(through_a_shell(&command, script));
    let mut stream = open_stream(&server);
    server.running.signal("HUP");
    let end = read_until(&mut stream, "\r\n0\r\n\r\n");
    assert!(end.contains("retry: "), "{end}");
    assert_eq!(server.running.ended().code, Some(0));
}

#[cfg(unix)]
#[test]
fn a_server_under_nohup_ignores_sighup() {
    let command = downlink(&["--listen", "127.0.0.1:0"]);
    let server = Server::of(through_a_shell(&command, "trap '' HUP; exec \"$@\""));
    server.running.signal("HUP");
    // If SIGHUP had begun a drain, SIGTERM would be the second signal, which ends the server with
    // code 130.
    server.running.signal("TERM");
    assert_eq!(server.running.ended().code, Some(0));
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let server = Server::start(&["--drain-within", "100ms"]);
    let _half = half_a_request(&server);
    server.running.signal("TERM");
    assert_eq!(server.running.ended().code, Some(0));
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let server = Server::start(&["--drain-within", "1h", "--body-timeout", "1h"]);
    let _half = half_a_request(&server);
    server.running.signal("TERM");
    while !server.running.stderr.next().contains("shutting down") {}
    server.running.signal("INT");
    assert_eq!(server.running.ended().code, Some(130));
}

/// Sends the head of a request, but not the body. Returns when the server waits for the body.
fn half_a_request(server: &Server) -> TcpStream {
    let mut io = TcpStream::connect(server.address()).expect("the server listens");
    let head = "POST /events?topic=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
                Expect: 100-continue\r\n\r\n";
    io.write_all(head.as_bytes()).expect("the connection is open");
    // With this answer, the server asks for the body, so the request is in progress.
    read_until(&mut io, "100 Continue");
    io
}

#[test]
fn the_log_has_each_request_with_an_escaped_path() {
    let mut command = downlink(&["--listen", "127.0.0.1:0"]);
    command.env("DOWNLINK_LOG", "access=info");
    let server = Server::of(command);
    let mut io = TcpStream::connect(server.address()).expect("the server listens");
    write!(io, "PUT /a%1b\"b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("the connection is open");
    let line = server.running.stderr.next();
    for part in ["access: request", r#"method="PUT""#, r#"path="/a%1b\"b""#, "status=404"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!line.contains('\u{1b}'), "{line:?}");
    let mut command = downlink(&["--listen", "127.0.0.1:0"]);
    command.env("DOWNLINK_LOG", "downlink=loud");
    let refused = run(command, "");
    assert_eq!(refused.code, Some(78));
    assert!(refused.stderr.contains("--log <LEVEL>"), "{}", refused.stderr);
}

/// The command of a server with a store.
#[cfg(unix)]
fn with_store(listen: &str, store: &Path, more: &[&str]) -> Command {
    let store = store.to_str().expect("UTF-8");
    downlink(&[&["--listen", listen, "--store", store], more].concat())
}

/// The command of a production server on a Unix socket. The server waits for an hour if its store
/// is not free.
#[cfg(unix)]
fn waiting_for_its_store(folder: &Folder, socket: &Path, store: &Path) -> Command {
    let listen = format!("unix:{}", socket.display());
    let mut command = production(folder, &["--listen", &listen, "--store-wait", "1h", "--store"]);
    command.arg(store);
    command
}

/// If the address is in use, the server must not start, and must not create a store. A second
/// server may have the address and the store of a running server. Then it must fail because of the
/// address, and must not wait for the store.
#[cfg(unix)]
#[test]
fn a_server_fails_because_of_its_address_before_it_opens_the_store() {
    let folder = Folder::new("no-store");
    let path = folder.path("a.db");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("the listener is bound").to_string();
    let refused = run(with_store(&address, &path, &[]), "");
    assert!(refused.stderr.contains("is in use by another program"), "{}", refused.stderr);
    assert!(!path.exists(), "the failed start has created a store");
    let running = Server::of(with_store("127.0.0.1:0", &path, &[]));
    // If this server waited for the store, it would wait for an hour, and the test would fail.
    let second = run(with_store(running.address(), &path, &["--store-wait", "1h"]), "");
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("is in use by another program"), "{}", second.stderr);
}

#[cfg(unix)]
#[test]
fn clients_can_connect_while_the_server_waits_for_its_store() {
    let folder = Folder::new("waiting");
    let path = folder.path("a.db");
    let first = Server::of(with_store("127.0.0.1:0", &path, &[]));
    let socket = folder.path("b.sock");
    let second = Running::start(waiting_for_its_store(&folder, &socket, &path));
    let line = second.stderr.next();
    assert!(line.contains("a.db; waiting up to 3600s"), "{line}");
    let mut early = std::os::unix::net::UnixStream::connect(&socket).expect("the server listens");
    early.set_read_timeout(Some(PATIENCE)).expect("a socket");
    early
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("the connection is open");
    first.running.signal("TERM");
    assert!(second.stdout.next().contains("listening on"));
    let mut answer = String::new();
    early.read_to_string(&mut answer).expect("an answer in UTF-8");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_server_that_waits_for_its_store() {
    let folder = Folder::new("ends");
    let path = folder.path("a.db");
    let _first = Server::of(with_store("127.0.0.1:0", &path, &[]));
    let socket = folder.path("b.sock");
    let second = Running::start(waiting_for_its_store(&folder, &socket, &path));
    second.stderr.next();
    assert!(socket.exists());
    second.signal("TERM");
    let ended = second.ended();
    assert_eq!((ended.code, &*ended.stdout), (Some(0), ""));
    assert!(!socket.exists(), "the server removes the file of its socket");
}

/// The server reserves some file descriptors for uses other than connections. With a limit of 256
/// descriptors, it reserves half of them.
#[cfg(unix)]
#[test]
fn connections_max_above_the_limit_of_descriptors_is_an_error() {
    let limited = |connections: &str| {
        let command = downlink(&["--listen", "127.0.0.1:0", "--connections-max", connections]);
        through_a_shell(&command, "ulimit -n 256 && exec \"$@\"")
    };
    let refused = run(limited("129"), "");
    assert_eq!((refused.code, &*refused.stdout), (Some(78), ""));
    for part in ["--connections-max 129", "allows 128 connections", "LimitNOFILE"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    let greeting = Server::of(limited("128")).greeting.join("\n");
    assert!(greeting.ends_with("up to 128 connections"), "{greeting}");
}
