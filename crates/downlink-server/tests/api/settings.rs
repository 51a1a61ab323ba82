//! Tests of the settings that control access: `--anonymous`, `--host` and `--listen`.

use clap::Parser;

use crate::{Flags, Server};

fn check(flags: &[&str]) -> Result<(), String> {
    let flags = Flags::parse_from([&["downlink"], flags].concat());
    flags.settings.check().map_err(|error| error.to_string())
}

#[test]
fn listening_beyond_this_machine_needs_the_flag_anonymous() {
    for address in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80"] {
        let refused = check(&["--listen", address]).unwrap_err();
        assert!(refused.contains("--anonymous subscribe,publish"), "{refused}");
        assert!(refused.contains(address), "{refused}");
        assert_eq!(check(&["--listen", address, "--anonymous", "subscribe"]), Ok(()));
    }
    assert_eq!(check(&["--listen", "[::1]:80"]), Ok(()));
}

#[tokio::test]
async fn anonymous_readers_may_not_publish() {
    let server = Server::with(&["--anonymous", "subscribe"]).await;
    let _stream = server.subscribe("topic=a").await;
    for (method, path) in [
        ("POST", "/events?topic=a"),
        ("POST", "/events/batch"),
        ("POST", "/finish?topic=a"),
        ("DELETE", "/clients?client=a"),
    ] {
        let answer = server.ask(method, path, "", "x").await;
        assert!(answer.problem(403).contains("started without --anonymous publish."));
    }
    assert_eq!(server.hub.stats().published, 0);
    assert_eq!(server.get("/topics").await.status, 200);
}

#[tokio::test]
async fn anonymous_publishers_may_not_read() {
    let server = Server::with(&["--anonymous", "publish"]).await;
    server.publish("topic=a", "x").await;
    for path in ["/", "/events?topic=a", "/topics", "/clients", "/metrics"] {
        let answer = server.get(path).await;
        assert!(answer.problem(403).contains("started without --anonymous subscribe."));
    }
    assert_eq!(server.get("/healthz").await.status, 200);
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn the_flag_host_allows_other_hosts() {
    let server = Server::with(&["--host", "push.example,other.example:8443"]).await;
    let ask = async |host: &str| {
        let request = format!("GET /topics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        crate::answer::status_of(&server.exchange(request.as_bytes()).await)
    };
    for host in ["push.example", "PUSH.example:8080", "other.example:8443", "127.0.0.1"] {
        assert_eq!(ask(host).await, 200, "{host}");
    }
    for host in ["push.example.evil", "other.example", "other.example:1", "evil.example"] {
        assert_eq!(ask(host).await, 403, "{host}");
    }
}
