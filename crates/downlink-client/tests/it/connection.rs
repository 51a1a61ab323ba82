//! Tests of one connection, from the head of the answer to the end of its body.

use downlink_client::{DecodeError, DecoderLimits, ReadyState, ReconnectPolicy, StreamError};
use futures_util::{FutureExt as _, StreamExt as _};

use crate::scripted::{
    STREAM_HEAD, Server, comment, connect, end, event, failed_by, interrupted_by, interruption,
    opened, refusing, with,
};

fn with_type(content_type: &str) -> String {
    STREAM_HEAD.replace("text/event-stream", content_type)
}

#[tokio::test]
async fn events_are_delivered_in_order_after_the_connection_opens() {
    let server = Server::bind().await;
    let mut source = server.source();
    let mut connection = connect(&mut source, &server, "event: a\ndata: 1\n\nda").await;
    assert_eq!(source.ready_state(), ReadyState::Open);
    let first = event(&mut source).await;
    assert_eq!((&*first.event_type, &*first.data), ("a", "1"));
    connection.send("ta: 2\n\n").await;
    let second = event(&mut source).await;
    assert_eq!((&*second.event_type, &*second.data), ("message", "2"));
}

#[tokio::test]
async fn an_event_source_is_a_stream() {
    let server = Server::bind().await;
    let mut source = server.source();
    let _connection = connect(&mut source, &server, "data: 1\n\ndata: 2\n\n").await;
    assert_eq!(source.by_ref().take(2).count().await, 2);
}

#[tokio::test]
async fn an_open_connection_has_the_address_and_headers_of_the_answer() {
    let server = Server::bind().await;
    let mut source = server.source();
    let (opened, _) = tokio::join!(opened(&mut source), server.open(""));
    assert_eq!(opened.url.as_str(), server.url("/events"));
    assert_eq!(opened.headers["content-type"], "text/event-stream");
}

#[tokio::test]
async fn a_stream_that_declares_another_charset_is_read_as_utf_8() {
    let server = Server::bind().await;
    let head = with_type("text/event-stream;charset=windows-1252");
    let mut source = server.source();
    tokio::join!(opened(&mut source), server.answer(head + "data: é\n\n"));
    assert_eq!(event(&mut source).await.data, "é");
}

#[tokio::test]
async fn a_media_type_may_end_with_a_semicolon() {
    let server = Server::bind().await;
    let mut source = server.source();
    tokio::join!(opened(&mut source), server.answer(with_type("text/event-stream;")));
}

#[tokio::test]
async fn a_media_type_other_than_event_stream_ends_the_event_source() {
    let server = Server::bind().await;
    for content_type in ["x bogus", "text/x-bogus", "text/html"] {
        let error = failed_by(server.builder(), &server, &with_type(content_type)).await;
        let StreamError::MediaType { content_type: found, .. } = error else { panic!("{error}") };
        assert_eq!(found.as_deref(), Some(content_type));
    }
}

#[tokio::test]
async fn a_missing_media_type_ends_the_event_source() {
    let server = Server::bind().await;
    let error = failed_by(server.builder(), &server, "HTTP/1.1 200 OK\r\n\r\ndata: x\n\n").await;
    assert!(matches!(error, StreamError::MediaType { content_type: None, .. }));
}

#[tokio::test]
async fn a_compressed_answer_ends_the_event_source() {
    let server = Server::bind().await;
    let answer = STREAM_HEAD.replace("Connection", "Content-Encoding: gzip\r\nConnection");
    let error = failed_by(server.builder(), &server, &answer).await;
    assert!(matches!(error, StreamError::ContentEncoding));
}

#[tokio::test]
async fn in_spec_mode_any_status_other_than_200_ends_the_event_source() {
    let server = Server::bind().await;
    for status in [205, 210, 299, 404, 410, 503] {
        let answer = STREAM_HEAD.replace("200", &status.to_string()) + "data: x\n\n";
        let builder = server.builder().reconnection(ReconnectPolicy::spec());
        let error = failed_by(builder, &server, &answer).await;
        assert!(matches!(error, StreamError::Status { status: found, .. } if found == status));
    }
}

#[tokio::test]
async fn a_broken_connection_and_an_ended_stream_are_different_errors() {
    let server = Server::bind().await;
    let mut source = server.source();
    let answer = STREAM_HEAD.replace("Connection", "Content-Length: 100\r\nConnection");
    tokio::join!(opened(&mut source), server.answer(answer + "data: x\n\n"));
    event(&mut source).await;
    assert!(matches!(interruption(&mut source).await.error, StreamError::Broken(_)));
    drop(connect(&mut source, &server, "").await);
    assert!(matches!(interruption(&mut source).await.error, StreamError::Ended));
}

#[tokio::test]
async fn a_connection_closed_before_the_head_is_a_failed_attempt() {
    let server = Server::bind().await;
    let error = interrupted_by(server.builder(), &server, "").await.error;
    assert!(matches!(error, StreamError::Unanswered(ref cause) if !cause.is_connect()));
}

#[tokio::test]
async fn a_refused_connection_is_a_failed_attempt() {
    let (_reserved, url) = refusing();
    let mut source = downlink_client::EventSource::builder(url).build().unwrap();
    let StreamError::Unanswered(error) = interruption(&mut source).await.error else {
        panic!("expected an attempt without an answer")
    };
    assert!(error.is_connect() && !error.is_timeout());
    assert!(!error.to_string().contains("127.0.0.1"), "the address may hold secrets");
}

#[tokio::test]
async fn a_line_above_its_limit_ends_the_event_source_after_the_earlier_events() {
    let server = Server::bind().await;
    let limits = DecoderLimits::default().line_bytes_max(8);
    let mut source = server.builder().limits(limits).build().unwrap();
    let _connection = connect(&mut source, &server, "data: 12\n\ndata: 123\n\n").await;
    assert_eq!(event(&mut source).await.data, "12");
    assert_eq!(source.ready_state(), ReadyState::Open);
    let reason = format!("{:?}", end(&mut source).await);
    let error = StreamError::Decode(too_long(limits));
    assert_eq!(reason, format!("Failed({error:?})"));
}

fn too_long(limits: DecoderLimits) -> DecodeError {
    let mut decoder = downlink_proto::Decoder::new(limits);
    decoder.handle_bytes(b"data: 123\n").unwrap_err()
}

#[tokio::test]
async fn comments_are_delivered_if_enabled() {
    let server = Server::bind().await;
    let body = ": hi\n\ndata: x\n\n";
    let mut source = server.source();
    let _connection = connect(&mut source, &server, body).await;
    event(&mut source).await;
    let mut source = server.builder().comments(true).build().unwrap();
    let _connection = connect(&mut source, &server, body).await;
    assert_eq!(comment(&mut source).await, " hi");
    event(&mut source).await;
}

#[tokio::test]
async fn dropping_the_event_source_closes_the_socket() {
    let server = Server::bind().await;
    let mut source = server.source();
    let connection = connect(&mut source, &server, "").await;
    drop(source);
    connection.closed().await;
}

#[tokio::test]
async fn dropping_the_event_source_during_an_attempt_closes_the_socket() {
    let server = Server::bind().await;
    let mut source = server.source();
    let connection = tokio::select! {
        connection = server.accept() => connection,
        delivery = source.next() => panic!("a delivery before any answer: {delivery:?}"),
    };
    drop(source);
    connection.closed().await;
}

#[tokio::test]
async fn close_closes_the_socket_and_ends_the_deliveries() {
    let server = Server::bind().await;
    let mut source = server.source();
    let connection = connect(&mut source, &server, "data: 1\n\ndata: 2\n\n").await;
    event(&mut source).await;
    source.close();
    assert_eq!(source.ready_state(), ReadyState::Closed);
    connection.closed().await;
    assert_eq!(end(&mut source).await.to_string(), "closed by the caller");
}

#[tokio::test]
async fn dropping_a_call_of_next_loses_no_delivery() {
    let server = Server::bind().await;
    let mut source = server.source();
    assert!(source.next().now_or_never().is_none());
    let mut connection = connect(&mut source, &server, "").await;
    assert!(source.next().now_or_never().is_none());
    let (_, ()) = with(&mut source, connection.send("data: x\n\ndata: y\n\n")).await;
    assert_eq!(event(&mut source).await.data, "y");
}
