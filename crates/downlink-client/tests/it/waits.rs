//! Tests of time limits with tokio's stopped clock. The clock advances only while the client waits.
//!
//! A test stops the clock only after the connection is made and the server's first bytes are in the
//! socket. With an earlier stop, a timer could fire before the client has read these bytes.

use downlink_client::{IDLE_TIMEOUT_LEARNED_MIN, StreamError};
use std::time::Duration;
use tokio::time::{advance, pause, resume};

use crate::scripted::{Server, comment, connect, event, interruption};

const LIMIT: Duration = Duration::from_secs(20);

/// Waits until the idle timeout ends the connection, and returns the timeout. The caller must have
/// stopped the clock.
async fn idle_after(source: &mut downlink_client::EventSource) -> Duration {
    match interruption(source).await.error {
        StreamError::Idle { after, .. } => after,
        other => panic!("expected an idle timeout: {other:?}"),
    }
}

/// Announces this keep-alive interval to an event source, in `downlink.open`. Returns the idle
/// timeout that the event source derives from the interval.
async fn learned_from(keep_alive_ms: &str) -> Duration {
    let server = Server::bind().await;
    let mut source = server.source();
    let open = format!("event: downlink.open\ndata: {{\"keep_alive_ms\":{keep_alive_ms}}}\n\n");
    let _connection = connect(&mut source, &server, open + "data: x\n\n").await;
    event(&mut source).await;
    pause();
    let after = idle_after(&mut source).await;
    resume();
    after
}

#[tokio::test]
async fn the_connection_ends_if_no_bytes_arrive_within_the_idle_timeout() {
    let server = Server::bind().await;
    let mut source = server.builder().idle_timeout(LIMIT).build().unwrap();
    let connection = connect(&mut source, &server, "data: x\n\n").await;
    event(&mut source).await;
    pause();
    assert_eq!(idle_after(&mut source).await, LIMIT);
    connection.closed().await;
}

#[tokio::test]
async fn comments_restart_the_idle_timeout() {
    let server = Server::bind().await;
    let builder = server.builder().idle_timeout(LIMIT).comments(true);
    let mut source = builder.build().unwrap();
    let mut connection = connect(&mut source, &server, "").await;
    pause();
    for _ in 0..3 {
        advance(LIMIT * 9 / 10).await;
        connection.send(":\n").await;
        assert_eq!(comment(&mut source).await, "");
    }
    assert_eq!(idle_after(&mut source).await, LIMIT);
}

#[tokio::test]
async fn the_idle_timeout_is_derived_from_the_servers_keep_alive_interval() {
    assert_eq!(learned_from("15000").await, Duration::from_secs(45));
}

#[tokio::test]
async fn a_derived_idle_timeout_has_a_minimum() {
    let min = IDLE_TIMEOUT_LEARNED_MIN;
    assert_eq!(learned_from("1").await, min);
    assert_eq!(learned_from("1666").await, min);
    assert_eq!(learned_from("1667").await, Duration::from_millis(5_001));
}

#[tokio::test]
async fn an_idle_timeout_that_the_caller_sets_overrides_the_derived_timeout() {
    let server = Server::bind().await;
    let mut source = server.builder().idle_timeout(LIMIT).build().unwrap();
    let open = "event: downlink.open\ndata: {\"keep_alive_ms\":15000}\n\ndata: x\n\n";
    let _connection = connect(&mut source, &server, open).await;
    event(&mut source).await;
    pause();
    assert_eq!(idle_after(&mut source).await, LIMIT);
}

#[tokio::test]
async fn an_attempt_fails_if_no_answer_arrives_within_the_first_byte_timeout() {
    let server = Server::bind().await;
    let mut source = server.builder().first_byte_timeout(LIMIT).build().unwrap();
    let silent = async {
        let connection = server.accept().await;
        pause();
        connection
    };
    let (interruption, connection) = tokio::join!(interruption(&mut source), silent);
    let StreamError::FirstByteTimeout { after, .. } = interruption.error else {
        panic!("expected a timeout: {interruption:?}")
    };
    assert_eq!(after, LIMIT);
    connection.closed().await;
}

#[tokio::test]
async fn the_first_byte_timeout_does_not_apply_to_an_open_stream() {
    let server = Server::bind().await;
    let mut source = server.builder().first_byte_timeout(LIMIT).build().unwrap();
    let mut connection = connect(&mut source, &server, "").await;
    pause();
    advance(LIMIT * 100).await;
    connection.send("data: x\n\n").await;
    assert_eq!(event(&mut source).await.data, "x");
}
