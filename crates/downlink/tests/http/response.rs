//! Tests of the heads of responses, of refusals, and of the types that axum uses as responses and
//! extractors.

use axum::extract::FromRequestParts;
use axum::response::IntoResponse;
use downlink::http::{Finite, Problem, Spread, refuse};
use downlink::{Frame, LastEventId, Sse};
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;

use super::SECOND;

/// The status and all headers as text.
fn head<B>(response: &Response<B>) -> String {
    let mut lines = vec![response.status().as_str().to_owned()];
    lines.extend(
        response.headers().iter().map(|(name, value)| {
            format!("{name}: {}", value.to_str().expect("the header is ASCII"))
        }),
    );
    lines.join("\n")
}

#[tokio::test]
async fn a_stream_has_exactly_the_headers_of_an_event_stream() {
    let response = Sse::new(stream::pending::<Frame>()).into_http_response();
    assert_eq!(
        head(&response),
        "200\ncontent-type: text/event-stream\ncache-control: no-store, no-transform\n\
         x-accel-buffering: no"
    );
    assert_eq!(response.extensions().get::<Finite>(), None);
}

/// The source of a finite stream ends the stream by itself. So a drain lets the stream run until
/// the deadline. The mark tells the server that the stream is finite.
#[tokio::test]
async fn a_finite_stream_is_marked_for_the_server() {
    let response = Sse::new(stream::pending::<Frame>()).finite().into_http_response();
    assert_eq!(response.extensions().get::<Finite>(), Some(&Finite));
}

#[tokio::test]
async fn axum_accepts_a_stream_as_a_response() {
    let sse = Sse::new(stream::iter([Frame::comment("a")])).finite();
    let response: axum::response::Response = sse.into_response();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(response.extensions().get::<Finite>().is_some());
    let body = response.into_body().collect().await.expect("the body does not fail").to_bytes();
    assert_eq!(body, ": connected\n\n: a\n\n");
}

#[tokio::test]
async fn a_refused_browser_gets_a_stream_that_ends() {
    let response = refuse("full\nhouse", Spread::between(2 * SECOND, 3 * SECOND), true);
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let body = response.into_body().collect().await.expect("the body cannot fail").to_bytes();
    let text = std::str::from_utf8(&body).expect("the bytes are UTF-8");
    let retry = text
        .strip_prefix(": full\n: house\n\nretry: ")
        .expect("the retry field follows the reason");
    let millis: u64 = retry
        .strip_suffix("\n\n")
        .expect("the frame is complete")
        .parse()
        .expect("the value is a number");
    assert!((2_000..=3_000).contains(&millis));
}

#[tokio::test]
async fn a_refused_client_that_is_not_a_browser_gets_the_status_503() {
    let response = refuse("Full house.", Spread::between(2 * SECOND, 3 * SECOND), false);
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let seconds: u64 = response.headers()["retry-after"]
        .to_str()
        .expect("the header is ASCII")
        .parse()
        .expect("the value is a number");
    assert!((2..=3).contains(&seconds));
    let body = response.into_body().collect().await.expect("the body cannot fail").to_bytes();
    let problem: serde_json::Value = serde_json::from_slice(&body).expect("the body is JSON");
    assert_eq!(problem["status"], 503);
    assert_eq!(problem["detail"], "Full house.");
}

#[tokio::test]
async fn refused_clients_get_random_retry_times() {
    let spread = Spread::between(SECOND, 100 * SECOND);
    let after = || refuse("", spread, false).headers()["retry-after"].clone();
    let first = after();
    assert!((0..50).any(|_| after() != first));
}

#[tokio::test]
async fn axum_accepts_a_problem_as_a_response() {
    let response = Problem::new(StatusCode::GONE).detail("It left.").into_response();
    assert_eq!(
        head(&response),
        "410\ncontent-type: application/problem+json\ncache-control: no-store"
    );
}

#[tokio::test]
async fn last_event_id_is_an_extractor_of_axum() {
    let request = Request::get("/?topic=a&last_event_id=x-1").header("sec-fetch-mode", "cors");
    let (mut parts, ()) = request.body(()).expect("the request is valid").into_parts();
    let Ok(last) = LastEventId::from_request_parts(&mut parts, &()).await;
    assert_eq!(last.as_str(), Some("x-1"));
    assert!(last.is_browser());
}

/// The answer must not show the client an error from the app's code. The app can log the error.
#[test]
fn the_answer_does_not_show_the_cause_of_an_encoding_failure() {
    let failing = |_: &()| Err(std::io::Error::other("table users is locked"));
    let hub = downlink::Hub::with(failing);
    let error = hub.to("a").publish(()).expect_err("the value has no encoding");
    let problem = error.to_problem();
    assert_eq!(problem.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!problem.to_json().contains("users"), "{}", problem.to_json());
}
