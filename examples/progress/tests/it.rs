//! Tests of the endpoints and of the program. The tests of the endpoints use a paused clock and no
//! socket.

mod started;
#[expect(dead_code, reason = "a client has to start a job before it can open a stream")]
#[path = "../../basic/tests/support/mod.rs"]
mod support;

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt as _;
use progress::{BODY_BYTES_MAX, JOBS_MAX, Jobs, NUMBERS_MAX};
use serde_json::{Value, json};
use support::{open, program, send};

const PACE: Duration = Duration::from_secs(1);

fn app() -> Router {
    progress::app(Jobs::new(PACE).expect("the settings are valid"))
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

async fn post(app: &Router, body: String) -> (StatusCode, String) {
    let request = Request::post("/jobs").header("content-type", "application/json");
    answer(app, request.body(Body::from(body)).expect("the request is valid")).await
}

async fn order(app: &Router, numbers: &str) -> (StatusCode, String) {
    post(app, json!({ "numbers": numbers }).to_string()).await
}

/// Starts a job. Returns the path of its events.
async fn start(app: &Router, numbers: &str) -> String {
    let (status, answer) = order(app, numbers).await;
    assert_eq!(status, 202, "{answer}");
    let started: Value = serde_json::from_str(&answer).expect("the text is JSON");
    format!("/jobs/{}/events", started["id"].as_str().expect("the answer has an id"))
}

/// The states in a stream, in order.
fn told(seen: &str) -> Vec<Value> {
    let told = seen.lines().filter_map(|line| line.strip_prefix("data: "));
    let told = told.map(|data| serde_json::from_str(data).expect("the text is JSON"));
    told.filter(|value: &Value| value.get("state").is_some()).collect()
}

fn last_id(seen: &str) -> String {
    let mut ids = seen.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.next_back().expect("the stream has an id").to_owned()
}

async fn reconnect(app: &Router, path: &str, id: &str) -> (StatusCode, String) {
    let request = Request::get(path).header("last-event-id", id).body(Body::empty());
    answer(app, request.expect("the request is valid")).await
}

#[tokio::test(start_paused = true)]
async fn job_reports_each_step_and_the_result() {
    let app = app();
    let path = start(&app, "12\n\n 97 \n").await;
    let (_, seen) = reconnect(&app, &path, "").await;
    let expected = [
        json!({"state":"running","done":0,"steps":2,"found":null}),
        json!({"state":"running","done":1,"steps":2,"found":"12 = 2 × 2 × 3"}),
        json!({"state":"running","done":2,"steps":2,"found":"97 is prime"}),
        json!({"state":"done","steps":2,"results":["12 = 2 × 2 × 3","97 is prime"]}),
    ];
    assert_eq!(told(&seen), expected);
}

#[tokio::test(start_paused = true)]
async fn failed_job_reports_the_error_and_ends() {
    let app = app();
    let path = start(&app, "12\n<b>x</b>\n97").await;
    let (_, seen) = reconnect(&app, &path, "").await;
    let error = "Line 2: “<b>x</b>” is not a whole number from 2 to 1000000000000.";
    let failed = json!({"state":"failed","done":1,"steps":3,"error":error});
    assert_eq!(told(&seen).last(), Some(&failed));
}

#[tokio::test(start_paused = true)]
async fn late_reader_gets_the_newest_state_first() {
    let app = app();
    let path = start(&app, "2\n3\n5\n7").await;
    open(&app, &path, "").await.sees(r#""done":2"#).await;
    let mut late = open(&app, &path, "").await;
    let first = told(late.sees("found").await).remove(0);
    assert_eq!(first["done"], 2, "{first}");
}

#[tokio::test(start_paused = true)]
async fn reconnecting_reader_gets_each_missed_step() {
    let app = app();
    let path = start(&app, "2\n3\n5").await;
    let id = last_id(open(&app, &path, "").await.sees(r#""done":1"#).await);
    let (_, whole) = reconnect(&app, &path, "").await;
    assert!(whole.contains(r#""state":"done""#), "{whole}");
    let (_, seen) = reconnect(&app, &path, &id).await;
    let done: Vec<_> = told(&seen).iter().map(|state| state["done"].clone()).collect();
    assert_eq!(done, [json!(2), json!(3), Value::Null]);
}

#[tokio::test(start_paused = true)]
async fn reader_of_the_last_event_gets_204_when_it_reconnects() {
    let app = app();
    let path = start(&app, "2").await;
    let (_, seen) = reconnect(&app, &path, "").await;
    let (status, nothing) = reconnect(&app, &path, &last_id(&seen)).await;
    assert_eq!((status, nothing.as_str()), (StatusCode::NO_CONTENT, ""));

    let (status, again) = reconnect(&app, &path, "").await;
    assert_eq!(status, 200);
    assert_eq!(told(&again).last(), told(&seen).last());
}

#[tokio::test(start_paused = true)]
async fn job_with_too_few_or_too_many_numbers_is_refused() {
    for (count, expected) in
        [(0, 400), (1, 202), (NUMBERS_MAX - 1, 202), (NUMBERS_MAX, 202), (NUMBERS_MAX + 1, 400)]
    {
        let (status, answer) = order(&app(), &"7\n".repeat(count)).await;
        assert_eq!(status, expected, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn job_above_the_limit_is_refused_until_a_job_has_ended() {
    let app = app();
    let first = start(&app, "2").await;
    for _ in 1..JOBS_MAX {
        start(&app, "2\n3").await;
    }
    let (status, answer) = order(&app, "2").await;
    assert_eq!(status, 503);
    assert!(answer.contains("8 jobs are running. Wait for one of them."), "{answer}");
    reconnect(&app, &first, "").await;
    // The task of the first job ends soon after the job's last event. Only then can another job
    // start.
    while order(&app, "2").await.0 != 202 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn unknown_job_is_not_found() {
    for path in ["/jobs/0123456789abcdef/events", "/jobs/a%0Ab/events", "/jobs/*/events"] {
        let (status, answer) = reconnect(&app(), path, "").await;
        assert_eq!(status, 404, "{path}");
        assert!(answer.contains("There is no such job"), "{answer}");
    }
}

#[tokio::test]
async fn invalid_order_is_refused_with_a_reason() {
    let app = app();
    for (body, reason) in [
        ("", "EOF while parsing"),
        ("{}", "missing field `numbers`"),
        (r#"{"numbers":7}"#, "invalid type: integer `7`"),
    ] {
        let (status, answer) = post(&app, body.into()).await;
        assert_eq!(status, 400, "{body}");
        assert!(answer.contains(reason), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn body_above_the_limit_is_refused() {
    let order = r#"{"numbers":"2"}"#;
    for (bytes, expected) in
        [(BODY_BYTES_MAX - 1, 202), (BODY_BYTES_MAX, 202), (BODY_BYTES_MAX + 1, 413)]
    {
        let body = format!("{order}{}", " ".repeat(bytes - order.len()));
        assert_eq!(post(&app(), body).await.0, expected);
    }
}

#[tokio::test]
async fn new_job_gets_503_if_the_hub_is_closed() {
    let jobs = Jobs::new(PACE).expect("the settings are valid");
    jobs.hub().close();
    let (status, answer) = order(&progress::app(jobs), "2").await;
    assert_eq!(status, 503, "{answer}");
}

#[tokio::test]
async fn page_contacts_no_other_server() {
    for path in ["/", "/progress.css", "/progress.js"] {
        let request = Request::get(path).body(Body::empty()).expect("the request is valid");
        let response = send(&app(), request).await;
        assert_eq!(response.status(), 200);
        let policy =
            response.headers()["content-security-policy"].to_str().expect("the value is ASCII");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

#[cfg(unix)]
mod running {
    use rustix::process::Signal;

    use super::{program, started::Started};

    const PROGRAM: &str = env!("CARGO_BIN_EXE_progress");

    #[tokio::test]
    async fn program_ends_at_a_signal_while_a_job_runs() {
        for signal in [Signal::INT, Signal::TERM] {
            let program = Started::with(PROGRAM, &["0"]).await;
            let order = r#"{"numbers":"2\n3\n5\n7\n11\n13\n17\n19\n23\n29"}"#;
            let answer = program.post("/jobs", "application/json", order).await;
            let id = answer.split(r#"{"id":""#).nth(1).expect(&answer);
            let id = id.split('"').next().expect("the answer has an id");
            program.ends_with_open(&format!("/jobs/{id}/events"), "", signal).await;
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
