//! The header `Host`. An attacker can make another host name resolve to the address of the server.
//! A page from this host name can then send requests to the server. The browser treats them as
//! requests to the origin of the page, so the page can read the answers.

use crate::{
    program::{Folder, Program},
    request::{Place, Request},
    site::Site,
};

/// Asserts that a listener refuses this host on all paths except those of health checks.
async fn assert_denied(listener: &Place, host: &str) {
    for request in [
        Request::get("/events?topic=rooms/1"),
        Request::post("/events?topic=rooms/1", "x"),
        Request::get("/downlink.js"),
        Request::get("/metrics"),
        Request::new("OPTIONS", "/events")
            .header("Origin", format!("http://{host}"))
            .header("Access-Control-Request-Method", "POST"),
    ] {
        let answer = request.clone().host(host).ask(listener).await;
        assert_eq!(answer.outcome(), "403 host_denied", "{request:?} for {host}");
    }
    assert_eq!(Request::get("/healthz").host(host).ask(listener).await.status, 200);
}

const FOREIGN: [&str; 4] =
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1"];

#[tokio::test]
async fn each_listener_on_loopback_refuses_foreign_hosts() {
    let two = Site::start(&[]);
    let socket = Folder::new();
    let socket = format!("unix:{}", socket.file("admin.sock"));
    let with_socket = Site::of(&["--listen", "127.0.0.1:0", "--admin-listen", &socket]);
    let one = Site::of(&["--listen", "127.0.0.1:0"]);
    let development = Program::start(&["dev", "--listen", "127.0.0.1:0", "--store", "none"]);
    for host in FOREIGN {
        for listener in
            [two.public(), two.admin(), with_socket.admin(), one.public(), &development.public]
        {
            assert_denied(listener, host).await;
        }
    }
}

#[tokio::test]
async fn the_admin_listener_refuses_foreign_hosts_even_if_the_public_listener_accepts_every_host() {
    let site = Site::of(&["--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0"]);
    for host in FOREIGN {
        assert_denied(site.admin(), host).await;
        let answer = Request::get("/downlink.js").host(host).ask(site.public()).await;
        assert_eq!(answer.status, 200, "{host}");
    }
}

#[tokio::test]
async fn the_host_names_of_the_settings_are_accepted_on_a_loopback_address() {
    let flags = ["--public-url", "https://push.example/live", "--host", "events.example:81"];
    let site = Site::start(&flags);
    for (host, expected) in [
        ("push.example", 200),
        ("PUSH.example:8443", 200),
        ("events.example:81", 200),
        ("events.example", 403),
        ("localhost:1", 200),
        ("[::1]:8080", 200),
    ] {
        let answer = Request::get("/downlink.js").host(host).ask(site.public()).await;
        assert_eq!(answer.status, expected, "{host}");
    }
    assert_denied(site.public(), "other.example").await;
}

#[tokio::test]
async fn a_request_with_two_host_headers_is_refused() {
    let site = Site::start(&[]);
    let request = Request::get("/events?topic=rooms/1").bearer(&site.keys.user("ada"));
    let answer = request.header("Host", "evil.example").ask(site.public()).await;
    assert_eq!(answer.status, 400);
}
