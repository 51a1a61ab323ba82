//! Tests of a production server: what strangers (clients without a credential) may do, and the
//! flags `--public` and `--host`.

use crate::{Server, answer::Answer};

/// Asserts that the server asks for a credential.
#[track_caller]
fn assert_needs_a_credential(answer: &Answer) {
    let detail = answer.problem(401);
    assert!(detail.starts_with("The request has no credential"), "{detail}");
    assert!(answer.body.contains(r#""code":"token_missing""#), "{}", answer.body);
    assert_eq!(answer.header("www-authenticate"), Some("bearer"));
}

#[tokio::test]
async fn strangers_may_do_nothing_on_a_production_server() {
    let server = Server::production(&[]).await.without_key();
    for (method, path, body) in [
        ("GET", "/events?topic=a", ""),
        ("POST", "/events?topic=a", "x"),
        ("POST", "/events/batch", r#"{"topic":"a","data":"x"}"#),
        ("POST", "/finish?topic=a", ""),
        ("POST", "/tickets?topic=a", ""),
        ("POST", "/revoke?client=a", ""),
        ("GET", "/topics", ""),
        ("GET", "/topics?topic=a", ""),
        ("GET", "/clients", ""),
        ("DELETE", "/clients?client=a", ""),
        ("GET", "/metrics", ""),
        ("GET", "/", ""),
        ("GET", "/page.js", ""),
    ] {
        let answer = server.ask(method, path, "", body).await;
        if path == "/events/batch" {
            // In the answer to a batch, the detail may begin with the number of a line.
            assert!(answer.body.contains("has no credential"), "{answer:?}");
        } else {
            assert_needs_a_credential(&answer);
        }
    }
    assert_eq!(server.hub.stats().published, 0);
    for path in ["/healthz", "/readyz", "/downlink.js"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_publish_key_publishes_and_subscribes_but_does_not_administer() {
    let server = Server::production(&[]).await;
    let mut stream = server.subscribe("topic=a").await;
    server.publish("topic=a", "x").await;
    assert_eq!(stream.data().await, "x");
    server.publish("client=ada", "x").await;
    server.publish("everyone=1", "y").await;
    server.post("/finish?topic=b", "").await.json();
    server.post("/tickets?topic=a", "").await.json();
    assert_eq!(server.get("/topics").await.status, 200);
    for path in ["/metrics", "/"] {
        let answer = server.get(path).await;
        assert!(answer.problem(403).contains("administration"), "{}", answer.body);
    }
}

#[tokio::test]
async fn strangers_may_subscribe_to_public_topics_but_not_publish() {
    let server = Server::production(&["--public", "news;rooms/{room}/lines"]).await;
    let key = server.credential.clone();
    let server = server.without_key();
    let mut stream = server.subscribe("topic=news&topic=rooms/7/lines").await;
    for query in ["topic=news&topic=private", "topic=rooms/*", "topic=news&client=ada"] {
        let answer = server.get(&format!("/events?{query}")).await;
        assert!([401, 403].contains(&answer.status), "{query}: {answer:?}");
    }
    assert_needs_a_credential(&server.post("/events?topic=news", "x").await);
    let answer = server.ask("POST", "/events?topic=rooms/7/lines", &key, "hello").await;
    answer.json();
    assert_eq!(stream.data().await, "hello");
}

#[tokio::test]
async fn a_wrong_key_is_refused_even_for_a_public_topic() {
    let server = Server::production(&["--public", "news"]).await.without_key();
    let wrong = format!("Authorization: Bearer {}\r\n", "k".repeat(40));
    let answer = server.ask("GET", "/events?topic=news", &wrong, "").await;
    assert_eq!(answer.status, 401, "{answer:?}");
    assert!(answer.body.contains(r#""code":"key_unknown""#), "{}", answer.body);
}

#[tokio::test]
async fn the_flag_host_allows_other_hosts() {
    let server = Server::production(&["--host", "push.example,other.example:8443"]).await;
    let ask = async |host: &str| {
        let request = format!(
            "GET /topics HTTP/1.1\r\nHost: {host}\r\n{}Connection: close\r\n\r\n",
            server.credential
        );
        crate::answer::status_of(&server.exchange(request.as_bytes()).await)
    };
    for host in ["push.example", "PUSH.example:8080", "other.example:8443", "127.0.0.1"] {
        assert_eq!(ask(host).await, 200, "{host}");
    }
    for host in ["push.example.evil", "other.example", "other.example:1", "evil.example"] {
        assert_eq!(ask(host).await, 403, "{host}");
    }
}

/// A proxy on this machine can forward the requests of strangers to a development server.
#[tokio::test]
async fn a_development_server_refuses_requests_that_a_proxy_has_forwarded() {
    let server = Server::start().await;
    for header in ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.1", "Via: 1.1 proxy"] {
        let says = (403, "use downlink serve");
        let headers = format!("{header}\r\n");
        server.refuses(("POST", "/events?topic=a", &headers), "x", says).await;
        let answer = server.ask("GET", "/healthz", &headers, "").await;
        assert_eq!(answer.status, 200, "health checks may come through a proxy");
    }
    let answer =
        server.exchange(b"GET / HTTP/1.1\r\nHost: push.example\r\nConnection: close\r\n\r\n");
    assert!(Answer::parse(&answer.await).problem(403).contains("started with downlink serve"));
}
