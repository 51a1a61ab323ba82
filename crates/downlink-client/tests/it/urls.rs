//! Tests of event sources with several addresses: when they change to another server, what they
//! send to it, and when they end.

use downlink_client::{
    BuildError, Closed, Credentials, EventSource, EventSourceBuilder,
    FIRST_BYTE_TIMEOUT_SEVERAL_DEFAULT, Interruption, StreamError, URLS_MAX,
};
use std::{error::Error as _, future::ready, io, time::Duration};
use tokio::time::pause;

use crate::scripted::{
    Connection, Server, at_once, connect, end, event, interruption, opened, refusal, refusing,
};

/// The head of a stream that is incomplete unless the server sends a million bytes. So the client
/// sees a broken connection if the server closes it earlier.
const BREAKABLE_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 1000000\r\n\r\n";
const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
const HTML: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\
                    Connection: close\r\n\r\n";

/// An event with this id. Its data is the id.
fn numbered(id: u32) -> String {
    format!("id: {id}\ndata: {id}\n\n")
}

/// The builder of an event source for two servers. It uses the default policy.
fn builder(first: &Server, second: &Server) -> EventSourceBuilder {
    EventSource::builder(first.url("/events?server=1")).add_url(second.url("/events?server=2"))
}

async fn servers() -> (Server, Server) {
    (Server::bind().await, Server::bind().await)
}

/// Connects the source to a stream whose end is a broken connection.
async fn connect_breakable(source: &mut EventSource, server: &Server, body: &str) -> Connection {
    let open = async {
        let mut connection = server.accept().await;
        connection.send([BREAKABLE_HEAD, body].concat()).await;
        connection
    };
    let (opened, connection) = tokio::join!(opened(source), open);
    assert_eq!(opened.url.as_str(), source.url().as_str());
    connection
}

/// Answers the next request of the source. Returns the interruption that follows.
async fn interrupted(source: &mut EventSource, server: &Server, answer: &str) -> Interruption {
    tokio::join!(interruption(source), server.answer(answer)).0
}

#[tokio::test]
async fn after_a_broken_connection_the_source_resumes_at_the_next_address_at_once() {
    let (first, second) = servers().await;
    let mut source = builder(&first, &second).build().unwrap();
    let body = [1, 2].map(numbered).concat();
    let connection = connect_breakable(&mut source, &first, &body).await;
    assert_eq!(event(&mut source).await.data, "1");
    assert_eq!(event(&mut source).await.data, "2");
    drop((connection, first));
    let broken = interruption(&mut source).await;
    assert!(matches!(broken.error, StreamError::Broken(_)), "{broken:?}");
    assert_eq!(broken.retry_in, Duration::ZERO);
    assert_eq!(broken.url.query(), Some("server=1"));
    assert_eq!(source.url().as_str(), second.url("/events?server=2"));
    let connection = connect_breakable(&mut source, &second, &numbered(3)).await;
    assert_eq!(connection.request_line(), "GET /events?server=2 HTTP/1.1");
    assert_eq!(connection.header("last-event-id").unwrap(), "2");
    assert_eq!(event(&mut source).await.data, "3");
}

#[tokio::test]
async fn the_source_tries_all_addresses_at_once_and_waits_after_each_round() {
    let (second, third) = servers().await;
    let (_socket, first) = refusing();
    let mut source = EventSource::builder(first)
        .add_url(second.url("/events"))
        .add_url(third.url("/events"))
        .build()
        .unwrap();
    let unanswered = interruption(&mut source).await;
    assert!(matches!(unanswered.error, StreamError::Unanswered(_)));
    assert_eq!(unanswered.retry_in, Duration::ZERO);
    let refused = interrupted(&mut source, &second, &refusal(503, "Retry-After: 60\r\n")).await;
    assert_eq!(refused.retry_in, Duration::ZERO, "the wait applies only to the second server");
    let refused = interrupted(&mut source, &third, &refusal(429, "")).await;
    let wait = refused.retry_in;
    assert!(wait >= Duration::from_secs(3) && wait < Duration::from_secs(5), "{wait:?}");
}

#[tokio::test]
async fn the_source_finds_a_server_that_comes_back_while_all_others_are_down() {
    let (first, second) = servers().await;
    let mut source = builder(&first, &second).reconnection(at_once()).build().unwrap();
    drop(connect_breakable(&mut source, &first, &numbered(1)).await);
    event(&mut source).await;
    interruption(&mut source).await;
    for _ in 0..3 {
        interrupted(&mut source, &second, &refusal(502, "")).await;
        interrupted(&mut source, &first, &refusal(502, "")).await;
    }
    let connection = connect(&mut source, &second, numbered(2)).await;
    assert_eq!(connection.header("last-event-id").unwrap(), "1");
    assert_eq!(event(&mut source).await.data, "2");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_left_after_ten_seconds() {
    let (first, second) = servers().await;
    let mut source = builder(&first, &second).build().unwrap();
    let silent = async {
        let connection = first.accept().await;
        pause();
        connection
    };
    let (interruption, connection) = tokio::join!(interruption(&mut source), silent);
    tokio::time::resume();
    let StreamError::FirstByteTimeout { after, .. } = interruption.error else {
        panic!("expected a timeout: {interruption:?}")
    };
    assert_eq!(after, FIRST_BYTE_TIMEOUT_SEVERAL_DEFAULT);
    assert_eq!(interruption.retry_in, Duration::ZERO);
    connection.closed().await;
    connect(&mut source, &second, "").await;
}

#[tokio::test]
async fn a_silent_stream_is_left_for_the_next_address() {
    let (first, second) = servers().await;
    let mut source = builder(&first, &second).build().unwrap();
    let open = "event: downlink.open\nid: 1\ndata: {\"keep_alive_ms\":1000}\n\n";
    let connection = connect(&mut source, &first, format!("{open}data: x\n\n")).await;
    event(&mut source).await;
    pause();
    let silent = interruption(&mut source).await;
    tokio::time::resume();
    assert!(matches!(silent.error, StreamError::Idle { .. }), "{silent:?}");
    assert_eq!(silent.retry_in, Duration::ZERO);
    connection.closed().await;
    let connection = connect(&mut source, &second, "").await;
    assert_eq!(connection.header("last-event-id").unwrap(), "1");
}

/// A server that restarts ends its streams with a random `retry:` for each client. If its clients
/// did not wait for this time, they would all go to the next server at once.
#[tokio::test]
async fn after_an_ended_stream_the_source_waits_and_returns_to_the_same_address() {
    let (first, second) = servers().await;
    let mut source = builder(&first, &second).build().unwrap();
    drop(connect(&mut source, &first, format!("{}retry: 500\n\n", numbered(1))).await);
    event(&mut source).await;
    let ended = interruption(&mut source).await;
    assert!(matches!(ended.error, StreamError::Ended));
    assert_eq!(ended.retry_in, Duration::from_millis(500));
    let connection = connect(&mut source, &first, "").await;
    assert_eq!(connection.header("last-event-id").unwrap(), "1");
}

#[tokio::test]
async fn an_answer_about_the_subscription_ends_the_source_at_the_first_server() {
    for status in [400, 401, 403] {
        let (first, second) = servers().await;
        let mut source = builder(&first, &second).bearer_token("x").build().unwrap();
        let (reason, _) = tokio::join!(end(&mut source), first.answer(refusal(status, "")));
        assert!(matches!(reason, Closed::Failed(StreamError::Status { .. })), "{reason:?}");
        assert_eq!(source.url().query(), Some("server=1"));
    }
    let (first, second) = servers().await;
    let mut source = builder(&first, &second).build().unwrap();
    let (reason, _) = tokio::join!(end(&mut source), first.answer(NO_CONTENT));
    assert!(matches!(reason, Closed::NoContent), "{reason:?}");
}

#[tokio::test]
async fn a_wrong_answer_of_one_server_does_not_end_the_source() {
    for wrong in [refusal(404, ""), HTML.to_owned(), refusal(301, "Location: http://[\r\n")] {
        let (first, second) = servers().await;
        let mut source = builder(&first, &second).build().unwrap();
        assert_eq!(interrupted(&mut source, &first, &wrong).await.retry_in, Duration::ZERO);
        connect(&mut source, &second, "").await;
    }
}

#[tokio::test]
async fn the_source_ends_when_each_server_has_given_a_wrong_answer() {
    let (first, second) = servers().await;
    let mut source = builder(&first, &second).build().unwrap();
    interrupted(&mut source, &first, &refusal(404, "")).await;
    let (reason, _) = tokio::join!(end(&mut source), second.answer(HTML));
    assert!(matches!(reason, Closed::Failed(StreamError::MediaType { .. })), "{reason:?}");
}

#[tokio::test]
async fn headers_are_sent_to_all_addresses() {
    let (first, second) = servers().await;
    let builder = builder(&first, &second).bearer_token("fixed").header("cookie", "c=1");
    let mut source = builder.build().unwrap();
    interrupted(&mut source, &first, &refusal(503, "")).await;
    let connection = connect(&mut source, &second, "").await;
    assert_eq!(connection.header("authorization").unwrap(), "Bearer fixed");
    assert_eq!(connection.header("cookie").unwrap(), "c=1");
}

#[tokio::test]
async fn a_ticket_is_sent_to_the_server_whose_turn_it_is() {
    for ticket in ["/events?ticket=secret", "https://a.example/events?ticket=secret"] {
        let (first, second) = servers().await;
        let credentials = Credentials::ticket_url(ticket).unwrap();
        let mut source = EventSource::builder(first.url("/1/events?topic=a"))
            .add_url(second.url("/2/events?topic=a"))
            .credentials(move || ready(Ok::<_, io::Error>(credentials.clone())))
            .build()
            .unwrap();
        let (_, connection) =
            tokio::join!(interruption(&mut source), first.answer(refusal(503, "")),);
        assert_eq!(connection.request_line(), "GET /1/events?ticket=secret HTTP/1.1");
        let connection = connect(&mut source, &second, "").await;
        assert_eq!(connection.request_line(), "GET /2/events?ticket=secret HTTP/1.1");
    }
}

/// The failure of the app's function is not a failure of a server.
#[tokio::test]
async fn without_credentials_the_source_stays_at_its_address_and_waits() {
    let (first, second) = servers().await;
    let source = builder(&first, &second).credentials(|| ready(Err(io::Error::other("no token"))));
    let mut source = source.build().unwrap();
    let failed = interruption(&mut source).await;
    assert!(matches!(failed.error, StreamError::Credentials(_)));
    assert!(failed.retry_in >= Duration::from_secs(3));
    assert_eq!(source.url().query(), Some("server=1"));
}

#[tokio::test]
async fn if_the_server_fails_at_a_renewal_the_source_resumes_at_the_next_address() {
    let (first, second) = servers().await;
    let credentials = Credentials::bearer_token("new").unwrap();
    let mut source = builder(&first, &second)
        .credentials(move || ready(Ok::<_, io::Error>(credentials.clone())))
        .build()
        .unwrap();
    let expiring = "event: downlink.expiring\ndata: {\"in_ms\":60000}\n\n";
    let _connection = connect(&mut source, &first, numbered(1) + expiring).await;
    event(&mut source).await;
    let refused = interrupted(&mut source, &first, &refusal(503, "")).await;
    assert_eq!(refused.retry_in, Duration::ZERO);
    let connection = connect(&mut source, &second, numbered(2)).await;
    assert_eq!(connection.header("last-event-id").unwrap(), "1");
    assert_eq!(event(&mut source).await.data, "2");
}

#[tokio::test]
async fn an_interruption_does_not_show_the_query_of_an_address() {
    let (_socket, url) = refusing();
    let builder = EventSource::builder(format!("{url}/events?ticket=secret"));
    let mut source = builder.add_url("http://127.0.0.1:9/?ticket=secret").build().unwrap();
    let interruption = interruption(&mut source).await;
    assert_eq!(interruption.url.query(), Some("ticket=secret"));
    assert!(!format!("{interruption:?} {source:?}").contains("secret"), "{interruption:?}");
}

fn numbered_urls(count: usize) -> EventSourceBuilder {
    let builder = EventSource::builder("http://h/1");
    (2..=count).fold(builder, |builder, number| builder.add_url(format!("http://h/{number}")))
}

#[test]
fn the_number_of_addresses_has_a_maximum() {
    assert!(numbered_urls(URLS_MAX - 1).build().is_ok());
    assert!(numbered_urls(URLS_MAX).build().is_ok());
    let error = numbered_urls(URLS_MAX + 1).build().unwrap_err();
    assert!(matches!(error, BuildError::TooManyUrls { given: 17, .. }), "{error:?}");
    assert_eq!(error.to_string(), "17 addresses were given, but the maximum is 16: remove some");
}

#[test]
fn an_error_names_the_address_that_cannot_be_used() {
    let error = numbered_urls(2).add_url("ftp://h/").add_url("/events").build().unwrap_err();
    assert_eq!(error.to_string(), "address 3 cannot be used");
    let source = error.source().unwrap().to_string();
    assert_eq!(source, "the address must begin with http:// or https://");
}

#[test]
fn equal_addresses_are_an_error() {
    let error = numbered_urls(3).add_url("http://H:80/2").build().unwrap_err();
    assert!(matches!(error, BuildError::DuplicateUrl { first: 2, second: 4, .. }), "{error:?}");
    assert_eq!(error.to_string(), "addresses 2 and 4 are equal: remove one of them");
}

#[cfg(unix)]
#[test]
fn a_unix_socket_together_with_several_addresses_is_an_error() {
    let error = numbered_urls(2).unix_socket("/run/downlink.sock").build().unwrap_err();
    assert!(matches!(error, BuildError::UnixSocketWithUrls), "{error:?}");
}
