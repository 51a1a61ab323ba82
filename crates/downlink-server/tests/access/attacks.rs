//! Attacks that succeeded against earlier versions of the server. Each test makes one attack, which
//! must have no effect.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, http::StatusCode, routing::post};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    answer::Answer,
    credentials::{ROOMS, Signer, claims},
    disk::Disk,
    patiently,
    program::{Folder, Program},
    request::{Place, Request},
    site::Site,
};

fn tickets() -> Request {
    Request::post("/tickets?topic=rooms/1", "")
}

/// A reader has no right to issue tickets. The refused attempts of a reader must not count towards
/// the limit of the app that issued the ticket of the reader. They must also not count towards the
/// limits of other users whose tokens have the same key.
#[tokio::test]
async fn a_reader_cannot_use_up_the_tickets_of_others() {
    let site = Site::start(&["--tickets-per-key", "2/h"]);
    let ticket = site.ticket("topic=rooms/*&client=eve").await;
    let reader = claims(Some("eve"), json!({ "subscribe": [ROOMS] }));
    let reader = site.keys.token(Signer::Es256, &reader);
    for _ in 0..3 {
        let with_ticket = Request::post(format!("/tickets?topic=rooms/1&ticket={ticket}"), "");
        assert_eq!(with_ticket.ask(site.public()).await.outcome(), "403 right_missing");
        let with_token = tickets().bearer(&reader).ask(site.public()).await;
        assert_eq!(with_token.outcome(), "403 right_missing");
    }
    site.ticket("topic=rooms/1").await;
    for expected in ["200", "200", "429 too_many_requests"] {
        assert_eq!(site.outcome_as("ada", tickets()).await, expected);
    }
    assert_eq!(site.outcome_as("bob", tickets()).await, "200", "each user has its own limit");
}

/// A user begins a publish, and sends the last bytes of the body after the rights of the user are
/// revoked.
#[tokio::test]
async fn a_publish_with_a_slow_body_is_refused_after_a_revocation() {
    let site = Site::start(&[]);
    let mut slow = Request::post("/events?topic=rooms/1", "").bearer(&site.keys.user("ada"));
    slow.body = "la".into();
    let Place::Tcp(address) = site.public() else { panic!("the public listener is on TCP") };
    let mut io = tokio::net::TcpStream::connect(address).await.expect("the server listens");
    // The server sends `100 Continue` when it has checked the rights and begins to read the body.
    let head = slow
        .text(site.public(), "Connection: close\r\nExpect: 100-continue\r\nContent-Length: 4\r\n");
    io.write_all(head.split_inclusive("\r\n\r\n").next().expect("a head").as_bytes())
        .await
        .expect("the connection is open");
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        assert!(patiently(io.read_buf(&mut read)).await.expect("the connection is open") > 0);
    }
    assert_eq!(read, b"HTTP/1.1 100 Continue\r\n\r\n");
    io.write_all(b"la").await.expect("the connection is open");
    site.revoke("client=ada").await;
    io.write_all(b"te").await.expect("the connection is open");
    let mut answer = String::new();
    patiently(io.read_to_string(&mut answer)).await.expect("UTF-8");
    assert_eq!(Answer::parse(&answer).outcome(), "401 revoked");
    assert_eq!(site.events("rooms/1").await, 0);
}

/// The test starts a second server with the same store, which must fail, and another server with
/// its own store in the same folder. These servers must not replace the file to which the first
/// server appends its revocations.
#[tokio::test]
async fn other_servers_do_not_replace_the_file_of_revocations() {
    let mut site = Site::start(&[]);
    let second = Command::new(env!("CARGO_BIN_EXE_downlink"))
        .args(["serve", "--listen", "127.0.0.1:0", "--store", &site.folder.file("downlink.db")])
        .args(site.keys.flags.iter().chain(&site.keys.token_flags))
        .env("DOWNLINK_LOG", "error")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("the program starts");
    assert!(!second.success(), "two servers have opened the same store");
    site.revoke("client=ada").await;
    let other = site.folder.file("other.db");
    let _other = Program::start(&["serve", "--listen", "127.0.0.1:0", "--store", &other]);
    site.revoke("client=bob").await;
    site.kill();
    site.start_again();
    for client in ["ada", "bob"] {
        let rooms = Request::get("/events?topic=rooms/1");
        assert_eq!(site.outcome_as(client, rooms).await, "401 revoked", "{client}");
    }
}

/// On a full disk, the server may write only the beginning of a revocation. The next revocation
/// must not continue this incomplete line. Otherwise, the file would be damaged, and the server
/// would not start again.
#[tokio::test]
async fn a_full_disk_does_not_damage_the_file_of_revocations() {
    let folder = Folder::new();
    let at = folder.file("disk");
    let Some(disk) = Disk::mount(at.into(), 4 << 20, "a_full_disk_does_not_damage") else { return };
    let mut site = Site::in_folder(
        Folder::at(disk.file("site")),
        &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
    );
    // The first revocation is written while the disk has room, so that the file already has a block
    // of the disk.
    site.revoke("client=first").await;
    let filler = disk.file("filler");
    let _ = fs::write(&filler, vec![0; 8 << 20]);
    let long = "c".repeat(200);
    let refused = loop {
        let answer = site.operate(Request::post(format!("/revoke?client={long}"), "")).await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!(refused.status, 507, "{refused:?}");
    fs::remove_file(filler).expect("the file exists");
    site.revoke("client=ada").await;
    site.kill();
    site.start_again();
    let rooms = Request::get("/events?topic=rooms/1");
    assert_eq!(site.outcome_as("ada", rooms.clone()).await, "401 revoked");
    assert_eq!(site.outcome_as("bob", rooms).await, "200");
}

/// Starts an app that refuses every user. Returns the URL of the app, and the number of questions
/// that the app got.
async fn strict_app() -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let refuse = move || async move {
        counted.fetch_add(1, Ordering::SeqCst);
        StatusCode::UNAUTHORIZED
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("a bound socket"));
    tokio::spawn(async { axum::serve(listener, Router::new().route("/", post(refuse))).await });
    (url, asked)
}

/// For each invented cookie, the server asks the app. A stranger must not be able to flood the app
/// in this way.
#[tokio::test]
async fn invented_cookies_do_not_flood_the_app() {
    let (url, asked) = strict_app().await;
    let flags = ["--authorize-url", &url, "--authorize-cookie", "sid"];
    let site =
        Site::without_tokens(&[&flags[..], &["--failures-per-address", "1/h,burst:3"]].concat());
    for number in 0..10 {
        let request =
            Request::get("/events?topic=rooms/1").header("Cookie", format!("sid={number}"));
        let expected = if number < 3 { "401 app_unauthenticated" } else { "429 too_many_requests" };
        assert_eq!(request.ask(site.public()).await.outcome(), expected, "{number}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

/// The requests of an app and of a stranger may have the same address, for example behind a proxy.
/// The failures of the stranger must not keep the app from publishing.
#[tokio::test]
async fn the_failures_of_a_stranger_do_not_lock_out_an_app() {
    let site = Site::start(&["--failures-per-address", "1/h"]);
    let bad = Request::get("/events?topic=rooms/1").bearer("a-guess");
    assert_eq!(bad.ask(site.public()).await.outcome(), "401 key_unknown");
    assert_eq!(bad.ask(site.public()).await.outcome(), "429 too_many_requests");
    // The admin listener has no limits for each address.
    assert_eq!(bad.ask(site.admin()).await.outcome(), "401 key_unknown");
    site.publish("topic=rooms/1", "still here").await;
    let on_public = tickets().bearer(&site.keys.publish_key()).ask(site.public()).await;
    assert_eq!(
        on_public.outcome(),
        "429 too_many_requests",
        "the answer does not reveal whether the key is right"
    );

    let site = Site::of(&["--listen", "127.0.0.1:0", "--failures-per-address", "1/h"]);
    assert_eq!(bad.ask(site.public()).await.outcome(), "401 key_unknown");
    assert_eq!(bad.ask(site.public()).await.outcome(), "429 too_many_requests");
    let publish = Request::post("/events?topic=rooms/1", "still here");
    let published = publish.bearer(&site.keys.publish_key()).ask(site.public()).await;
    assert_eq!(published.outcome(), "200");
}

/// `--socket-mode` lets a proxy connect to the public socket. The flag must not let the proxy
/// connect to the admin socket, which gives every right.
#[test]
fn socket_mode_does_not_let_other_users_connect_to_the_admin_socket() {
    let folder = Folder::new();
    let (public, admin) = (folder.file("public.sock"), folder.file("admin.sock"));
    let (listen, admin_listen) = (format!("unix:{public}"), format!("unix:{admin}"));
    let store = folder.file("downlink.db");
    let _program = Program::start(&[
        "serve",
        "--store",
        &store,
        "--listen",
        &listen,
        "--admin-listen",
        &admin_listen,
        "--socket-mode",
        "666",
    ]);
    let mode = |path: &str| fs::metadata(path).expect("the socket").permissions().mode() & 0o777;
    assert_eq!((mode(&public), mode(&admin)), (0o666, 0o600));
}

/// Behind a TLS proxy, the server has an `https` origin. A page from `http` with the same host name
/// has another origin. Anyone in the network can change such a page, so it must not use the cookies
/// of a user.
#[tokio::test]
async fn a_page_of_another_origin_with_the_same_host_name_cannot_use_cookies() {
    let site = Site::start(&[]);
    let host = site.public().host();
    for fetch_site in ["cross-site", "same-site"] {
        let request = Request::post("/events?topic=rooms/1", "x")
            .header("Origin", format!("http://{host}"))
            .header("Sec-Fetch-Site", fetch_site)
            .header("Cookie", format!("__Host-downlink={}", site.keys.user("ada")));
        let answer = request.ask(site.public()).await;
        assert_eq!(answer.outcome(), "403 origin_denied", "{fetch_site}");
    }
    assert_eq!(site.events("rooms/1").await, 0);
}

/// Servers that start at the same time in an empty folder make only one publish key and one ticket
/// key.
#[test]
fn servers_that_start_together_use_the_same_key_files() {
    for _ in 0..5 {
        let folder = Folder::new();
        let store = |number: u32| folder.file(&format!("{number}.db"));
        std::thread::scope(|scope| {
            for number in 0..4 {
                let store = store(number);
                // `Program::start` panics if the server does not start.
                scope.spawn(move || {
                    Program::start(&["serve", "--listen", "127.0.0.1:0", "--store", &store])
                });
            }
        });
        let left: Vec<_> = fs::read_dir(folder.path()).expect("the folder").collect();
        let is_key = |name: &str| name.ends_with(".key") || name.ends_with(".new");
        let keys = left.into_iter().map(|entry| entry.expect("an entry").file_name());
        let keys = keys.filter(|name| is_key(&name.to_string_lossy())).count();
        assert_eq!(keys, 2);
    }
}

/// The server must start with a key file that everyone can read, because a container may have only
/// one user. But the server must log a warning.
#[test]
fn a_key_file_that_everyone_can_read_or_write_causes_a_warning() {
    let folder = Folder::new();
    let key = folder.file("downlink-publish.key");
    let warned = |mode: u32| {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("the file exists");
        // The server reads the keys, and then ends with an error because of `--connections-max`.
        let refused = Command::new(env!("CARGO_BIN_EXE_downlink"))
            .args(["serve", "--listen", "127.0.0.1:0", "--store", &folder.file("downlink.db")])
            .args(["--connections-max", "1000000000"])
            .output()
            .expect("the program starts");
        let told = String::from_utf8(refused.stderr).expect("UTF-8");
        assert!(told.contains("--connections-max"), "{told}");
        told.contains("every user of this machine") && told.contains("downlink-publish.key")
    };
    drop(Program::start(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--store",
        &folder.file("downlink.db"),
    ]));
    assert!(!warned(0o600) && !warned(0o640));
    assert!(warned(0o644) && warned(0o602));
}

/// A finished topic counts towards the server's limit of topics. Without a limit of finished
/// topics, a user could use up the limit of topics.
#[tokio::test]
async fn finished_topics_count_as_publishes() {
    let site = Site::of(&["--listen", "127.0.0.1:0", "--publishes-per-address", "1/h,burst:4"]);
    let finish = |number: u32| Request::post(format!("/finish?topic=rooms/{number}"), "");
    for number in 0..2 {
        assert_eq!(site.outcome_as("ada", finish(number)).await, "200");
    }
    let stream = Request::post("/events?topic=rooms/3&topic=rooms/4&finish_on_end", "");
    let stream = stream.header("Content-Type", "text/event-stream");
    assert_eq!(site.outcome_as("ada", stream.clone()).await, "200");
    for request in [finish(5), stream] {
        assert_eq!(site.outcome_as("ada", request).await, "429 too_many_requests");
    }
}
