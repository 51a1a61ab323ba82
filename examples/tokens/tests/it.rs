//! Tests of the endpoints and of the program. The tests of the endpoints use a paused clock and no
//! socket.

#[cfg(unix)]
#[path = "../../progress/tests/started/mod.rs"]
mod started;
#[expect(dead_code, reason = "a client has to send a prompt before it can open a stream")]
#[path = "../../basic/tests/support/mod.rs"]
mod support;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use support::{open, patiently, program, send};
use tokens::{
    Answers, BODY_BYTES_MAX, PROMPT_CHARS_MAX, RUNNING_MAX, TOKEN_EVERY, UNHEARD_MAX, pretend,
};
use tokio::time::Instant;

const PROMPT: &str = "What is <b>this</b>?";

fn answers() -> (Answers, Router) {
    let answers = Answers::new().expect("the settings are valid");
    (answers.clone(), tokens::app(answers))
}

async fn answer(app: &Router, request: Request<Body>) -> (StatusCode, String) {
    let response = send(app, request).await;
    let status = response.status();
    if !status.is_success() {
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
    let body =
        patiently(response.into_body().collect()).await.expect("the body is complete").to_bytes();
    (status, String::from_utf8(body.into()).expect("the text is UTF-8"))
}

async fn post(app: &Router, path: &str, body: String) -> (StatusCode, String) {
    let request = Request::post(path).header("content-type", "application/json");
    answer(app, request.body(Body::from(body)).expect("the request is valid")).await
}

async fn ask_for(app: &Router, prompt: &str) -> (StatusCode, String) {
    post(app, "/ask", json!({ "prompt": prompt }).to_string()).await
}

/// Sends a prompt. Returns the path of the answer.
async fn ask(app: &Router, prompt: &str) -> String {
    let (status, answer) = ask_for(app, prompt).await;
    assert_eq!(status, 202, "{answer}");
    let begun: Value = serde_json::from_str(&answer).expect("the text is JSON");
    format!("/answers/{}", begun["id"].as_str().expect("the answer has an id"))
}

/// Reads a stream to its end. The stream begins after the event with this id.
async fn whole(app: &Router, path: &str, id: &str) -> (StatusCode, String) {
    let request = Request::get(path).header("last-event-id", id).body(Body::empty());
    answer(app, request.expect("the request is valid")).await
}

/// The text of a stream's tokens, and the reason why the answer ended. The reason is missing if the
/// answer has not ended.
fn heard(seen: &str) -> (Vec<String>, Option<String>) {
    let (mut tokens, mut ending) = (Vec::new(), None);
    for data in seen.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let part: Value = serde_json::from_str(data).expect("the text is JSON");
        if let Some(token) = part["token"].as_str() {
            assert_eq!(ending, None, "no token follows the end");
            tokens.push(token.to_owned());
        }
        ending = ending.or_else(|| Some(part["end"].as_str()?.to_owned()));
    }
    (tokens, ending)
}

fn last_id(seen: &str) -> String {
    let mut ids = seen.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.next_back().expect("the stream has an id").to_owned()
}

#[tokio::test(start_paused = true)]
async fn answer_comes_token_by_token_and_ends() {
    let (_, app) = answers();
    let (began, path) = (Instant::now(), ask(&app, PROMPT).await);
    let (_, seen) = whole(&app, &path, "").await;
    let (tokens, ending) = heard(&seen);
    assert_eq!(tokens, pretend::tokens(PROMPT));
    assert_eq!(ending.as_deref(), Some("complete"));
    let steps = u32::try_from(tokens.len() - 1).expect("the number of tokens is small");
    assert!(began.elapsed() >= TOKEN_EVERY * steps, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn lost_connection_loses_no_token_and_repeats_none() {
    let (_, app) = answers();
    let path = ask(&app, PROMPT).await;
    let mut id = String::new();
    let mut tokens = Vec::new();
    for _ in 0..5 {
        let mut stream = open(&app, &path, &id).await;
        let seen = stream.sees("token").await;
        id = last_id(seen);
        tokens.extend(heard(seen).0);
    }
    let (_, rest) = whole(&app, &path, &id).await;
    assert!(!rest.contains("downlink.gap"), "{rest}");
    tokens.extend(heard(&rest).0);
    assert_eq!(tokens, pretend::tokens(PROMPT));
}

#[tokio::test(start_paused = true)]
async fn page_reloaded_halfway_gets_the_answer_from_its_beginning() {
    let (_, app) = answers();
    let path = ask(&app, PROMPT).await;
    let halfway = &pretend::tokens(PROMPT)[10];
    drop(open(&app, &path, "").await.sees(halfway.trim()).await.to_owned());
    let (tokens, ending) = heard(&whole(&app, &path, "").await.1);
    assert_eq!(tokens, pretend::tokens(PROMPT));
    assert_eq!(ending.as_deref(), Some("complete"));
}

#[tokio::test(start_paused = true)]
async fn a_new_reader_gets_an_ended_answer_and_a_reader_of_its_end_gets_204() {
    let (_, app) = answers();
    let path = ask(&app, PROMPT).await;
    let (_, first) = whole(&app, &path, "").await;
    let (status, second) = whole(&app, &path, "").await;
    assert_eq!((status, heard(&second)), (StatusCode::OK, heard(&first)));
    let (status, nothing) = whole(&app, &path, &last_id(&second)).await;
    assert_eq!((status, nothing.as_str()), (StatusCode::NO_CONTENT, ""));
}

#[tokio::test(start_paused = true)]
async fn stopped_answer_publishes_no_further_tokens() {
    let (answers, app) = answers();
    let path = ask(&app, PROMPT).await;
    open(&app, &path, "").await.sees("pret").await;
    let stopped = post(&app, &format!("{path}/stop"), String::new()).await;
    assert_eq!(stopped, (StatusCode::NO_CONTENT, String::new()));
    let (tokens, ending) = heard(&whole(&app, &path, "").await.1);
    assert_eq!(ending.as_deref(), Some("stopped"));
    assert!(pretend::tokens(PROMPT).starts_with(&tokens) && tokens.len() < 10, "{tokens:?}");
    while answers.running() > 0 {
        tokio::task::yield_now().await;
    }
    let again = post(&app, &format!("{path}/stop"), String::new()).await;
    assert_eq!(again.0, 204, "a second stop also gets 204");
}

#[tokio::test(start_paused = true)]
async fn answer_without_readers_stops_by_itself() {
    let (answers, app) = answers();
    let long = "word ".repeat(PROMPT_CHARS_MAX / 5);
    let path = ask(&app, &long).await;
    let began = Instant::now();
    drop(open(&app, &path, "").await);
    while answers.running() > 0 {
        tokio::time::advance(TOKEN_EVERY).await;
        tokio::task::yield_now().await;
    }
    let took = began.elapsed();
    assert!((UNHEARD_MAX..UNHEARD_MAX + 5 * TOKEN_EVERY).contains(&took), "{took:?}");
    let (tokens, ending) = heard(&whole(&app, &path, "").await.1);
    assert_eq!(ending.as_deref(), Some("unheard"));
    assert!(pretend::tokens(&long).starts_with(&tokens));
}

#[tokio::test(start_paused = true)]
async fn answer_with_a_reader_continues() {
    let (_, app) = answers();
    let (long, began) = ("word ".repeat(20), Instant::now());
    let path = ask(&app, &long).await;
    let (tokens, ending) = heard(&whole(&app, &path, "").await.1);
    assert!(began.elapsed() > UNHEARD_MAX, "{:?}", began.elapsed());
    assert_eq!(tokens, pretend::tokens(&long));
    assert_eq!(ending.as_deref(), Some("complete"));
}

#[tokio::test(start_paused = true)]
async fn answer_above_the_limit_is_refused_until_an_answer_has_ended() {
    let (answers, app) = answers();
    let first = ask(&app, "x").await;
    for _ in 1..RUNNING_MAX {
        ask(&app, "x").await;
    }
    assert_eq!(answers.running(), RUNNING_MAX);
    let (status, sentence) = ask_for(&app, "x").await;
    assert_eq!(status, 503);
    assert!(sentence.contains("16 answers are running"), "{sentence}");
    post(&app, &format!("{first}/stop"), String::new()).await;
    while answers.running() == RUNNING_MAX {
        tokio::task::yield_now().await;
    }
    ask(&app, "x").await;
}

#[tokio::test(start_paused = true)]
async fn empty_or_too_long_prompt_is_refused() {
    let (_, app) = answers();
    let counts = [
        (0, 400),
        (1, 202),
        (PROMPT_CHARS_MAX - 1, 202),
        (PROMPT_CHARS_MAX, 202),
        (PROMPT_CHARS_MAX + 1, 400),
    ];
    for (count, expected) in counts {
        let (status, answer) = ask_for(&app, &"é".repeat(count)).await;
        assert_eq!(status, expected, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn body_above_the_limit_is_refused() {
    let (_, app) = answers();
    let question = r#"{"prompt":"x"}"#;
    for (bytes, expected) in
        [(BODY_BYTES_MAX - 1, 202), (BODY_BYTES_MAX, 202), (BODY_BYTES_MAX + 1, 413)]
    {
        let body = format!("{question}{}", " ".repeat(bytes - question.len()));
        assert_eq!(post(&app, "/ask", body).await.0, expected);
    }
}

#[tokio::test]
async fn invalid_question_is_refused_with_a_reason() {
    let (_, app) = answers();
    for (body, reason) in [("", "EOF while parsing"), ("{}", "missing field `prompt`")] {
        let (status, answer) = post(&app, "/ask", body.into()).await;
        assert_eq!(status, 400, "{body}");
        assert!(answer.contains(reason), "{answer}");
    }
}

#[tokio::test]
async fn unknown_answer_is_not_found() {
    let (_, app) = answers();
    for id in ["0123456789abcdef", "a%0Ab", "*"] {
        let (status, sentence) = whole(&app, &format!("/answers/{id}"), "").await;
        assert_eq!(status, 404, "{sentence}");
        let (status, _) = post(&app, &format!("/answers/{id}/stop"), String::new()).await;
        assert_eq!(status, 404);
    }
}

#[tokio::test]
async fn prompt_gets_503_and_starts_no_answer_if_the_hub_is_closed() {
    let (answers, app) = answers();
    answers.hub().close();
    assert_eq!(ask_for(&app, "x").await.0, 503);
    assert_eq!(answers.running(), 0);
}

#[tokio::test]
async fn page_contacts_no_other_server() {
    let (_, app) = answers();
    for path in ["/", "/tokens.css", "/tokens.js"] {
        let request = Request::get(path).body(Body::empty()).expect("the request is valid");
        let response = send(&app, request).await;
        assert_eq!(response.status(), 200);
        let policy =
            response.headers()["content-security-policy"].to_str().expect("the value is ASCII");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

/// The page does not allow input that the server would refuse.
#[tokio::test]
async fn input_field_of_the_page_has_the_limit_of_the_server() {
    let (_, app) = answers();
    let (_, page) = whole(&app, "/", "").await;
    assert!(page.contains(&format!(r#"maxlength="{PROMPT_CHARS_MAX}""#)));
}

#[cfg(unix)]
mod running {
    use rustix::process::Signal;

    use super::{program, started::Started};

    const PROGRAM: &str = env!("CARGO_BIN_EXE_tokens");

    #[tokio::test]
    async fn program_ends_at_a_signal_while_an_answer_runs() {
        for signal in [Signal::INT, Signal::TERM] {
            let program = Started::with(PROGRAM, &["0"]).await;
            let answer = program.post("/ask", "application/json", r#"{"prompt":"x y z"}"#).await;
            let id = answer.split(r#"{"id":""#).nth(1).expect(&answer);
            let id = id.split('"').next().expect("the answer has an id");
            program.ends_with_open(&format!("/answers/{id}"), "", signal).await;
        }
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
