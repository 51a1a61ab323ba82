//! Tests of reconnecting: which state survives a reconnect, how long the event source waits, and
//! which answers end it for good.

use downlink_client::{
    ANSWER_BYTES_MAX, Closed, EMPTY_STREAM_MAX, EventSource, EventSourceBuilder,
    RECONNECTION_TIME_MIN, ReadyState, ReconnectPolicy, StreamError,
};
use std::time::Duration;

use crate::scripted::{
    STREAM_HEAD, Server, at_once, connect, end, event, failed_by, interrupted_by, interruption,
    refusal, refusing,
};

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";

/// Reads one stream to its end and returns the `Last-Event-ID` of the next request.
async fn resumes_with(body: &str) -> Option<String> {
    let server = Server::bind().await;
    let mut source = server.source();
    drop(connect(&mut source, &server, body).await);
    while source.ready_state() == ReadyState::Open {
        assert!(source.next().await.is_some());
    }
    connect(&mut source, &server, "").await.header("last-event-id")
}

/// Reads a stream with this body to its end. Returns how long the event source will wait before it
/// reconnects.
async fn wait_after(body: &str) -> Duration {
    let server = Server::bind().await;
    let mut source = server.source();
    drop(connect(&mut source, &server, body).await);
    interruption(&mut source).await.retry_in
}

#[tokio::test]
async fn the_event_source_reconnects_after_each_stream_until_a_204() {
    let server = Server::bind().await;
    let mut source = server.source();
    drop(connect(&mut source, &server, "data: x\n\n").await);
    event(&mut source).await;
    let interruption = interruption(&mut source).await;
    assert!(matches!(interruption.error, StreamError::Ended));
    assert_eq!(interruption.retry_in, Duration::ZERO, "the policy of these tests has no waits");
    assert_eq!(source.ready_state(), ReadyState::Connecting);
    let (reason, _) = tokio::join!(end(&mut source), server.answer(NO_CONTENT));
    assert!(matches!(reason, Closed::NoContent));
    assert_eq!(source.ready_state(), ReadyState::Closed);
}

#[tokio::test]
async fn a_reconnection_time_with_other_characters_than_digits_is_ignored() {
    assert_eq!(wait_after("retry:03000\n\n").await, Duration::from_secs(3));
    assert_eq!(wait_after("retry:3000\nretry:1000x\n\n").await, Duration::from_secs(3));
    assert_eq!(wait_after("retry:3000\nretry\n\n").await, Duration::from_secs(3));
}

#[tokio::test]
async fn the_reconnection_time_has_a_maximum() {
    let hour = Duration::from_secs(60 * 60);
    assert_eq!(wait_after("retry: 3599999\n\n").await, hour - Duration::from_millis(1));
    assert_eq!(wait_after("retry: 3600000\n\n").await, hour);
    assert_eq!(wait_after("retry: 18446744073709551616\n\n").await, hour);
}

#[tokio::test]
async fn the_reconnection_time_has_a_minimum() {
    assert_eq!(wait_after("retry: 0\n\n").await, RECONNECTION_TIME_MIN);
    assert_eq!(wait_after("retry: 499\n\n").await, RECONNECTION_TIME_MIN);
    assert_eq!(wait_after("retry: 501\n\n").await, Duration::from_millis(501));
}

/// Reads a stream that ends at once. Returns how long the event source would wait before it
/// reconnects, and restarts the source so that the test does not have to wait.
async fn wait_after_empty(source: &mut EventSource, server: &Server, body: &str) -> Duration {
    drop(connect(source, server, body).await);
    // The wait depends on how long the stream was open. With a stopped clock, the stream ends at
    // the time at which it was opened, even on a slow machine.
    tokio::time::pause();
    let wait = interruption(source).await.retry_in;
    tokio::time::resume();
    source.restart();
    wait
}

/// A server may set `retry: 0` and end each stream at once. If the waits did not grow, such a
/// server would get thousands of requests a second.
#[tokio::test]
async fn the_wait_grows_while_streams_end_at_once_without_an_event() {
    fastrand::seed(1);
    let server = Server::bind().await;
    let source = || EventSource::builder(server.url("/events")).build().unwrap();
    let (mut one, mut other) = (source(), source());
    // `downlink.open` is about the connection. So a stream with only this event counts as a stream
    // without events.
    let body = "retry: 0\n\nevent: downlink.open\ndata: {}\n\n: hello\n\n";
    let (mut waits, mut others) = (Vec::new(), Vec::new());
    for ranges in [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs) {
        let wait = wait_after_empty(&mut one, &server, body).await;
        assert!(wait >= RECONNECTION_TIME_MIN && wait < RECONNECTION_TIME_MIN + ranges, "{wait:?}");
        waits.push(wait);
        others.push(wait_after_empty(&mut other, &server, body).await);
    }
    assert!(waits.iter().sum::<Duration>() > Duration::from_secs(20), "{waits:?}");
    assert_ne!(waits, others, "two clients must wait for different times");
}

#[tokio::test]
async fn a_long_stream_or_a_stream_with_an_event_resets_the_wait() {
    let server = Server::bind().await;
    for event_type in ["message", "downlink.event"] {
        let mut source = EventSource::builder(server.url("/events")).build().unwrap();
        for _ in 0..5 {
            wait_after_empty(&mut source, &server, "").await;
        }
        let body = format!("event: {event_type}\ndata: x\n\n");
        let connection = connect(&mut source, &server, &body).await;
        event(&mut source).await;
        drop(connection);
        let ended = interruption(&mut source).await;
        assert_eq!(ended.retry_in, Duration::from_secs(3));
    }
    let mut source = EventSource::builder(server.url("/events")).build().unwrap();
    for _ in 0..5 {
        wait_after_empty(&mut source, &server, "").await;
    }
    let connection = connect(&mut source, &server, "").await;
    tokio::time::pause();
    tokio::time::advance(EMPTY_STREAM_MAX).await;
    drop(connection);
    assert_eq!(interruption(&mut source).await.retry_in, Duration::from_secs(3));
}

#[tokio::test]
async fn the_last_event_id_is_sent_as_utf_8() {
    assert_eq!(resumes_with("id: …\ndata: x\n\n").await.as_deref(), Some("…"));
}

#[tokio::test]
async fn an_event_without_an_id_keeps_the_last_event_id() {
    assert_eq!(resumes_with("id: 1\ndata: x\n\ndata: y\n\n").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn an_id_without_data_sets_the_last_event_id() {
    assert_eq!(resumes_with("id: 1\ndata: x\n\nid: 2\n\n").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn an_empty_id_clears_the_last_event_id() {
    assert_eq!(resumes_with("id: 1\ndata: x\n\nid\ndata: y\n\n").await, None);
}

#[tokio::test]
async fn ids_with_nul_are_ignored() {
    for id in ["\0\0", "x\0", "\0x", "x\0x", " \0"] {
        assert_eq!(resumes_with(&format!("id: {id}\ndata: x\n\n")).await, None);
    }
}

#[tokio::test]
async fn an_unfinished_event_and_its_id_are_dropped() {
    let body = "id: 1\ndata: x\n\nid: test\ndata: y\n";
    assert_eq!(resumes_with(body).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn the_last_event_id_is_kept_during_a_stream_whose_events_have_no_ids() {
    let server = Server::bind().await;
    let mut source = server.source();
    drop(connect(&mut source, &server, "id: 1\ndata: x\n\nid: 9\nda").await);
    event(&mut source).await;
    interruption(&mut source).await;
    let second = connect(&mut source, &server, "data: y\n\n").await;
    assert_eq!(second.header("last-event-id").unwrap(), "1");
    let event = event(&mut source).await;
    assert_eq!((&*event.data, &*event.last_event_id), ("y", "1"));
    drop(second);
    interruption(&mut source).await;
    let third = connect(&mut source, &server, "").await;
    assert_eq!(third.header("last-event-id").unwrap(), "1");
}

#[tokio::test]
async fn every_stream_may_begin_with_a_byte_order_mark() {
    let server = Server::bind().await;
    let mut source = server.source();
    for _ in 0..2 {
        drop(connect(&mut source, &server, "\u{feff}data: x\n\n").await);
        assert_eq!(event(&mut source).await.data, "x");
        interruption(&mut source).await;
    }
}

#[tokio::test]
async fn a_restarted_event_source_resumes_after_the_last_delivered_event() {
    let server = Server::bind().await;
    let mut source = server.source();
    let body = "id: 1\ndata: x\n\nid: 2\ndata: y\n\n";
    let first = connect(&mut source, &server, body).await;
    event(&mut source).await;
    source.restart();
    assert_eq!(source.ready_state(), ReadyState::Connecting);
    first.closed().await;
    let second = connect(&mut source, &server, "data: z\n\n").await;
    assert_eq!(second.header("last-event-id").unwrap(), "1");
    assert_eq!(event(&mut source).await.data, "z");
}

#[tokio::test]
async fn restarting_the_event_source_skips_the_wait() {
    let server = Server::bind().await;
    let mut source = server.source();
    drop(connect(&mut source, &server, "retry: 3600000\n\n").await);
    interruption(&mut source).await;
    source.restart();
    connect(&mut source, &server, "").await;
}

#[tokio::test]
async fn after_a_temporary_refusal_the_event_source_waits_for_the_time_in_retry_after() {
    let server = Server::bind().await;
    for status in [408, 425, 429, 500, 503] {
        let answer = refusal(status, "Retry-After: 20\r\n");
        let interruption = interrupted_by(server.builder(), &server, &answer).await;
        assert_eq!(interruption.retry_in, Duration::from_secs(20));
        let StreamError::Status { status: found, retry_after, .. } = interruption.error else {
            panic!("expected an error about a status")
        };
        assert_eq!(found, status);
        assert_eq!(retry_after, Some(Duration::from_secs(20)));
    }
}

#[tokio::test]
async fn the_wait_set_by_retry_after_has_a_maximum() {
    let server = Server::bind().await;
    let wait = async |seconds: u32| {
        let answer = refusal(503, &format!("Retry-After: {seconds}\r\n"));
        interrupted_by(server.builder(), &server, &answer).await.retry_in.as_secs()
    };
    assert_eq!(wait(3_599).await, 3_599);
    assert_eq!(wait(3_600).await, 3_600);
    assert_eq!(wait(3_601).await, 3_600);
}

#[tokio::test]
async fn after_a_refused_attempt_the_event_source_connects_again() {
    let server = Server::bind().await;
    let mut source = server.source();
    tokio::join!(interruption(&mut source), server.answer(refusal(503, "")));
    let _connection = connect(&mut source, &server, "data: x\n\n").await;
    event(&mut source).await;
}

#[tokio::test]
async fn the_event_source_ends_after_the_maximum_number_of_attempts() {
    let (_reserved, url) = refusing();
    let builder = |policy: ReconnectPolicy| -> EventSourceBuilder {
        downlink_client::EventSource::builder(&url).reconnection(policy)
    };
    let mut source = builder(at_once().attempts_max(2)).build().unwrap();
    interruption(&mut source).await;
    let reason = end(&mut source).await;
    assert!(matches!(reason, Closed::AttemptsSpent(StreamError::Unanswered(_))), "{reason:?}");
}

#[tokio::test]
async fn permanent_refusals_end_the_event_source() {
    let server = Server::bind().await;
    for status in [400, 401, 403, 404, 410] {
        let mut source = server.source();
        let (reason, _) = tokio::join!(end(&mut source), server.answer(refusal(status, "")));
        assert!(matches!(reason, Closed::Failed(StreamError::Status { .. })), "{reason:?}");
    }
}

fn described(content_type: &str, length: usize, body: &str) -> String {
    format!(
        "HTTP/1.1 400 No\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_refusal_shows_the_detail_of_the_problem() {
    const PROBLEM: &str = "application/problem+json";
    let server = Server::bind().await;
    let shown = async |content_type, length, body| {
        let answer = described(content_type, length, body);
        failed_by(server.builder(), &server, &answer).await.to_string()
    };
    let status = "the server answered with status 400 Bad Request";
    let body = r#"{"title":"Bad","detail":"Write a topic."}"#;
    assert_eq!(shown(PROBLEM, body.len(), body).await, format!("{status}: Write a topic."));
    let title = r#"{"title":"Bad"}"#;
    assert_eq!(shown(PROBLEM, title.len(), title).await, format!("{status}: Bad"));
    // If the answer has no problem document that can be parsed, the error shows only the status.
    assert_eq!(shown("text/html", body.len(), body).await, status);
    assert_eq!(shown(PROBLEM, 2, "[]").await, status);
    assert_eq!(shown(PROBLEM, 100, "{").await, status);
    let long = format!(r#"{{"detail":"{}"}}"#, "x".repeat(ANSWER_BYTES_MAX));
    assert_eq!(shown(PROBLEM, long.len(), &long).await, status);
}

#[tokio::test]
async fn a_refusal_has_the_code_of_the_problem() {
    let server = Server::bind().await;
    let body = r#"{"title":"Unauthorized","code":"token_expired"}"#;
    let answer = described("application/problem+json", body.len(), body);
    let StreamError::Status { problem: Some(problem), .. } =
        failed_by(server.builder(), &server, &answer).await
    else {
        panic!("expected a problem")
    };
    assert_eq!(problem.code, "token_expired");
}

#[tokio::test]
async fn a_refusal_is_reported_even_if_its_description_never_arrives() {
    let server = Server::bind().await;
    let mut source = server.source();
    let stalled = async {
        let mut connection = server.accept().await;
        tokio::time::pause();
        connection.send(described("application/problem+json", 100, "{")).await;
        connection
    };
    let (reason, _connection) = tokio::join!(end(&mut source), stalled);
    assert!(matches!(reason, Closed::Failed(StreamError::Status { .. })), "{reason:?}");
}

#[tokio::test]
async fn in_spec_mode_the_source_reconnects_after_a_stream_but_not_after_a_503() {
    let server = Server::bind().await;
    let policy = ReconnectPolicy::spec().reconnection_time(Duration::ZERO);
    let mut source = server.builder().reconnection(policy).build().unwrap();
    drop(connect(&mut source, &server, "").await);
    interruption(&mut source).await;
    let answer = STREAM_HEAD.replace("200", "503");
    let (reason, _) = tokio::join!(end(&mut source), server.answer(answer));
    assert_eq!(reason.to_string(), "the server answered with status 503 Service Unavailable");
}
