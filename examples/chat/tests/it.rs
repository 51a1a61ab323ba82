//! Tests of the endpoints and of the program. The tests of the endpoints use no socket.

#[path = "../../basic/tests/support/mod.rs"]
mod support;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use chat::{BODY_BYTES_MAX, HISTORY_EVENTS, Message};
use downlink::{
    Hub,
    hub::{HubRetention, Retention},
};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use support::{open, program, send};

fn app() -> Router {
    chat::app(Hub::json())
}

/// Posts a body. Returns the status and the body of the answer.
async fn post(app: &Router, body: impl Into<Body>) -> (StatusCode, String) {
    let request = Request::post("/messages").header("content-type", "application/json");
    answer(app, request.body(body.into()).expect("the request is valid")).await
}

async fn answer(app: &Router, request: Request<Body>) -> (StatusCode, String) {
    let response = send(app, request).await;
    let status = response.status();
    if !status.is_success() {
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
    let body = response.into_body().collect().await.expect("the body is complete").to_bytes();
    (status, String::from_utf8(body.into()).expect("the text is UTF-8"))
}

/// Posts a text as Alice.
async fn say(app: &Router, text: &str) {
    let (status, answer) = post(app, format!(r#"{{"user":"Alice","text":"{text}"}}"#)).await;
    assert_eq!(status, 202, "{answer}");
}

/// The texts of all messages in a stream, in order.
fn texts(seen: &str) -> Vec<String> {
    let messages = seen.lines().filter_map(|line| line.strip_prefix(r#"data: {"user""#));
    let text = |rest: &str| {
        let message: serde_json::Value = serde_json::from_str(&format!(r#"{{"user"{rest}"#))?;
        Ok::<_, serde_json::Error>(
            message["text"].as_str().expect("the text is a string").to_owned(),
        )
    };
    messages.map(|rest| text(rest).expect("the text is JSON")).collect()
}

/// The last id in a stream.
fn last_id(seen: &str) -> String {
    let mut ids = seen.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.next_back().expect("the stream has an id").to_owned()
}

#[tokio::test]
async fn everyone_gets_a_message_with_the_time() {
    let app = app();
    let mut streams = [open(&app, "/events", "").await, open(&app, "/events", "").await];
    let before = Timestamp::now().as_millisecond();
    let accepted = post(&app, r#"{"user":"Alice","text":"<b>Hi</b>"}"#).await;
    assert_eq!(accepted, (StatusCode::ACCEPTED, r#"{"clients":2}"#.into()));
    let after = Timestamp::now().as_millisecond();
    for stream in &mut streams {
        let seen = stream.sees("\"}\n\n").await;
        assert!(seen.starts_with(": connected\n\nevent: downlink.open\n"), "{seen}");
        let message = seen.split_once("}\n\nid: ").expect("the event has no type").1;
        let data = message.split_once("\ndata: ").expect("the event has data").1;
        let said: serde_json::Value = serde_json::from_str(data).expect("the text is JSON");
        assert_eq!((&said["user"], &said["text"]), (&"Alice".into(), &"<b>Hi</b>".into()));
        let at: Timestamp = said["timestamp"]
            .as_str()
            .expect("the value is text")
            .parse()
            .expect("the time is valid");
        assert!((before..=after).contains(&at.as_millisecond()), "{at}");
    }
}

#[tokio::test]
async fn message_without_readers_is_accepted_and_kept() {
    let app = app();
    let accepted = post(&app, r#"{"text":"Hello?"}"#).await;
    assert_eq!(accepted, (StatusCode::ACCEPTED, r#"{"clients":0}"#.into()));
    let mut late = open(&app, "/events", "").await;
    late.sees(r#"data: {"user":"Anonymous","text":"Hello?","timestamp":""#).await;
}

#[tokio::test]
async fn new_client_gets_the_newest_messages() {
    let app = app();
    for number in 1..=HISTORY_EVENTS + 10 {
        say(&app, &format!("number {number}")).await;
    }
    let mut stream = open(&app, "/events", "").await;
    let seen = stream.sees("number 60").await;
    let expected: Vec<_> = (11..=60).map(|number| format!("number {number}")).collect();
    assert_eq!(texts(seen), expected);
    assert!(!seen.contains("downlink.gap"), "a new client gets no gap for older messages: {seen}");
}

#[tokio::test]
async fn reconnecting_client_gets_the_missed_messages() {
    let app = app();
    let mut stream = open(&app, "/events", "").await;
    say(&app, "before").await;
    let id = last_id(stream.sees("before\"").await);
    drop(stream);
    let missed: Vec<_> = (1..=2 * HISTORY_EVENTS).map(|number| format!("m{number}")).collect();
    for text in &missed {
        say(&app, text).await;
    }
    let mut stream = open(&app, "/events", &id).await;
    let seen = stream.sees("\"m100\"").await;
    assert_eq!(texts(seen), missed);
    assert!(seen.contains(r#"{"resumed":true"#), "{seen}");
}

#[tokio::test]
async fn client_that_left_an_empty_room_gets_the_first_message_when_it_reconnects() {
    let app = app();
    let id = last_id(open(&app, "/events", "").await.sees("keep_alive_ms").await);
    say(&app, "first").await;
    assert_eq!(texts(open(&app, "/events", &id).await.sees("first").await), ["first"]);
}

#[tokio::test]
async fn client_gets_a_gap_for_evicted_messages() {
    let short = Retention { events_max: 2, ..Retention::DEFAULT };
    let retention = HubRetention::default().everyone(short);
    let hub = Hub::<Message>::builder()
        .json()
        .retention(retention)
        .build()
        .expect("the settings are valid");
    let app = chat::app(hub);
    let id = last_id(open(&app, "/events", "").await.sees("keep_alive_ms").await);
    for text in ["one", "two", "three"] {
        say(&app, text).await;
    }
    let mut stream = open(&app, "/events", &id).await;
    let seen = stream.sees("three").await;
    assert!(seen.contains("event: downlink.gap\n"), "{seen}");
    assert!(seen.contains(r#"{"reason":"evicted""#), "{seen}");
    assert_eq!(texts(seen), ["two", "three"]);
}

#[tokio::test]
async fn invalid_message_is_refused_with_a_reason() {
    let app = app();
    let mut stream = open(&app, "/events", "").await;
    for (body, reason) in [
        ("", "EOF while parsing"),
        (r#"{"text":"x""#, "EOF while parsing"),
        ("null", "invalid type: null"),
        (r#"{"user":"Alice"}"#, "missing field `text`"),
        (r#"{"user":7,"text":"x"}"#, "invalid type: integer `7`"),
        (r#"{"user":"Alice","text":" "}"#, "The text is empty. Write something."),
    ] {
        let (status, answer) = post(&app, body).await;
        assert_eq!(status, 400, "{body}");
        let problem: serde_json::Value = serde_json::from_str(&answer).expect("the text is JSON");
        assert!(
            problem["detail"].as_str().expect("the detail is text").contains(reason),
            "{answer}"
        );
    }
    say(&app, "the only one").await;
    assert_eq!(texts(stream.sees("\"}\n\n").await), ["the only one"]);
}

#[tokio::test]
async fn body_above_the_limit_is_refused() {
    let app = app();
    let body = |bytes: usize| {
        let message = r#"{"text":"x"}"#;
        format!("{message}{}", " ".repeat(bytes - message.len()))
    };
    for bytes in [BODY_BYTES_MAX - 1, BODY_BYTES_MAX] {
        assert_eq!(post(&app, body(bytes)).await.0, 202);
    }
    let (status, answer) = post(&app, body(BODY_BYTES_MAX + 1)).await;
    assert_eq!(status, 413);
    assert!(answer.contains("at most 32768 bytes"), "{answer}");
}

/// A page of another site can post any body. But the browser sends the media type of JSON only
/// after a preflight request, which this server does not allow. So the server requires this media
/// type.
#[tokio::test]
async fn media_type_other_than_json_is_refused() {
    let request = Request::post("/messages").header("content-type", "text/plain");
    let request = request.body(Body::from(r#"{"text":"x"}"#)).expect("the request is valid");
    let (status, answer) = answer(&app(), request).await;
    assert_eq!(status, 415);
    assert!(answer.contains("application/json"), "{answer}");
}

#[tokio::test]
async fn message_gets_503_if_the_hub_is_closed() {
    let hub = Hub::json();
    hub.close();
    let (status, answer) = post(&chat::app(hub), r#"{"text":"x"}"#).await;
    assert_eq!(status, 503, "{answer}");
}

#[tokio::test]
async fn page_contacts_no_other_server() {
    let app = app();
    for (path, media_type) in
        [("/", "text/html"), ("/chat.css", "text/css"), ("/chat.js", "text/javascript")]
    {
        let request = Request::get(path).body(Body::empty()).expect("the request is valid");
        let response = send(&app, request).await;
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], format!("{media_type}; charset=utf-8"));
        let policy = headers["content-security-policy"].to_str().expect("the value is ASCII");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let body = response.into_body().collect().await.expect("the body is complete").to_bytes();
        let text = std::str::from_utf8(&body).expect("the text is UTF-8");
        assert!(!text.contains("://"), "{path} names another server");
    }
}

/// The page does not allow input that the server would refuse.
#[tokio::test]
async fn input_fields_of_the_page_have_the_limits_of_the_server() {
    let request = Request::get("/").body(Body::empty()).expect("the request is valid");
    let (_, page) = answer(&app(), request).await;
    for (id, chars_max) in [("user", chat::USER_CHARS_MAX), ("text", chat::TEXT_CHARS_MAX)] {
        let field = format!(r#"<input id="{id}" maxlength="{chars_max}""#);
        assert!(page.contains(&field), "{field}");
    }
}

#[cfg(unix)]
mod started {
    use rustix::process::Signal;

    use super::program;

    const PROGRAM: &str = env!("CARGO_BIN_EXE_chat");

    #[tokio::test]
    async fn program_ends_at_ctrl_c() {
        program::ends_with_an_open_stream(PROGRAM, "/events", Signal::INT).await;
    }

    #[tokio::test]
    async fn program_ends_at_sigterm() {
        program::ends_with_an_open_stream(PROGRAM, "/events", Signal::TERM).await;
    }

    #[tokio::test]
    async fn the_error_names_the_port_that_is_in_use() {
        program::names_a_port_in_use(PROGRAM).await;
    }

    #[tokio::test]
    async fn the_port_is_set_by_the_argument_or_by_the_variable() {
        program::takes_its_port_from_argument_or_variable(PROGRAM).await;
    }
}
