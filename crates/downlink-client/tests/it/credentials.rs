//! Tests of credentials: how the client sends them, when it calls the function that fetches new
//! credentials, and how it reacts to a 401.

use downlink_client::{
    Closed, Credentials, EventSource, PublishError, PublishRequest, Publisher, Receipt,
    ReconnectPolicy, StreamError, StreamFormat,
};
use futures_util::stream;
use std::{
    future::ready,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::scripted::{
    Connection, Server, connect, end, failed_by, interruption, opened, refusal, with,
};

const RECEIPT: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 28\r\n\
                       Connection: close\r\n\r\n{\"id\":\"a-1\",\"subscribers\":3}";

/// A source of credentials. Its first call returns the token `1`, the second call the token `2`,
/// and so on.
#[derive(Clone, Default)]
struct Tokens(Arc<AtomicU32>);

impl Tokens {
    fn calls(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    async fn fetch(self) -> Result<Credentials, io::Error> {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        Credentials::bearer_token(&number.to_string()).map_err(io::Error::other)
    }

    fn source(&self, server: &Server) -> EventSource {
        let tokens = self.clone();
        server.builder().credentials(move || tokens.clone().fetch()).build().unwrap()
    }

    fn publisher(&self, server: &Server) -> Publisher {
        let tokens = self.clone();
        let publisher = Publisher::new(server.url("")).unwrap();
        publisher.with_credentials(move || tokens.clone().fetch())
    }
}

/// Publishes while the future `server` answers the requests. Panics if the publish ends before
/// `server` has sent its last answer.
async fn publish<T>(
    publisher: &Publisher,
    request: &PublishRequest,
    server: impl Future<Output = T>,
) -> (Result<Receipt, PublishError>, T) {
    let mut publish = pin!(publisher.publish(request, "x"));
    tokio::select! {
        biased;
        answered = server => (publish.await, answered),
        receipt = &mut publish => panic!("the publish ended too early: {receipt:?}"),
    }
}

#[track_caller]
fn assert_token(connection: &Connection, token: u32) {
    assert_eq!(connection.header("authorization").unwrap(), format!("Bearer {token}"));
}

/// Answers the next request with this status. Asserts that the event source will reconnect. Returns
/// the connection, which holds the request.
async fn refuse(source: &mut EventSource, server: &Server, status: u16) -> Connection {
    let (refused, request) = tokio::join!(interruption(source), server.answer(refusal(status, "")));
    let StreamError::Status { status: seen, .. } = refused.error else {
        panic!("expected an error about a status")
    };
    assert_eq!(seen, status);
    assert_eq!(refused.retry_in, Duration::ZERO, "the policy of these tests has no waits");
    request
}

/// Answers the next request with a 401. Asserts that the 401 ends the event source. Returns the
/// connection, which holds the request.
async fn refuse_for_good(source: &mut EventSource, server: &Server) -> Connection {
    let (reason, request) = tokio::join!(end(source), server.answer(refusal(401, "")));
    let is_401 = matches!(
        reason,
        Closed::Failed(StreamError::Status { status, .. }) if *status == 401
    );
    assert!(is_401, "{reason:?}");
    request
}

#[tokio::test]
async fn a_bearer_token_is_sent_in_the_authorization_header() {
    let server = Server::bind().await;
    let mut source = server.builder().bearer_token("t").build().unwrap();
    let connection = connect(&mut source, &server, "").await;
    assert_eq!(connection.header("authorization").unwrap(), "Bearer t");

    let publisher = Publisher::new(server.url("")).unwrap().with_bearer_token("t").unwrap();
    let request = PublishRequest::to_everyone();
    let (receipt, connection) =
        tokio::join!(publisher.publish(&request, ""), server.answer(RECEIPT));
    assert_eq!(receipt.unwrap().subscribers, 3);
    assert_eq!(connection.header("authorization").unwrap(), "Bearer t");
}

#[tokio::test]
async fn fetched_headers_replace_fixed_headers_of_the_same_name() {
    let server = Server::bind().await;
    let credentials = Credentials::default().with_header("x-key", "fetched").unwrap();
    let builder = server.builder().header("x-key", "fixed").header("x-other", "fixed");
    let builder = builder.credentials(move || ready(Ok::<_, io::Error>(credentials.clone())));
    let connection = connect(&mut builder.build().unwrap(), &server, "").await;
    assert_eq!(connection.header("x-key").unwrap(), "fetched");
    assert_eq!(connection.header("x-other").unwrap(), "fixed");
}

#[tokio::test]
async fn credentials_are_fetched_for_every_attempt() {
    let (server, tokens) = (Server::bind().await, Tokens::default());
    let mut source = tokens.source(&server);
    let first = connect(&mut source, &server, "").await;
    assert_token(&first, 1);
    drop(first);
    interruption(&mut source).await;
    assert_token(&connect(&mut source, &server, "").await, 2);
}

#[tokio::test]
async fn an_error_of_the_credentials_function_is_a_failed_attempt() {
    let server = Server::bind().await;
    let asked = AtomicU32::new(0);
    let builder = server.builder().credentials(move || {
        let is_first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        ready(if is_first { Err("no token") } else { Ok(Credentials::default()) })
    });
    let mut source = builder.build().unwrap();
    let StreamError::Credentials(error) = interruption(&mut source).await.error else {
        panic!("expected an error about credentials")
    };
    assert_eq!(error.to_string(), "no token");
    connect(&mut source, &server, "").await;
}

#[tokio::test]
async fn a_401_is_followed_by_one_attempt_with_new_credentials() {
    let (server, tokens) = (Server::bind().await, Tokens::default());
    let mut source = tokens.source(&server);
    assert_token(&refuse(&mut source, &server, 401).await, 1);
    assert_token(&connect(&mut source, &server, "").await, 2);
}

/// The policy of this test waits three seconds before an ordinary attempt. The function `refuse`
/// asserts that the wait before the attempt with new credentials is zero.
#[tokio::test]
async fn a_401_causes_no_wait_and_does_not_count_as_a_failed_attempt() {
    let (server, tokens) = (Server::bind().await, Tokens::default());
    let fetch = {
        let tokens = tokens.clone();
        move || tokens.clone().fetch()
    };
    let policy = ReconnectPolicy::resilient().attempts_max(1);
    let mut source = server.builder().reconnection(policy).credentials(fetch).build().unwrap();
    refuse(&mut source, &server, 401).await;
    assert_token(&connect(&mut source, &server, "").await, 2);
}

#[tokio::test]
async fn a_second_401_in_a_row_ends_the_event_source() {
    let (server, tokens) = (Server::bind().await, Tokens::default());
    let mut source = tokens.source(&server);
    refuse(&mut source, &server, 401).await;
    assert_token(&refuse_for_good(&mut source, &server).await, 2);
    assert_eq!(tokens.calls(), 2);
}

#[tokio::test]
async fn two_401s_end_the_event_source_even_with_a_503_between_them() {
    let (server, tokens) = (Server::bind().await, Tokens::default());
    let mut source = tokens.source(&server);
    refuse(&mut source, &server, 401).await;
    refuse(&mut source, &server, 503).await;
    assert_token(&refuse_for_good(&mut source, &server).await, 3);
}

#[tokio::test]
async fn a_401_after_an_open_stream_leads_to_new_credentials_again() {
    let (server, tokens) = (Server::bind().await, Tokens::default());
    let mut source = tokens.source(&server);
    refuse(&mut source, &server, 401).await;
    drop(connect(&mut source, &server, "").await);
    interruption(&mut source).await;
    assert_token(&refuse(&mut source, &server, 401).await, 3);
    let (_, connection) = tokio::join!(opened(&mut source), server.open(""));
    assert_token(&connection, 4);
}

#[tokio::test]
async fn a_403_ends_the_event_source_at_once() {
    let (server, tokens) = (Server::bind().await, Tokens::default());
    let fetch = {
        let tokens = tokens.clone();
        move || tokens.clone().fetch()
    };
    let builder = server.builder().credentials(fetch);
    let error = failed_by(builder, &server, &refusal(403, "")).await;
    assert!(matches!(error, StreamError::Status { status, .. } if status == 403));
    assert_eq!(tokens.calls(), 1);
}

#[tokio::test]
async fn in_spec_mode_the_first_401_ends_the_event_source() {
    let (server, tokens) = (Server::bind().await, Tokens::default());
    let fetch = {
        let tokens = tokens.clone();
        move || tokens.clone().fetch()
    };
    let builder = server.builder().reconnection(ReconnectPolicy::spec()).credentials(fetch);
    refuse_for_good(&mut builder.build().unwrap(), &server).await;
    assert_eq!(tokens.calls(), 1);
}

#[tokio::test]
async fn a_401_ends_an_event_source_without_a_credentials_function() {
    let server = Server::bind().await;
    let mut source = server.builder().bearer_token("t").build().unwrap();
    refuse_for_good(&mut source, &server).await;
}

#[tokio::test]
async fn debug_output_of_an_open_connection_shows_no_secret() {
    let server = Server::bind().await;
    let builder = EventSource::builder(server.url("/events?token=hidden"));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nSet-Cookie: a=hidden\r\n\r\n";
    let mut source = builder.build().unwrap();
    let (delivery, _) = with(&mut source, server.answer(head)).await;
    let shown = format!("{delivery:?}");
    assert!(shown.contains("/events") && !shown.contains("hidden"), "{shown}");
}

#[tokio::test]
async fn a_publisher_fetches_credentials_for_every_request() {
    let (server, tokens) = (Server::bind().await, Tokens::default());
    let publisher = tokens.publisher(&server);
    let request = PublishRequest::to_everyone();
    for token in [1, 2] {
        let (receipt, connection) =
            tokio::join!(publisher.publish(&request, "x"), server.answer(RECEIPT));
        assert_eq!(receipt.unwrap().id, "a-1");
        assert_token(&connection, token);
    }
}

#[tokio::test]
async fn a_publish_refused_with_401_is_repeated_once_with_new_credentials() {
    let (server, tokens) = (Server::bind().await, Tokens::default());
    let publisher = tokens.publisher(&server);
    let request = PublishRequest::to_topic("a").idempotency_key("k");
    let (receipt, second) = publish(&publisher, &request, async {
        assert_token(&server.answer(refusal(401, "")).await, 1);
        server.answer(RECEIPT).await
    })
    .await;
    assert_eq!(receipt.unwrap().id, "a-1");
    assert_token(&second, 2);
    assert_eq!(second.request_line(), "POST /events?topic=a HTTP/1.1");
    assert_eq!(second.header("idempotency-key").unwrap(), "k");
    assert_eq!(second.body(), b"x");
}

#[tokio::test]
async fn a_publish_that_gets_a_second_401_fails() {
    let (server, tokens) = (Server::bind().await, Tokens::default());
    let publisher = tokens.publisher(&server);
    let request = PublishRequest::to_everyone();
    let (receipt, _) = publish(&publisher, &request, async {
        server.answer(refusal(401, "")).await;
        server.answer(refusal(401, "")).await
    })
    .await;
    let error = receipt.unwrap_err();
    assert!(matches!(error, PublishError::UnexpectedAnswer { status, .. } if status == 401));
    assert_eq!(tokens.calls(), 2);
}

#[tokio::test]
async fn a_publish_without_a_credentials_function_fails_at_the_first_401() {
    let server = Server::bind().await;
    let publisher = Publisher::new(server.url("")).unwrap().with_bearer_token("t").unwrap();
    let request = PublishRequest::to_everyone();
    let (receipt, _) =
        tokio::join!(publisher.publish(&request, ""), server.answer(refusal(401, "")));
    let error = receipt.unwrap_err();
    assert!(matches!(error, PublishError::UnexpectedAnswer { status, .. } if status == 401));
}

#[tokio::test]
async fn a_published_stream_fails_at_the_first_401() {
    let (server, tokens) = (Server::bind().await, Tokens::default());
    let publisher = tokens.publisher(&server);
    let request = PublishRequest::to_topic("a");
    let items = stream::iter([Ok::<_, io::Error>("1\n".into())]);
    let (receipt, connection) = tokio::join!(
        publisher.publish_stream(&request, StreamFormat::Ndjson, items),
        server.answer(refusal(401, ""))
    );
    let error = receipt.unwrap_err();
    assert!(matches!(error, PublishError::UnexpectedAnswer { status, .. } if status == 401));
    assert_token(&connection, 1);
    assert_eq!(tokens.calls(), 1);
}

#[tokio::test]
async fn a_publish_fails_if_the_credentials_function_fails() {
    let server = Server::bind().await;
    let publisher = Publisher::new(server.url("")).unwrap();
    let publisher = publisher.with_credentials(async || Err::<Credentials, _>("no token"));
    let request = PublishRequest::to_everyone();
    let PublishError::Credentials(error) = publisher.publish(&request, "").await.unwrap_err()
    else {
        panic!("expected an error about credentials")
    };
    assert_eq!(error.to_string(), "no token");
}
