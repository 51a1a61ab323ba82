//! Tests of parsing an event's data as JSON, and of the error if the data is not the expected JSON.

use downlink_client::{ERROR_EXCERPT_BYTES_MAX, EventDataError, ReceivedEvent};
use serde::Deserialize;

use crate::scripted::{Server, connect, event};

#[derive(Debug, Deserialize, PartialEq)]
struct Order<'a> {
    number: u64,
    state: &'a str,
}

/// Sends one event over a connection and returns the event that the client has received.
async fn received(event_type: &str, data: &str) -> ReceivedEvent {
    let server = Server::bind().await;
    let mut source = server.source();
    let stream = format!("event: {event_type}\ndata: {data}\n\n");
    let _connection = connect(&mut source, &server, stream).await;
    event(&mut source).await
}

async fn error(event_type: &str, data: &str) -> EventDataError {
    received(event_type, data).await.json::<Order<'_>>().unwrap_err()
}

#[tokio::test]
async fn data_is_parsed_as_json_and_the_result_may_borrow_from_it() {
    let event = received("order", r#"{"number":7,"state":"paid"}"#).await;
    let order = event.json::<Order<'_>>().unwrap();
    assert_eq!(order, Order { number: 7, state: "paid" });
}

#[tokio::test]
async fn data_that_is_not_json_gives_an_error_with_the_position() {
    let error = error("order", "{\"number\":7,\ndata: x}").await;
    assert_eq!((&*error.event_type, error.line, error.column), ("order", 2, 1));
    assert_eq!(
        error.to_string(),
        "unexpected data of an event \"order\" at line 2, column 1: \
         key must be a string"
    );
}

#[tokio::test]
async fn data_of_an_unexpected_type_gives_an_error_with_the_reason() {
    let error = error("message", r#"{"number":"7"}"#).await;
    assert!(error.reason.starts_with("invalid type: string \"7\", expected u64"), "{error}");
}

/// The parser's message ends with a position, which the error removes. The error must not remove
/// quoted data that looks like a position.
#[tokio::test]
async fn quoted_data_that_looks_like_a_position_stays_in_the_reason() {
    let error = error("message", r#"{"number":"x at line 1 column 33"}"#).await;
    assert_eq!((error.line, error.column), (1, 33));
    let quoted = r#"invalid type: string "x at line 1 column 33", expected u64"#;
    assert_eq!(error.reason, quoted);
}

/// The JSON parser's message quotes the unexpected text. This text may be long, so the message must
/// be shortened.
#[tokio::test]
async fn an_error_shows_only_the_start_of_long_data_and_of_a_long_type() {
    let long = "é".repeat(ERROR_EXCERPT_BYTES_MAX);
    let error = error(&long, &format!(r#"{{"number":"{long}"}}"#)).await;
    let expected = ERROR_EXCERPT_BYTES_MAX;
    assert_eq!(error.event_type.len(), expected);
    assert!((expected - 1..=expected).contains(&error.reason.len()), "{error}");
    assert!(error.to_string().len() < 3 * expected, "{error}");
}
