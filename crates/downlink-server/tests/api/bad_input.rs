//! Tests of invalid requests. The server refuses each invalid request with an error that helps to
//! fix it. The refusal does not change the hub, which is the log of events with its subscriptions.

use crate::{Server, answer::status_of};

#[tokio::test]
async fn unknown_paths_and_methods_are_refused() {
    let server = Server::start().await;
    server.refuses(("GET", "/event", ""), "", (404, "There is nothing at \"/event\"")).await;
    server.refuses(("POST", "/events/", ""), "x", (404, "publish at /events")).await;
    server.refuses(("GET", "/%00%1b%5b", ""), "", (404, "There is nothing")).await;
    let long = format!("/{}", "a".repeat(10_000));
    server.refuses(("GET", &long, ""), "", (404, "aaa\"…")).await;
    for (method, path, allowed) in [
        ("PUT", "/events", "get,head,post"),
        ("GET", "/events/batch", "post"),
        ("POST", "/topics", "get,head"),
        ("GET", "/finish", "post"),
        ("POST", "/clients", "get,head,delete"),
        ("DELETE", "/", "get,head"),
        ("BREW", "/metrics", "get,head"),
    ] {
        let answer = server.ask(method, path, "", "").await;
        assert!(answer.problem(405).contains(&format!("does not support {method}.")));
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
    }
}

#[tokio::test]
async fn unknown_and_repeated_parameters_are_refused() {
    let server = Server::start().await;
    for (method, path, says) in [
        ("GET", "/events?topics=a", "You may mean topic."),
        ("GET", "/events?zzzzzzzzzz", "The parameters are: topic, client, start"),
        ("POST", "/events?topic=a&evnt=x", "You may mean event."),
        ("POST", "/events?topic=a&EVENT=x", "There is no parameter \"EVENT\""),
        ("POST", "/finish?topic=a&x=1", "There is no parameter \"x\""),
        ("GET", "/topics?perfix=a", "You may mean prefix."),
        ("GET", "/clients?client=a", "There is no parameter \"client\""),
        ("GET", "/healthz?x", "takes no parameters"),
        ("GET", "/readyz?x", "takes no parameters"),
        ("GET", "/metrics?x", "takes no parameters"),
        ("GET", "/?x", "takes no parameters"),
        ("GET", "/page.js?x", "takes no parameters"),
        ("GET", "/page.css?x", "takes no parameters"),
        ("POST", "/events?topic=a&event=x&event=x", "Give the parameter event only once."),
        ("POST", "/events?topic=a&id=x&id=x", "Give the parameter id only once."),
        ("POST", "/events?topic=a&retry=1&retry=1", "only once"),
        ("POST", "/events?topic=a&last&last", "only once"),
        ("POST", "/events?everyone&everyone", "only once"),
        ("GET", "/events?client=a&client=b", "only once"),
        ("GET", "/events?start=live&start=live", "only once"),
        ("GET", "/events?open=1&open=0", "only once"),
        ("GET", "/events?alive=1&alive=0", "only once"),
        ("GET", "/topics?topic=a&topic=b", "only once"),
        ("GET", "/topics?limit=1&limit=1", "only once"),
        ("POST", "/finish?topic=a&topic=b", "only once"),
        ("DELETE", "/clients?client=a&client=b", "only once"),
    ] {
        server.refuses((method, path, ""), "", (400, says)).await;
    }
    assert_eq!(server.get("/healthz?_=1&_x").await.status, 200);
}

#[tokio::test]
async fn invalid_values_of_publishes_are_refused() {
    let server = Server::start().await;
    let long_topic = format!("/events?topic={}", "t".repeat(257));
    let long_id = format!("/events?topic=a&id={}", "i".repeat(129));
    for (path, says) in [
        ("/events", "No recipient"),
        ("/events?topic=", "\"\" is not a topic: the name is empty"),
        ("/events?topic=/a", "empty segment at byte 0"),
        ("/events?topic=a/*", "reserved character at byte 2"),
        ("/events?topic=%7Ba%7D", "reserved character at byte 0"),
        ("/events?topic=a%0Ab", "control character at byte 1"),
        ("/events?topic=%ff", "not UTF-8"),
        ("/events?%ff=a", "not UTF-8"),
        (&long_topic, "has 257 bytes, at most 256"),
        ("/events?client=", "is not a client id"),
        ("/events?client=%00", "control character"),
        ("/events?topic=a&event=a%0Ab", "The event type cannot be sent"),
        ("/events?topic=a&event=a%0Db", "Remove the line breaks"),
        ("/events?topic=a&event=open", "is reserved"),
        ("/events?topic=a&event=error", "is reserved"),
        ("/events?topic=a&event=downlink.gap", "Choose another type."),
        ("/events?topic=a&id=", "is not an event id"),
        ("/events?topic=a&id=a%0Ab", "is not an event id"),
        ("/events?topic=a&id=a%00", "is not an event id"),
        ("/events?topic=a&id=a%20b", "is not an event id"),
        ("/events?topic=a&id=abcdefgh-7", "not the form of the hub's own ids"),
        (&long_id, "1 to 128 visible"),
        ("/events?topic=a&retry=1s", "retry must be a whole number, not \"1s\""),
        ("/events?topic=a&retry=-1", "must be a whole number"),
        ("/events?topic=a&retry=99999999999999999999", "must be a whole number"),
        ("/events?topic=a&last=maybe", "last must be 1 or 0, not \"maybe\""),
        ("/events?everyone=yes", "everyone must be 1 or 0"),
    ] {
        server.refuses(("POST", path, ""), "x", (400, says)).await;
    }
    let longest = format!("/events?topic=a&id={}", "i".repeat(128));
    server.post(&longest, "x").await.json();
    let longest = format!("/events?topic={}", "t".repeat(256));
    server.post(&longest, "x").await.json();
}

#[tokio::test]
async fn invalid_subscriptions_are_refused() {
    let server = Server::with(&["--selectors-max", "2"]).await;
    let _two = server.subscribe("topic=a&topic=b").await;
    for (query, says) in [
        ("topic=a&topic=b&topic=c", "names 3 topics and patterns: the limit is 2"),
        ("topic=a/*/b", "is neither a topic nor a pattern"),
        ("topic=%7B", "is neither a topic nor a pattern"),
        ("topic=", "is empty"),
        ("client=", "is not a client id"),
        ("start=now", "start must be live, earliest, last:"),
        ("start=last:100001", "not \"last:100001\""),
        ("start=since:yesterday", "RFC 3339"),
        ("open=2", "open must be 1 or 0"),
        ("alive=x", "alive must be 1 or 0"),
        ("topic=%ff", "not UTF-8"),
    ] {
        server.refuses(("GET", &format!("/events?{query}"), ""), "", (400, says)).await;
    }
    let _most = server.subscribe("start=last:100000").await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_or_its_connection_is_closed() {
    let server = Server::start().await;
    let topic = "t".repeat(1_000_000);
    let host = server.address;
    for request in [
        format!("POST /events?topic={topic} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: {topic}\r\n\r\n"),
    ] {
        let before = server.hub.stats();
        let answer = server.exchange(request.as_bytes()).await;
        if !answer.is_empty() {
            let status = status_of(&answer);
            assert!([400, 413, 414, 431].contains(&status), "{answer}");
        }
        server.is_unharmed(&before).await;
    }
}

#[tokio::test]
async fn requests_with_invalid_http_are_refused_or_their_connection_is_closed() {
    let server = Server::start().await;
    let host = server.address;
    for request in [
        "\r\n\r\n\0\u{1}garbage\r\n\r\n".to_owned(),
        format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n bad: folded\r\n\r\n"),
        format!("GET /healthz HTTP/9.9\r\nHost: {host}\r\n\r\n"),
        format!("POST /events?topic=a HTTP/1.1\r\nHost: {host}\r\nContent-Length: x\r\n\r\n"),
        format!(
            "POST /events?topic=a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"
        ),
        "GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
    ] {
        let before = server.hub.stats();
        let answer = server.exchange(request.as_bytes()).await;
        assert!(answer.is_empty() || status_of(&answer) == 400, "{request:?}: {answer}");
        server.is_unharmed(&before).await;
    }
}

#[tokio::test]
async fn garbage_after_a_request_does_not_change_its_answer() {
    let server = Server::start().await;
    let host = server.address;
    let mut request =
        format!("POST /events?topic=a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\n\r\nx");
    request.push_str("\u{1}\u{2}no request\r\n\r\n");
    let answer = server.exchange(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(server.hub.stats().published, 1);
    let mut stream = server.subscribe("topic=b").await;
    stream.write(b"\x01garbage\r\n\r\n").await;
    server.publish("topic=b", "goes on").await;
    assert_eq!(stream.data().await, "goes on");
}

#[tokio::test]
async fn an_incomplete_head_times_out() {
    let server = Server::with(&["--header-timeout", "100ms"]).await;
    let before = server.hub.stats();
    for half in ["", "GET /heal", "GET /healthz HTTP/1.1\r\nHost: local"] {
        let answer = server.exchange(half.as_bytes()).await;
        assert!(answer.is_empty() || status_of(&answer) == 408, "{answer}");
    }
    server.is_unharmed(&before).await;
}

#[tokio::test]
async fn a_request_needs_one_allowed_host() {
    let server = Server::start().await;
    let port = server.address.port();
    for host in ["127.0.0.1", "localhost", "LOCALHOST:1", "[::1]:8080", &server.address.to_string()]
    {
        let answer = ask_raw(&server, "HTTP/1.1", "/topics", &format!("Host: {host}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
    }
    for (headers, status) in [
        (String::new(), 400),
        ("Host: localhost\r\nHost: localhost\r\n".to_owned(), 400),
        ("Host: é\r\n".to_owned(), 400),
        ("Host: \r\n".to_owned(), 403),
        ("Host: evil.example\r\n".to_owned(), 403),
        (format!("Host: evil.example:{port}\r\n"), 403),
        ("Host: localhost.evil.example\r\n".to_owned(), 403),
        ("Host: 127.0.0.1.evil.example\r\n".to_owned(), 403),
        ("Host: 10.0.0.1\r\n".to_owned(), 403),
    ] {
        let answer = ask_raw(&server, "HTTP/1.1", "/topics", &headers).await;
        assert_eq!(status_of(&answer), status, "{headers}: {answer}");
    }
}

/// Health checks cannot always set `Host`: Kubernetes sends the address of the pod, and HAProxy
/// sends no `Host`.
#[tokio::test]
async fn health_checks_work_with_any_host() {
    let server = Server::start().await;
    for path in ["/healthz", "/readyz"] {
        for headers in ["", "Host: 10.1.2.3:8080\r\n", "Host: evil.example\r\nOrigin: null\r\n"] {
            let answer = ask_raw(&server, "HTTP/1.1", path, headers).await;
            assert_eq!(status_of(&answer), 200, "{path} {headers}: {answer}");
        }
        let answer = ask_raw(&server, "HTTP/1.0", path, "").await;
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    }
}

#[tokio::test]
async fn requests_with_http_1_0_are_served() {
    let server = Server::start().await;
    let answer = ask_raw(&server, "HTTP/1.0", "/topics", "Host: localhost\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let answer = ask_raw(&server, "HTTP/1.0", "/topics", "").await;
    assert_eq!(status_of(&answer), 400, "{answer}");
}

/// If a request had two different `Origin` headers, a proxy might check the first header and the
/// server the second.
#[tokio::test]
async fn origin_and_site_headers_may_not_repeat() {
    let server = Server::start().await;
    let own = format!("Origin: http://{}\r\n", server.address);
    for headers in [
        own.repeat(2),
        "Origin: é\r\n".to_owned(),
        format!("{own}Origin: https://evil.example\r\n"),
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n".to_owned(),
        "Sec-Fetch-Site: same-origin\r\n".repeat(2),
    ] {
        let says = (400, "Send only one");
        server.refuses(("POST", "/events?topic=a", &headers), "x", says).await;
    }
    let target = "http://other.example/topics";
    let own_host = format!("Host: {}\r\n", server.address);
    let answer = ask_raw(&server, "HTTP/1.1", target, &own_host).await;
    assert_eq!(status_of(&answer), 400, "{answer}");
    let target = format!("http://{}/topics", server.address);
    let answer = ask_raw(&server, "HTTP/1.1", &target, &own_host).await;
    assert_eq!(status_of(&answer), 200, "{answer}");
}

async fn ask_raw(server: &Server, version: &str, path: &str, headers: &str) -> String {
    let request = format!("GET {path} {version}\r\nConnection: close\r\n{headers}\r\n");
    server.exchange(request.as_bytes()).await
}

/// A proxy may change `Host`, so the server cannot simply compare `Host` with `Origin`. `Origin`
/// may also include the default port of `https`.
#[tokio::test]
async fn own_pages_are_allowed_behind_a_proxy() {
    let server = Server::production(&["--host", "push.example"]).await;
    for headers in [
        "Origin: https://elsewhere.example\r\nSec-Fetch-Site: same-origin\r\n",
        "Origin: https://push.example\r\n",
        "Origin: https://push.example:443\r\n",
        "Origin: http://push.example\r\n",
    ] {
        server.ask("POST", "/events?topic=a", headers, "x").await.json();
    }
    for headers in ["Origin: https://push.example:444\r\n", "Origin: https://a.push.example\r\n"] {
        let says = (403, "may not use this server");
        server.refuses(("POST", "/events?topic=a", headers), "x", says).await;
    }
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let server = Server::start().await;
    let address = server.address;
    let other_port = format!("Origin: http://127.0.0.1:{}\r\n", address.port() ^ 1);
    for headers in [
        "Origin: null\r\n",
        "Origin: https://evil.example\r\n",
        &other_port,
        &format!("Origin: http://{address}.evil.example\r\n"),
        &format!("Origin: http://localhost:{}\r\n", address.port()),
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n",
    ] {
        let says = (403, "may not use this server");
        server.refuses(("POST", "/events?topic=a", headers), "x", says).await;
        server.refuses(("DELETE", "/clients?client=a", headers), "", says).await;
    }
    for headers in [
        &*format!("Origin: http://{address}\r\nSec-Fetch-Site: same-origin\r\n"),
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n",
    ] {
        let answer = server.ask("POST", "/events?topic=a", headers, "x").await;
        answer.json();
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let says = (403, "may not use this server");
    server.refuses(("GET", "/events?topic=a", &other_port), "", says).await;
    let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    assert_eq!(server.ask("GET", "/", link, "").await.status, 200);
}
