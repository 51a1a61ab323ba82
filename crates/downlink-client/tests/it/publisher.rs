//! Tests of publishing: the request that the client sends, and its result for every kind of answer.

use bytes::Bytes;
use downlink_client::{
    ANSWER_BYTES_MAX, PublishError, PublishRequest, Publisher, Receipt, StreamFormat,
};
use futures_util::stream;
use std::{io, time::Duration};

use crate::scripted::{Connection, Server, refusing};

const RECEIPT: &str = r#"{"id":"abcdefgh-7","subscribers":3}"#;

fn answer(status: &str, content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Retry-After: 2\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn json(body: &str) -> String {
    answer("200 OK", "application/json", body)
}

async fn publish(
    request: PublishRequest,
    answer: String,
) -> (Result<Receipt, PublishError>, Connection) {
    let server = Server::bind().await;
    let publisher = Publisher::new(server.url("")).unwrap();
    tokio::join!(publisher.publish(&request, "hello"), server.answer(answer))
}

async fn error(answer: String) -> PublishError {
    publish(PublishRequest::to_everyone(), answer).await.0.unwrap_err()
}

#[tokio::test]
async fn an_event_is_published_by_a_post_with_its_topic_in_the_query() {
    let request = PublishRequest::to_topic("a b/ü&").event_type("x").idempotency_key("k1");
    let (receipt, connection) = publish(request, json(RECEIPT)).await;
    let receipt = receipt.unwrap();
    assert_eq!((&*receipt.id, receipt.subscribers, receipt.committed), ("abcdefgh-7", 3, true));
    let line = "POST /events?topic=a+b%2F%C3%BC%26&event=x HTTP/1.1";
    assert_eq!(connection.request_line(), line);
    assert_eq!(connection.header("content-type").unwrap(), "text/plain; charset=utf-8");
    assert_eq!(connection.header("idempotency-key").unwrap(), "k1");
    assert_eq!(connection.body(), b"hello");
}

#[tokio::test]
async fn an_event_answered_with_202_is_not_yet_committed() {
    let accepted = answer("202 Accepted", "application/json", RECEIPT);
    let (receipt, _) = publish(PublishRequest::to_everyone(), accepted).await;
    assert!(!receipt.unwrap().committed);
}

#[tokio::test]
async fn the_path_of_the_base_address_is_kept_and_headers_are_sent() {
    let server = Server::bind().await;
    let publisher = Publisher::new(server.url("/live/?x=1")).unwrap();
    let publisher = publisher.with_header("authorization", "Bearer t").unwrap();
    let publisher = publisher.with_http_client(reqwest::Client::new());
    let request = PublishRequest::to_client("c");
    let (_, connection) =
        tokio::join!(publisher.publish(&request, ""), server.answer(json(RECEIPT)));
    assert_eq!(connection.request_line(), "POST /live/events?client=c HTTP/1.1");
    assert_eq!(connection.header("authorization").unwrap(), "Bearer t");
}

#[tokio::test]
async fn the_base_address_may_already_end_with_the_path_events() {
    let server = Server::bind().await;
    for path in ["/events", "/live/events/"] {
        let publisher = Publisher::new(server.url(path)).unwrap();
        let request = PublishRequest::to_client("c");
        let (_, connection) =
            tokio::join!(publisher.publish(&request, ""), server.answer(json(RECEIPT)));
        let line = format!("POST {}?client=c HTTP/1.1", path.trim_end_matches('/'));
        assert_eq!(connection.request_line(), line);
    }
}

#[tokio::test]
async fn an_error_shows_the_detail_of_the_problem() {
    let body = r#"{"type":"urn:p","title":"Busy","status":503,"detail":"Try again.","code":"keys_unavailable","x":1}"#;
    let error = error(answer("503 No", "application/problem+json; charset=utf-8", body)).await;
    let PublishError::Rejected(problem) = &error else { panic!("{error:?}") };
    assert_eq!(problem.status, 503);
    assert_eq!((&*problem.kind, &*problem.title), ("urn:p", "Busy"));
    assert_eq!(problem.code, "keys_unavailable");
    assert_eq!(problem.retry_after, Some(Duration::from_secs(2)));
    assert_eq!(error.to_string(), "the server refused: 503 Try again.");
}

#[tokio::test]
async fn a_problem_without_detail_shows_its_title() {
    let body = r#"{"title":"Forbidden"}"#;
    let error = error(answer("403 No", "application/problem+json", body)).await;
    assert_eq!(error.to_string(), "the server refused: 403 Forbidden");
}

#[tokio::test]
async fn an_answer_that_is_neither_a_receipt_nor_a_problem_is_unexpected() {
    let unexpected = async |answer: String, expected: u16| {
        let error = error(answer).await;
        assert!(
            matches!(error, PublishError::UnexpectedAnswer { status, .. } if status == expected),
            "{error:?}"
        );
    };
    unexpected(json("<html>"), 200).await;
    unexpected(json("{}"), 200).await;
    unexpected(answer("502 No", "text/html", "<html>"), 502).await;
    unexpected(answer("502 No", "application/json", "{}"), 502).await;
    unexpected(answer("400 No", "application/problem+json", "?"), 400).await;
    let elsewhere = "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
    unexpected(elsewhere.to_owned(), 302).await;
}

#[tokio::test]
async fn an_answer_longer_than_the_maximum_is_an_error() {
    let padded = |length| json(&(RECEIPT.to_owned() + &" ".repeat(length - RECEIPT.len())));
    let published = async |length| publish(PublishRequest::to_everyone(), padded(length)).await.0;
    assert!(published(ANSWER_BYTES_MAX - 1).await.is_ok());
    assert!(published(ANSWER_BYTES_MAX).await.is_ok());
    let error = published(ANSWER_BYTES_MAX + 1).await.unwrap_err();
    assert!(matches!(error, PublishError::AnswerTooLarge { bytes_max: ANSWER_BYTES_MAX, .. }));
}

#[tokio::test]
async fn an_answer_that_never_arrives_is_a_timeout() {
    let server = Server::bind().await;
    let limit = Duration::from_secs(7);
    let publisher = Publisher::new(server.url("")).unwrap().with_timeout(limit);
    let request = PublishRequest::to_everyone();
    let silent = async {
        let connection = server.accept().await;
        tokio::time::pause();
        connection
    };
    let (answer, _connection) = tokio::join!(publisher.publish(&request, ""), silent);
    assert!(matches!(answer, Err(PublishError::Timeout { after, .. }) if after == limit));
}

#[tokio::test]
async fn a_refused_connection_is_a_transport_error() {
    let (_reserved, url) = refusing();
    let publisher = Publisher::new(url).unwrap();
    let answer = publisher.publish(&PublishRequest::to_everyone(), "").await;
    assert!(matches!(answer, Err(PublishError::Transport(error)) if error.is_connect()));
}

#[tokio::test]
async fn an_idempotency_key_that_http_cannot_carry_is_an_error() {
    let publisher = Publisher::new("http://127.0.0.1:1").unwrap();
    let request = PublishRequest::to_everyone().idempotency_key("a\nb");
    let answer = publisher.publish(&request, "").await;
    assert!(matches!(answer, Err(PublishError::IdempotencyKey)));
}

async fn publish_stream(format: StreamFormat, body: &str) -> (Option<String>, Connection) {
    let server = Server::bind().await;
    let publisher = Publisher::new(server.url("")).unwrap();
    let request = PublishRequest::to_topic("a").finish_on_end();
    let items = stream::iter([Ok::<_, io::Error>("one\n"), Ok("two\n")]);
    let items = futures_util::StreamExt::map(items, |item| item.map(Bytes::from));
    let (receipt, connection) =
        tokio::join!(publisher.publish_stream(&request, format, items), server.answer(json(body)));
    (receipt.unwrap().id, connection)
}

#[tokio::test]
async fn the_chunks_of_a_stream_are_sent_unchanged() {
    let (id, connection) = publish_stream(StreamFormat::Ndjson, r#"{"id":"abcdefgh-9"}"#).await;
    assert_eq!(id.as_deref(), Some("abcdefgh-9"));
    assert_eq!(connection.request_line(), "POST /events?topic=a&finish_on_end=true HTTP/1.1");
    assert_eq!(connection.header("content-type").unwrap(), "application/x-ndjson");
    assert_eq!(connection.body(), b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n");
}

#[tokio::test]
async fn the_receipt_of_an_event_stream_without_events_has_no_id() {
    let (id, connection) = publish_stream(StreamFormat::EventStream, r#"{"id":null}"#).await;
    assert_eq!(id, None);
    assert_eq!(connection.header("content-type").unwrap(), "text/event-stream");
}

#[tokio::test]
async fn an_error_of_the_published_stream_is_a_transport_error() {
    let server = Server::bind().await;
    let publisher = Publisher::new(server.url("")).unwrap();
    let items = stream::iter([Err::<Bytes, _>(io::Error::other("the model stopped"))]);
    let request = PublishRequest::to_topic("a");
    let answer = publisher.publish_stream(&request, StreamFormat::Ndjson, items).await;
    assert!(matches!(answer, Err(PublishError::Transport(_))), "{answer:?}");
}
