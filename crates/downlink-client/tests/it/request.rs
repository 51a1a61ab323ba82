//! Tests of the request that the client sends: method, headers, body and redirects.

use downlink_client::{
    Closed, Delivery, EventSource, Gap, GapReason, LAST_EVENT_ID_BYTES_MAX, REDIRECTS_MAX,
    StreamError,
};
use http::Method;
use std::future::pending;

use crate::scripted::{Server, connect, end, event, failed_by, gap, interruption, opened, with};

/// An answer that redirects to another address.
fn redirect(status: u16, location: &str) -> String {
    format!(
        "HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\
         Connection: close\r\n\r\n"
    )
}

#[tokio::test]
async fn the_first_request_is_a_get_for_an_event_stream() {
    let server = Server::bind().await;
    let connection = connect(&mut server.source(), &server, "").await;
    assert_eq!(connection.request_line(), "GET /events HTTP/1.1");
    assert_eq!(connection.header("accept").unwrap(), "text/event-stream");
    assert_eq!(connection.header("cache-control").unwrap(), "no-cache");
    assert_eq!(connection.header("last-event-id"), None);
    assert_eq!(connection.header("accept-encoding"), None);
}

#[tokio::test]
async fn a_header_replaces_an_earlier_or_default_header_of_the_same_name() {
    let server = Server::bind().await;
    let builder = server.builder().header("x-a", "1").header("x-a", "2").header("accept", "*/*");
    let connection = connect(&mut builder.build().unwrap(), &server, "").await;
    assert_eq!(connection.header("x-a").unwrap(), "2");
    assert_eq!(connection.header("accept").unwrap(), "*/*");
}

#[tokio::test]
async fn the_body_is_sent_again_on_reconnect() {
    let server = Server::bind().await;
    let builder = server.builder().method(Method::POST).body("{\"q\":1}");
    let mut source = builder.header("content-type", "application/json").build().unwrap();
    let first = connect(&mut source, &server, "").await;
    assert_eq!(first.request_line(), "POST /events HTTP/1.1");
    assert_eq!(first.body(), b"{\"q\":1}");
    drop(first);
    interruption(&mut source).await;
    let second = connect(&mut source, &server, "").await;
    assert_eq!(second.body(), b"{\"q\":1}");
    assert_eq!(second.header("content-type").unwrap(), "application/json");
}

#[tokio::test]
async fn an_initial_last_event_id_is_sent() {
    let server = Server::bind().await;
    let mut source = server.builder().last_event_id("7").build().unwrap();
    let connection = connect(&mut source, &server, "data: x\n\n").await;
    assert_eq!(connection.header("last-event-id").unwrap(), "7");
    assert_eq!(&*event(&mut source).await.last_event_id, "7");
}

#[tokio::test]
async fn an_id_that_is_too_long_for_a_header_gives_a_gap() {
    let server = Server::bind().await;
    let id = "x".repeat(LAST_EVENT_ID_BYTES_MAX + 1);
    let mut source = server.builder().last_event_id(&id).build().unwrap();
    let connection = connect(&mut source, &server, "").await;
    assert_eq!(connection.header("last-event-id"), None);
    let Gap { reason, after, .. } = gap(&mut source).await;
    assert_eq!((reason, after), (GapReason::UnsendableId, Some(id)));
}

#[tokio::test]
async fn an_id_at_the_limit_is_sent() {
    let server = Server::bind().await;
    let id = "x".repeat(LAST_EVENT_ID_BYTES_MAX);
    let mut source = server.builder().last_event_id(&id).build().unwrap();
    let connection = connect(&mut source, &server, "data\n\n").await;
    assert_eq!(connection.header("last-event-id").unwrap(), id);
    event(&mut source).await;
}

#[tokio::test]
async fn after_a_redirect_the_next_attempt_uses_the_original_address() {
    for status in [301, 302, 303, 307, 308] {
        let server = Server::bind().await;
        let mut source = server.source();
        let (opening, first) = tokio::join!(opened(&mut source), async {
            let first = server.answer(redirect(status, "/moved")).await;
            let second = server.open("").await;
            assert_eq!(second.request_line(), "GET /moved HTTP/1.1");
            first
        });
        assert_eq!(opening.url.path(), "/moved");
        assert_eq!(first.request_line(), "GET /events HTTP/1.1");
        interruption(&mut source).await;
        let third = connect(&mut source, &server, "").await;
        assert_eq!(third.request_line(), "GET /events HTTP/1.1", "after {status}");
    }
}

#[tokio::test]
async fn a_redirect_to_another_origin_drops_authorization_and_cookies() {
    let (server, elsewhere) = (Server::bind().await, Server::bind().await);
    let builder = server.builder().header("authorization", "Bearer a").header("cookie", "c=1");
    let mut source = builder.build().unwrap();
    let (_, (same, other)) = with(&mut source, async {
        server.answer(redirect(307, "/same")).await;
        let same = server.answer(redirect(307, &elsewhere.url("/other"))).await;
        (same, elsewhere.open("").await)
    })
    .await;
    assert_eq!(same.header("authorization").unwrap(), "Bearer a");
    assert_eq!(other.request_line(), "GET /other HTTP/1.1");
    assert_eq!(other.header("authorization"), None);
    assert_eq!(other.header("cookie"), None);
}

/// Answers `count` requests with redirects, and then opens a stream. Returns the first delivery and
/// the event source.
async fn after_redirects(count: usize) -> (Option<Delivery>, EventSource) {
    let server = Server::bind().await;
    let mut source = server.source();
    let script = async {
        for _ in 0..count {
            server.answer(redirect(302, "/events")).await;
        }
        server.open("").await
    };
    let delivery = tokio::select! {
        biased;
        delivery = source.next() => delivery,
        _ = async { let _open = script.await; pending::<()>().await } => None,
    };
    (delivery, source)
}

#[tokio::test]
async fn redirects_are_followed_up_to_their_limit() {
    let is_open = |delivery| matches!(delivery, Some(Delivery::Open(_)));
    assert!(is_open(after_redirects(REDIRECTS_MAX - 1).await.0));
    assert!(is_open(after_redirects(REDIRECTS_MAX).await.0));
}

#[tokio::test]
async fn redirects_above_their_limit_end_the_event_source() {
    let (delivery, mut source) = after_redirects(REDIRECTS_MAX + 1).await;
    assert!(delivery.is_none(), "{delivery:?}");
    let reason = end(&mut source).await;
    assert!(matches!(reason, Closed::Failed(StreamError::Redirect(_))), "{reason:?}");
}

#[tokio::test]
async fn a_redirect_without_an_address_ends_the_event_source() {
    let server = Server::bind().await;
    let answer = "HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n";
    let error = failed_by(server.builder(), &server, answer).await;
    assert!(matches!(error, StreamError::Status { status, .. } if status == 301));
}
