//! Tests of credentials that end while a stream is open, and of addresses with tickets.

use downlink_client::{Closed, Credentials, EventSource, RECONNECTION_TIME_MIN, StreamError};
use std::{
    future::ready,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex, mpsc};

use crate::scripted::{Connection, Server, connect, end, event, interruption, opened, refusal};

const OPEN: &str = "event: downlink.open\nid: e-0\ndata: {\"keep_alive_ms\":0}\n\n";
const EXPIRED: &str = "event: downlink.expired\ndata: {}\n\n";
const REVOKED: &str = "event: downlink.expired\ndata: {\"code\":\"revoked\"}\n\n";

/// The time from a notice to the end of the credentials.
const LEFT: Duration = Duration::from_secs(600);

fn expiring(left: Duration) -> String {
    format!("event: downlink.expiring\ndata: {{\"in_ms\":{}}}\n\n", left.as_millis())
}

/// The app's function that returns credentials. It counts its calls. Each call waits until the test
/// gives it a result.
struct App {
    calls: Arc<AtomicU32>,
    results: mpsc::UnboundedSender<Result<Credentials, io::Error>>,
}

impl App {
    fn new(server: &Server) -> (Self, EventSource) {
        let calls = Arc::<AtomicU32>::default();
        let (results, waiting) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let counted = Arc::clone(&calls);
        let builder = server.builder().credentials(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let waiting = Arc::clone(&waiting);
            async move { waiting.lock().await.recv().await.unwrap() }
        });
        (Self { calls, results }, builder.build().unwrap())
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    fn give(&self, token: &str) {
        self.results.send(Ok(Credentials::bearer_token(token).unwrap())).unwrap();
    }

    fn fail(&self) {
        self.results.send(Err(io::Error::other("no token"))).unwrap();
    }
}

#[track_caller]
fn assert_request(connection: &Connection, token: &str, last_event_id: Option<&str>) {
    assert_eq!(connection.header("authorization").unwrap(), format!("Bearer {token}"));
    assert_eq!(connection.header("last-event-id").as_deref(), last_event_id);
}

/// Waits until the source reconnects. The source must deliver nothing before the new connection.
async fn reconnect(source: &mut EventSource, server: &Server, body: &str) -> Connection {
    tokio::join!(opened(source), server.open(body)).1
}

#[tokio::test]
async fn the_source_resumes_with_new_credentials_before_the_old_ones_end() {
    let server = Server::bind().await;
    let (app, mut source) = App::new(&server);
    app.give("1");
    let body = format!("{OPEN}id: e-1\ndata: x\n\n{}id: e-2\ndata: y\n\n", expiring(LEFT));
    let first = connect(&mut source, &server, body).await;
    assert_request(&first, "1", None);
    assert_eq!(event(&mut source).await.data, "x");
    assert_eq!(event(&mut source).await.data, "y");
    app.give("2");
    let second = reconnect(&mut source, &server, "id: e-3\ndata: z\n\n").await;
    assert_request(&second, "2", Some("e-2"));
    first.closed().await;
    assert_eq!(event(&mut source).await.data, "z");
}

#[tokio::test]
async fn events_are_delivered_once_while_the_credentials_are_fetched() {
    let server = Server::bind().await;
    let (app, mut source) = App::new(&server);
    app.give("1");
    let mut first = connect(&mut source, &server, format!("{OPEN}{}", expiring(LEFT))).await;
    // The first call for new credentials fails. The source makes the next call while it still
    // reads.
    app.fail();
    while app.calls() < 3 {
        first.send("data: x\n\n").await;
        assert_eq!(event(&mut source).await.data, "x");
    }
    // The event `e-2` is incomplete. The next connection must deliver it as a whole.
    first.send("id: e-1\ndata: y\n\nid: e-2\ndata: not").await;
    assert_eq!(event(&mut source).await.data, "y");
    app.give("2");
    let second = reconnect(&mut source, &server, "id: e-2\ndata: not lost\n\n").await;
    assert_request(&second, "2", Some("e-1"));
    assert_eq!(event(&mut source).await.data, "not lost");
}

/// Waits for the time at which the source would fetch credentials. Then sends an event, and asserts
/// that the source delivers the event without a call of the app's function.
async fn assert_no_renewal(app: &App, source: &mut EventSource, mut connection: Connection) {
    let calls = app.calls();
    tokio::time::pause();
    tokio::time::advance(2 * RECONNECTION_TIME_MIN).await;
    tokio::time::resume();
    connection.send("data: still here\n\n").await;
    assert_eq!(event(source).await.data, "still here");
    assert_eq!(app.calls(), calls);
}

#[tokio::test]
async fn credentials_that_end_no_later_than_the_previous_ones_are_not_renewed_again() {
    let server = Server::bind().await;
    let (app, mut source) = App::new(&server);
    app.give("1");
    let _first = connect(&mut source, &server, format!("{OPEN}{}", expiring(LEFT))).await;
    app.give("2");
    let body = format!("{}data: x\n\n", expiring(LEFT));
    let second = reconnect(&mut source, &server, &body).await;
    assert_eq!(event(&mut source).await.data, "x");
    assert_no_renewal(&app, &mut source, second).await;
}

#[tokio::test]
async fn credentials_that_end_later_than_the_previous_ones_are_renewed_again() {
    let server = Server::bind().await;
    let (app, mut source) = App::new(&server);
    app.give("1");
    let _first = connect(&mut source, &server, format!("{OPEN}{}", expiring(LEFT))).await;
    app.give("2");
    let _second = reconnect(&mut source, &server, &expiring(2 * LEFT)).await;
    app.give("3");
    assert_request(&reconnect(&mut source, &server, "").await, "3", Some("e-0"));
}

/// A source without a last event id cannot resume on another connection, so it must not reconnect
/// before the credentials end.
#[tokio::test]
async fn a_stream_without_ids_is_not_replaced_before_the_credentials_end() {
    let server = Server::bind().await;
    let (app, mut source) = App::new(&server);
    app.give("1");
    let body = format!("data: x\n\n{}data: y\n\n", expiring(LEFT));
    let connection = connect(&mut source, &server, body).await;
    assert_eq!(event(&mut source).await.data, "x");
    assert_eq!(event(&mut source).await.data, "y");
    assert_no_renewal(&app, &mut source, connection).await;
}

#[tokio::test]
async fn a_source_without_a_credentials_function_ignores_an_expiry_notice() {
    let server = Server::bind().await;
    let mut source = server.source();
    let body = format!("{OPEN}{}data: x\n\n", expiring(LEFT));
    let first = connect(&mut source, &server, body).await;
    assert_eq!(event(&mut source).await.data, "x");
    drop(first);
    assert!(matches!(interruption(&mut source).await.error, StreamError::Ended));
}

#[tokio::test]
async fn an_expiry_notice_that_cannot_be_parsed_is_ignored() {
    let server = Server::bind().await;
    let (app, mut source) = App::new(&server);
    app.give("1");
    let body = format!("{OPEN}event: downlink.expiring\ndata: soon\n\ndata: x\n\n");
    let connection = connect(&mut source, &server, body).await;
    assert_eq!(event(&mut source).await.data, "x");
    assert_no_renewal(&app, &mut source, connection).await;
}

/// Sends a stream that ends with this notice. Returns the app's function, the source and the
/// server, which has not answered the next request yet.
async fn refused_after(notice: &str) -> (App, EventSource, Server) {
    let server = Server::bind().await;
    let (app, mut source) = App::new(&server);
    app.give("1");
    drop(connect(&mut source, &server, format!("{OPEN}data: x\n\n{notice}")).await);
    assert_eq!(event(&mut source).await.data, "x");
    assert!(matches!(interruption(&mut source).await.error, StreamError::Ended));
    app.give("2");
    (app, source, server)
}

#[tokio::test]
async fn after_a_revocation_the_first_401_ends_the_source() {
    let (app, mut source, server) = refused_after(REVOKED).await;
    let (reason, _) = tokio::join!(end(&mut source), server.answer(refusal(401, "")));
    assert!(matches!(reason, Closed::Failed(StreamError::Status { .. })), "{reason:?}");
    assert_eq!(app.calls(), 2);
}

#[tokio::test]
async fn after_an_expiry_a_401_is_followed_by_one_more_attempt() {
    let (app, mut source, server) = refused_after(EXPIRED).await;
    tokio::join!(interruption(&mut source), server.answer(refusal(401, "")));
    app.give("3");
    assert_request(&reconnect(&mut source, &server, "").await, "3", Some("e-0"));
}

#[tokio::test]
async fn after_a_stream_with_new_credentials_a_401_is_followed_by_one_more_attempt() {
    let (app, mut source, server) = refused_after(REVOKED).await;
    drop(reconnect(&mut source, &server, "").await);
    interruption(&mut source).await;
    app.give("3");
    tokio::join!(interruption(&mut source), server.answer(refusal(401, "")));
    app.give("4");
    assert_request(&reconnect(&mut source, &server, "").await, "4", Some("e-0"));
}

/// A source with the address `/base/events` of this server, fixed headers, and this ticket address.
fn with_ticket(server: &Server, ticket_url: &str) -> EventSource {
    let credentials = Credentials::ticket_url(ticket_url).unwrap();
    let credentials = credentials.with_header("x-fetched", "1").unwrap();
    EventSource::builder(server.url("/base/events?topic=a"))
        .bearer_token("fixed")
        .header("cookie", "c=1")
        .header("proxy-authorization", "fixed")
        .header("x-fixed", "1")
        .credentials(move || ready(Ok::<_, io::Error>(credentials.clone())))
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_relative_ticket_url_is_resolved_against_the_address_of_the_builder() {
    let server = Server::bind().await;
    for (url, requested) in [
        ("/events?ticket=secret", "/events?ticket=secret"),
        ("other?ticket=secret", "/base/other?ticket=secret"),
        ("?ticket=secret", "/base/events?ticket=secret"),
    ] {
        let mut source = with_ticket(&server, url);
        let (opened, connection) = tokio::join!(opened(&mut source), server.open(""));
        assert_eq!(connection.request_line(), format!("GET {requested} HTTP/1.1"));
        assert_eq!(connection.header("authorization").unwrap(), "Bearer fixed");
        assert!(!format!("{opened:?}").contains("secret"), "{opened:?}");
    }
}

#[tokio::test]
async fn a_ticket_url_of_another_origin_gets_no_fixed_credentials() {
    let (server, elsewhere) = (Server::bind().await, Server::bind().await);
    let mut source = with_ticket(&server, &elsewhere.url("/events?ticket=secret"));
    let (_, connection) = tokio::join!(opened(&mut source), elsewhere.open(""));
    for name in ["authorization", "cookie", "proxy-authorization"] {
        assert_eq!(connection.header(name), None, "{name}");
    }
    assert_eq!(connection.header("x-fixed").unwrap(), "1");
    assert_eq!(connection.header("x-fetched").unwrap(), "1");
}

#[test]
fn a_ticket_url_must_be_an_address_for_http() {
    for url in ["ftp://localhost/events", "http://[", "data:,x"] {
        assert!(Credentials::ticket_url(url).is_err(), "{url}");
    }
}
