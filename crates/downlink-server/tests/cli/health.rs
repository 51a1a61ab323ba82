//! Tests of `downlink health`. The tests of the store check it against a server that is not ready.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

#[cfg(unix)]
use crate::{Running, listening::Folder, production};
use crate::{Server, downlink, run};

#[test]
fn a_server_that_is_ready_gives_exit_code_0() {
    let server = Server::start(&[]);
    let ready = run(downlink(&["health", &server.url]), "");
    assert_eq!((ready.code, &*ready.stdout), (Some(0), "ready\n"), "{}", ready.stderr);
    let alive = run(downlink(&["health", "--live", &server.url]), "");
    assert_eq!((alive.code, &*alive.stdout), (Some(0), "ok\n"), "{}", alive.stderr);
    let mut by_variable = downlink(&["health"]);
    by_variable.env("DOWNLINK_URL", &server.url);
    assert_eq!(run(by_variable, "").code, Some(0));
}

/// A container sets proxy variables for other programs. The check is about the server itself.
#[test]
fn a_proxy_from_the_environment_is_not_used() {
    let server = Server::start(&[]);
    let mut health = downlink(&["health", &server.url]);
    health.env("http_proxy", "http://127.0.0.1:9").env("ALL_PROXY", "http://127.0.0.1:9");
    assert_eq!(run(health, "").code, Some(0));
}

/// A container without a system has no certificates.
#[test]
fn a_check_without_tls_needs_no_certificates() {
    let server = Server::start(&[]);
    let mut health = downlink(&["health", &server.url]);
    health.env("SSL_CERT_FILE", "/nowhere/file").env("SSL_CERT_DIR", "/nowhere");
    let ended = run(health, "");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[cfg(unix)]
#[test]
fn a_server_on_a_unix_socket_is_checked_without_a_key() {
    let folder = Folder::new("health");
    let url = format!("unix:{}", folder.path("a.sock").display());
    let server = Running::start(production(&folder, &["--listen", &url]));
    assert!(server.stdout.next().ends_with(&url));
    let ready = run(downlink(&["health", &url]), "");
    assert_eq!((ready.code, &*ready.stdout), (Some(0), "ready\n"), "{}", ready.stderr);
    server.signal("TERM");
    assert_eq!(server.ended().code, Some(0));
    let gone = run(downlink(&["health", &url]), "");
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains(&format!("no answer from {url}")), "{}", gone.stderr);
}

#[test]
fn an_address_without_a_server_gives_exit_code_1() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let refused = run(downlink(&["health", &url]), "");
    assert_eq!((refused.code, &*refused.stdout), (Some(1), ""));
    assert!(refused.stderr.starts_with(&format!("downlink: no answer from {url}: ")));
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    let nonsense = run(downlink(&["health", "nonsense"]), "");
    assert_eq!(nonsense.code, Some(2), "{}", nonsense.stderr);
}

/// Another program may listen at the address. The command must not trust it, and must end.
#[test]
fn an_endless_answer_of_another_program_ends_the_check() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let program = thread::spawn(move || {
        let (mut io, _) = listener.accept().expect("a connection");
        let _ = io.read(&mut [0; 4_096]);
        let mut sent = io.write_all(b"HTTP/1.1 404 Not Found\r\n\r\nnot a downlink server\n");
        while sent.is_ok() {
            sent = io.write_all(&[b'x'; 4_096]);
        }
    });
    let refused = run(downlink(&["health", &url]), "");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("answers /readyz with 404: not a downlink server\n"),
        "{}",
        refused.stderr
    );
    program.join().expect("the program ends");
}
