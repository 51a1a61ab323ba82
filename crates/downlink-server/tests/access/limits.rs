//! The limits against abuse, through the flags of the server.
//!
//! Most rates in these tests allow the next use only after an hour, so that the tests do not depend
//! on time.

use std::{
    io,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::{
    answer::Answer,
    patiently,
    program::Program,
    request::{Place, Request},
    site::Site,
    stream::Stream,
    upload::Upload,
};

/// A publish with an ordinary token of this client.
fn publish(site: &Site, client: &str) -> Request {
    Request::post("/events?topic=rooms/1", "x").bearer(&site.keys.user(client))
}

fn subscribe(credential: &str) -> Request {
    Request::get("/events?topic=rooms/1").bearer(credential)
}

fn from(request: Request, address: &str) -> Request {
    request.header("X-Forwarded-For", address)
}

/// Asserts that the limit of this flag has refused a request, and that the answer says when to
/// repeat the request.
#[track_caller]
fn assert_limited(answer: &Answer, flag: &str) {
    assert_eq!(answer.outcome(), "429 too_many_requests", "{answer:?}");
    let detail = answer.problem(429);
    assert!(detail.contains(flag), "{detail}");
    let wait: u64 = answer.header("retry-after").expect("a time").parse().expect("seconds");
    assert!(
        (3_000..=4_501).contains(&wait),
        "the answer asks for a wait of {wait} s, but the limit is one use in an hour"
    );
}

const FAILURES: [&str; 2] = ["--failures-per-address", "1/h,burst:3"];

#[tokio::test]
async fn an_address_with_too_many_bad_credentials_has_to_wait() {
    let site = Site::start(&[&FAILURES[..], &["--trusted-proxy", "127.0.0.1"]].concat());
    let good = site.keys.user("ada");
    let guess = |address: &str| from(subscribe("guess"), address);
    for _ in 0..3 {
        let answer = guess("203.0.113.7").ask(site.public()).await;
        assert_eq!(answer.outcome(), "401 key_unknown");
    }
    // The proxy adds the address of the client at the right. Addresses that the client invented are
    // to the left of it.
    for address in ["203.0.113.7", "198.51.100.1, 203.0.113.7", "127.0.0.1, 203.0.113.7"] {
        for credential in ["guess", &good] {
            let answer = from(subscribe(credential), address).ask(site.public()).await;
            assert_limited(&answer, "--failures-per-address");
        }
        let ticket = from(Request::get("/events?ticket=x"), address).ask(site.public()).await;
        assert_limited(&ticket, "--failures-per-address");
        let later = site.assert_comes_back(from(subscribe(&good), address)).await;
        assert!((3_000_000..=4_501_000).contains(&later), "{later} ms");
        let nobody = from(Request::get("/events?topic=rooms/1"), address).ask(site.public()).await;
        assert_eq!(nobody.outcome(), "401 token_missing");
    }
    // Clients with other addresses need not wait. All addresses of an IPv6 network count as one
    // address.
    site.subscribe(from(subscribe(&good), "203.0.113.8")).await;
    for host in 1..=3 {
        let answer = guess(&format!("2001:db8:0:7::{host}")).ask(site.public()).await;
        assert_eq!(answer.outcome(), "401 key_unknown");
    }
    let answer = guess("2001:db8:0:7::4").ask(site.public()).await;
    assert_limited(&answer, "--failures-per-address");
    site.subscribe(from(subscribe(&good), "2001:db8:0:8::1")).await;
    // Requests of the proxy that lack the header may come from many clients, so the limit does not
    // apply to these requests.
    for _ in 0..5 {
        assert_eq!(subscribe("guess").ask(site.public()).await.outcome(), "401 key_unknown");
    }
}

#[tokio::test]
async fn the_proxy_protocol_gives_the_address_of_a_client() {
    let flags = ["--trusted-proxy", "127.0.0.1", "--proxy-protocol"];
    let site = Site::start(&[&FAILURES[..], &flags].concat());
    let Place::Tcp(address) = site.public() else { panic!("the listener is on TCP") };
    let ask = async |client: &str, request: Request| {
        let mut io = TcpStream::connect(address).await.expect("the server listens");
        let head = format!("PROXY TCP4 {client} 127.0.0.1 40000 80\r\n");
        let text = head + &request.text(site.public(), "Connection: close\r\n");
        io.write_all(text.as_bytes()).await.expect("the connection is open");
        Upload(io).answer().await
    };
    for n in 0..3 {
        // The client is not a trusted proxy, so the server ignores the header of the client.
        let request = from(subscribe("guess"), &format!("198.51.100.{n}"));
        assert_eq!(ask("203.0.113.7", request).await.outcome(), "401 key_unknown");
    }
    let answer = ask("203.0.113.7", from(subscribe("guess"), "198.51.100.9")).await;
    assert_limited(&answer, "--failures-per-address");
    assert_eq!(ask("203.0.113.8", subscribe("guess")).await.outcome(), "401 key_unknown");
}

#[tokio::test]
async fn an_address_publishes_at_the_rate_of_its_limit() {
    let flags = ["--publishes-per-address", "1/h,burst:3", "--trusted-proxy", "127.0.0.1"];
    let site = Site::start(&flags);
    for client in ["ada", "bob", "ada"] {
        let answer = from(publish(&site, client), "203.0.113.7").ask(site.public()).await;
        assert_eq!(answer.outcome(), "200");
    }
    let limited = from(publish(&site, "carol"), "203.0.113.7").ask(site.public()).await;
    assert_limited(&limited, "--publishes-per-address");
    // Every event of a batch counts, so the next publish has to wait.
    let lines = |count: usize| "{\"topic\":\"rooms/1\",\"data\":1}\n".repeat(count);
    let batch = |count, address| {
        let request = Request::post("/events/batch", lines(count)).bearer(&site.keys.user("ada"));
        from(request, address)
    };
    assert_eq!(batch(3, "203.0.113.8").ask(site.public()).await.outcome(), "200");
    let limited = batch(1, "203.0.113.8").ask(site.public()).await;
    assert_limited(&limited, "--publishes-per-address");
    // A stream stops at the limit, and the answer says how many events were published.
    let stream = Request::post("/events?topic=rooms/1", "1\n2\n3\n4\n5\n")
        .header("Content-Type", "application/x-ndjson")
        .bearer(&site.keys.user("ada"));
    let limited = from(stream, "203.0.113.9").ask(site.public()).await;
    assert_limited(&limited, "--publishes-per-address");
    let detail = limited.problem(429);
    assert!(detail.starts_with("Event 4 of the stream: "), "{detail}");
    assert!(detail.contains(" Published: 3, "), "{detail}");
    assert_eq!(site.events("rooms/1").await, 9);
    // One request, one batch and one stream were refused.
    let limited = site.metric("downlink_publishes_total{result=\"rate_limited\"}").await;
    assert_eq!(limited, "3");
    // Events that are published with a key do not count towards the limit of the address.
    for _ in 0..5 {
        site.publish("topic=rooms/1", "x").await;
    }
}

#[tokio::test]
async fn a_streamed_publish_waits_until_its_limit_allows_the_next_event() {
    let site = Site::start(&["--publishes-per-address", "50/s,burst:1"]);
    let mut subscriber = site.subscribe_as("carol", "topic=rooms/1").await;
    let lines: String = (0..30).map(|n| format!("{n}\n")).collect();
    let request = Request::post("/events?topic=rooms/1", lines)
        .header("Content-Type", "application/x-ndjson")
        .bearer(&site.keys.user("ada"));
    let began = std::time::Instant::now();
    assert_eq!(request.ask(site.public()).await.json()["events"], 30);
    let took = began.elapsed().as_millis();
    assert!(took >= 29 * 20, "30 events in {took} ms");
    for n in 0..30 {
        assert_eq!(subscriber.data().await, n.to_string());
    }
}

#[tokio::test]
async fn a_key_publishes_at_the_rate_of_its_limit() {
    let site = Site::of(&["--listen", "127.0.0.1:0", "--publishes-per-key", "1/h,burst:3"]);
    let with = |key: &str, target: &str, body: &str| Request::post(target, body).bearer(key);
    let key = site.keys.publish_key();
    let line = r#"{"topic":"rooms/1","data":1}"#;
    assert_eq!(with(&key, "/events?topic=a", "1").ask(site.public()).await.outcome(), "200");
    assert_eq!(with(&key, "/events/batch", line).ask(site.public()).await.outcome(), "200");
    let stream = with(&key, "/events?topic=a", "1\n2\n");
    let stream = stream.header("Content-Type", "application/x-ndjson").ask(site.public()).await;
    assert_limited(&stream, "--publishes-per-key");
    for (target, body) in [("/events?topic=a", "1"), ("/events/batch", line)] {
        assert_limited(&with(&key, target, body).ask(site.public()).await, "--publishes-per-key");
    }
    let other = with(&site.keys.admin_key(), "/events?topic=a", "1").ask(site.public()).await;
    assert_eq!(other.outcome(), "200");
    assert_eq!(publish(&site, "ada").ask(site.public()).await.outcome(), "200");
}

#[tokio::test]
async fn a_key_issues_tickets_at_the_rate_of_its_limit() {
    let site = Site::start(&["--tickets-per-key", "1/h,burst:2"]);
    let issue = |query: &str| Request::post(format!("/tickets?{query}"), "");
    let key = site.keys.publish_key();
    let ticket = site.ticket("topic=rooms/1").await;
    // Refused requests do not count towards the limit of the app.
    for _ in 0..3 {
        let refused = issue(&format!("topic=rooms/1&ticket={ticket}")).ask(site.public()).await;
        assert_eq!(refused.outcome(), "403 right_missing");
    }
    for query in ["topic=", "topic=a&lifetime=2h", &format!("topic={}", "a/".repeat(2_000))] {
        let refused = issue(query).bearer(&key).ask(site.admin()).await;
        assert_eq!(refused.status, 400, "{query}");
    }
    site.ticket("topic=rooms/1").await;
    let limited = issue("topic=rooms/1").bearer(&key).ask(site.admin()).await;
    assert_limited(&limited, "--tickets-per-key");
    let other = issue("topic=rooms/1").bearer(&site.keys.admin_key()).ask(site.admin()).await;
    assert_eq!(other.status, 200);
    // The tickets of the app stay valid.
    site.subscribe(Request::get(format!("/events?ticket={ticket}"))).await;
}

#[tokio::test]
async fn refused_requests_for_tickets_do_not_count() {
    let site = Site::start(&["--tickets-per-key", "1/h,burst:1"]);
    let issue = || Request::post("/tickets?topic=rooms/1", "");
    let denied = Request::post("/tickets?topic=orders", "").bearer(&site.keys.user("eve"));
    for _ in 0..3 {
        assert_eq!(denied.ask(site.public()).await.outcome(), "403 topic_denied");
    }
    let issued = issue().bearer(&site.keys.user("ada")).ask(site.public()).await;
    assert_eq!(issued.status, 200);
    let limited = issue().bearer(&site.keys.user("ada")).ask(site.public()).await;
    assert_limited(&limited, "--tickets-per-key");
}

/// All events arrive at once, and the limit of two events in a second would delay the last one for
/// almost a minute. The end of the rights or of the server must stop the stream earlier.
#[tokio::test]
async fn the_end_of_the_rights_or_of_the_server_stops_a_streamed_publish_that_waits() {
    const EVENTS: usize = 100;
    let mut site = Site::start(&["--publishes-per-address", "2/s,burst:2"]);
    let lines = vec!["1"; EVENTS].join("\n");
    let mut upload = Upload::start(site.public(), &site.keys.user("ada"), "topic=rooms/1").await;
    let mut subscriber = site.subscribe_as("carol", "topic=rooms/1").await;
    upload.send(&lines).await;
    assert_eq!(subscriber.data().await, "1");
    site.revoke("client=ada").await;
    let stopped = upload.answer().await;
    assert_eq!(stopped.outcome(), "401 revoked");
    let published = site.events("rooms/1").await.as_u64().expect("a number");
    assert!(published < EVENTS as u64 / 2, "{published} events");

    let query = "topic=rooms/2&finish_on_end=true";
    let mut upload = Upload::start(site.public(), &site.keys.user("bob"), query).await;
    upload.send(&lines).await;
    let mut subscriber = site.subscribe_as("carol", "topic=rooms/2&start=earliest").await;
    assert_eq!(subscriber.data().await, "1");
    site.stop();
    let stopped = upload.answer().await;
    let detail = stopped.problem(503);
    let number = detail.strip_prefix("Event ").and_then(|rest| rest.split(' ').next());
    let number: usize = number.expect("a number").parse().expect("a number");
    assert!(number < EVENTS / 2, "{detail}");
}

/// Sends the head of a request with a body of 1,000 bytes, and some of the bytes.
async fn begin(site: &Site, request: Request) -> Upload {
    let Place::Tcp(address) = site.public() else { panic!("the listener is on TCP") };
    let mut io = TcpStream::connect(address).await.expect("the server listens");
    let text = request.text(site.public(), "Content-Length: 1000\r\nConnection: close\r\n");
    io.write_all(text.as_bytes()).await.expect("the connection is open");
    Upload(io)
}

#[tokio::test]
async fn a_publish_above_its_limit_is_refused_before_its_body_arrives() {
    let site = Site::start(&["--publishes-per-address", "1/h,burst:1"]);
    assert_eq!(publish(&site, "ada").ask(site.public()).await.outcome(), "200");
    for target in ["/events?topic=rooms/1", "/events/batch"] {
        let request = Request::post(target, "").bearer(&site.keys.user("ada"));
        let answer = begin(&site, request).await.answer().await;
        assert_limited(&answer, "--publishes-per-address");
    }
}

#[tokio::test]
async fn a_publish_is_refused_if_its_rights_end_before_its_body_has_arrived() {
    let site = Site::start(&[]);
    let publish = Request::post("/events?topic=rooms/1", "x".repeat(999));
    let mut upload = begin(&site, publish.bearer(&site.keys.user("ada"))).await;
    let mut other = site.subscribe_as("ada", "topic=rooms/1").await;
    site.revoke("client=ada").await;
    assert_eq!(other.next().await.expect("the last event").event_type, "downlink.expired");
    upload.0.write_all(b"x").await.expect("the connection is open");
    assert_eq!(upload.answer().await.outcome(), "401 revoked");
    assert_eq!(site.events("rooms/1").await, 0);
}

/// If a proxy on this machine is not in `--trusted-proxy`, the requests of strangers have the same
/// address as the requests of the apps. The strangers must not lock out the apps.
#[tokio::test]
async fn the_admin_listener_has_no_limits_for_each_address() {
    let rates =
        ["--publishes-per-address", "1/h,burst:1", "--connects-per-address", "1/h,burst:10"];
    let site = Site::start(&[&FAILURES[..], &rates].concat());
    for _ in 0..3 {
        assert_eq!(subscribe("guess").ask(site.public()).await.outcome(), "401 key_unknown");
    }
    assert_limited(&subscribe("guess").ask(site.public()).await, "--failures-per-address");
    for _ in 0..4 {
        assert_eq!(subscribe("guess").ask(site.admin()).await.outcome(), "401 key_unknown");
        site.publish("topic=rooms/1", "x").await;
        assert_eq!(publish(&site, "ada").ask(site.admin()).await.outcome(), "200");
    }
}

/// Behind a proxy that the server does not know, all clients share the limits of one address. The
/// operator learns this from the log.
#[tokio::test]
async fn one_warning_names_a_proxy_that_is_not_trusted() {
    let mut site = Site::start(&FAILURES);
    let mut command = site.another(&[]);
    command.env("DOWNLINK_LOG", "warn").stderr(Stdio::piped());
    site.stop();
    let mut child = command.spawn().expect("the program starts");
    let stderr = child.stderr.take().expect("the stream is piped");
    site.replace_by(Program::greeted(child));
    for proxied in [false, true, true] {
        let request = subscribe("guess");
        let request = if proxied { from(request, "192.0.2.7") } else { request };
        assert_eq!(request.ask(site.public()).await.outcome(), "401 key_unknown");
    }
    site.stop();
    let log = io::read_to_string(stderr).expect("UTF-8");
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("--trusted-proxy")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("127.0.0.1"), "{log}");
}

/// Opens a stream from this machine, and waits for its first event.
async fn connect(site: &Site) -> Stream {
    site.subscribe(Request::get("/events?topic=news")).await
}

/// The metric of the connections that were refused because of this limit.
fn refused_connections(limit: &str) -> String {
    format!("downlink_connections_refused_total{{listener=\"public\",reason=\"{limit}\"}}")
}

#[tokio::test]
async fn refusals_of_access_control_are_counted_by_their_code() {
    let site = Site::start(&["--public", "news"]);
    let count =
        async |code| site.metric(&format!("downlink_auth_failures_total{{code=\"{code}\"}}")).await;
    for (code, due) in [("key_unknown", "0"), ("token_missing", "0"), ("topic_denied", "0")] {
        assert_eq!(count(code).await, due, "{code}");
    }
    let unknown = Request::post("/events?topic=rooms/1", "x").bearer("guess");
    assert_eq!(unknown.ask(site.public()).await.outcome(), "401 key_unknown");
    let secret = Request::get("/events?topic=secret");
    assert_eq!(secret.ask(site.public()).await.outcome(), "401 token_missing");
    let other = Request::get("/events?topic=secret").bearer(&site.keys.user("ada"));
    assert_eq!(other.ask(site.public()).await.outcome(), "403 topic_denied");
    connect(&site).await;
    for (code, due) in [("key_unknown", "1"), ("token_missing", "1"), ("topic_denied", "1")] {
        assert_eq!(count(code).await, due, "{code}");
    }
    assert_eq!(site.metric("downlink_publishes_total{result=\"denied\"}").await, "1");
    // The request for the metrics itself has a connection to the admin listener.
    let admin = site.metric("downlink_connections{listener=\"admin\"}").await;
    assert_ne!(admin, "0");
}

#[tokio::test]
async fn the_connections_of_an_address_are_limited() {
    let flags = ["--connections-per-address-max", "2", "--public", "news"];
    let site = Site::start(&flags);
    let (first, mut second) = (connect(&site).await, connect(&site).await);
    let answer = Request::get("/events?topic=news").ask(site.public()).await;
    assert_eq!(answer.outcome(), "429 too_many_requests");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(site.metric(&refused_connections("connections_per_address_max")).await, "1");
    site.assert_comes_back(Request::get("/events?topic=news")).await;
    assert_eq!(Request::get("/healthz").ask(site.public()).await.status, 200);
    // The limit does not apply to the admin listener.
    site.publish("topic=news", "hello").await;
    assert_eq!(second.data().await, "hello");
    drop(first);
    patiently(async {
        // The server notices the end of a connection a moment later.
        while Request::get("/events?topic=news").ask(site.public()).await.status == 429 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_address_connects_at_the_rate_of_its_limit() {
    let site = Site::start(&["--connects-per-address", "1/h,burst:2", "--public", "news"]);
    for _ in 0..2 {
        drop(connect(&site).await);
    }
    let answer = Request::get("/events?topic=news").ask(site.public()).await;
    assert_eq!(answer.outcome(), "429 too_many_requests");
    assert_eq!(site.metric(&refused_connections("connects_per_address")).await, "1");
    site.assert_comes_back(Request::get("/events?topic=news")).await;
    // The limit does not apply to a trusted proxy, because its connections are from many clients.
    let flags = ["--connects-per-address", "1/h,burst:2", "--public", "news"];
    let site = Site::start(&[&flags[..], &["--trusted-proxy", "127.0.0.0/8"]].concat());
    for _ in 0..4 {
        connect(&site).await;
    }
}

/// In these tests, an address may have 40 names (topics and patterns) in its subscriptions. Two
/// subscriptions with 20 topics each reach this limit.
const NAMES: [&str; 4] = ["--subscribed-names-per-address-max", "40", "--public", "rooms/*"];

/// A subscription to this many topics, which no other subscription names.
fn topics(count: usize) -> Request {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let topics: Vec<_> = (0..count).map(|n| format!("topic=rooms/{number}-{n}")).collect();
    Request::get(format!("/events?{}", topics.join("&")))
}

fn head(request: Request) -> Request {
    Request { method: "HEAD", ..request }
}

/// Asserts that an address has reached its limit of names. A program gets a 429, and a browser gets
/// a stream that ends at once.
async fn assert_no_names(site: &Site, of_address: impl Fn(Request) -> Request) {
    let refused = of_address(topics(20)).ask(site.public()).await;
    assert_eq!(refused.outcome(), "429 too_many_requests", "{refused:?}");
    let detail = refused.problem(429);
    assert!(detail.contains("--subscribed-names-per-address-max"), "{detail}");
    let wait: u64 = refused.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((10..=13).contains(&wait), "{wait} s");
    let later = site.assert_comes_back(of_address(topics(20))).await;
    assert!((10_000..=12_500).contains(&later), "{later} ms");
}

/// Waits until the subscriptions of an address have no names any more. The server notices the end
/// of a connection a moment later. This function sends requests with HEAD, which open no stream, so
/// their own names are free again after the answer.
async fn assert_all_names_are_free(site: &Site, of_address: impl Fn(Request) -> Request) {
    patiently(async {
        while of_address(head(topics(40))).ask(site.public()).await.status == 429 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_names_of_one_address_do_not_affect_other_addresses() {
    let site = Site::start(&[&NAMES[..], &["--trusted-proxy", "127.0.0.1"]].concat());
    let one = |request| from(request, "203.0.113.7");
    let first = site.subscribe(one(topics(20))).await;
    let second = site.subscribe(one(topics(20).of_browser())).await;
    assert_no_names(&site, one).await;
    // A subscription with 17 topics counts, and one with 16 does not.
    assert_eq!(one(topics(17)).ask(site.public()).await.status, 429);
    let _small = site.subscribe(one(topics(16))).await;
    // The limit is for the address and not for a user, so a request with a token counts too.
    let token = topics(20).bearer(&site.keys.user("ada"));
    assert_eq!(one(token).ask(site.public()).await.status, 429);
    let _other = site.subscribe(from(topics(40), "203.0.113.8")).await;
    // The names of a stream are free when it ends.
    drop(second);
    patiently(async {
        while one(topics(20)).ask(site.public()).await.status == 429 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(first);
    assert_all_names_are_free(&site, one).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn without_a_proxy_names_count_for_the_address_of_the_connection() {
    let site = Site::start(&NAMES);
    let _first = site.subscribe(topics(40)).await;
    assert_no_names(&site, |request| request).await;
    let Place::Tcp(to) = site.public() else { panic!("the listener is on TCP") };
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 2], 0).into()).expect("an address of this machine");
    let mut io = socket.connect(*to).await.expect("the server listens");
    let text = topics(40).text(site.public(), "");
    io.write_all(text.as_bytes()).await.expect("the connection is open");
    assert_eq!(Stream::begin(io).await.status(), 200);
}

#[tokio::test]
async fn the_names_of_an_app_do_not_count() {
    let site = Site::of(&[&["--listen", "127.0.0.1:0"][..], &NAMES].concat());
    let mut apps = Vec::new();
    for key in [site.keys.publish_key(), site.keys.admin_key()] {
        apps.push(site.subscribe(topics(100).bearer(&key)).await);
    }
    // The app issues a ticket for a user, so the names of a subscription with a ticket count.
    let issue = Request::post(topics(40).target.replace("/events", "/tickets"), "");
    let issued = issue.bearer(&site.keys.publish_key()).ask(site.public()).await.json();
    let user = site.subscribe(Request::get(issued["url"].as_str().expect("a URL"))).await;
    assert_no_names(&site, |request| request).await;
    drop(user);
    assert_all_names_are_free(&site, |request| request).await;

    let site = Site::start(&NAMES);
    for _ in 0..3 {
        let stream = topics(40).bearer(&site.keys.user("ada")).ask(site.admin()).await;
        assert_eq!(stream.status, 200, "the admin listener has no limits for each address");
    }
}

/// A subscription must not keep its names if it is not opened, or if its stream is never read.
#[tokio::test]
async fn names_are_free_after_every_end_of_a_subscription() {
    let flags = ["--selectors-max", "41", "--subscribed-names-max", "60"];
    let site = Site::start(&[&NAMES[..], &flags].concat());
    let with = |request: Request, more: &str| {
        let target = request.target + more;
        Request { target, ..request }
    };
    for _ in 0..3 {
        for (request, status) in [
            (head(topics(40)), 200),
            (with(topics(40), "&start=never"), 400),
            (with(topics(40), "&topic=secret"), 401),
            (with(topics(39), "&start=after:x&meta=1"), 200),
        ] {
            let answer = request.ask(site.public()).await;
            assert_eq!(answer.status, status, "{request:?}: {answer:?}");
            assert_all_names_are_free(&site, |request| request).await;
        }
        // The client leaves before it has read the answer.
        let Place::Tcp(address) = site.public() else { panic!("the listener is on TCP") };
        let mut io = TcpStream::connect(address).await.expect("the server listens");
        let text = topics(40).text(site.public(), "");
        io.write_all(text.as_bytes()).await.expect("the connection is open");
        drop(io);
        assert_all_names_are_free(&site, |request| request).await;
    }
    // The server refuses a subscription, because all subscriptions together would have too many
    // names.
    let small = [site.subscribe(topics(16)).await, site.subscribe(topics(16)).await];
    for _ in 0..3 {
        assert_eq!(topics(40).ask(site.public()).await.status, 503);
    }
    drop(small);

    // The rights of a stream end.
    let mine = topics(40).bearer(&site.keys.user("ada"));
    patiently(async {
        while mine.ask(site.public()).await.status == 503 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_all_names_are_free(&site, |request| request).await;
    let stream = site.subscribe(mine).await;
    assert_no_names(&site, |request| request).await;
    site.revoke("client=ada").await;
    crate::site::assert_revoked(stream).await;
    assert_all_names_are_free(&site, |request| request).await;
}
