//! Tests of the HTTP responses for refusals and errors, and of how response bodies end.

use bytes::Bytes;
use downlink::hub::{
    Batch, Delivery, Hub, LagPolicy, Limits, OpenError, PublishError, Published, Retention,
    Subscribe, SubscribeError, SubscribeErrorKind, Subscription,
};
use downlink::{Event, Frame, LastEventId};
use futures_util::{FutureExt, StreamExt};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Full};

use super::{build, hub, id, keeping, open, refused, say};

fn body(response: Response<Full<Bytes>>) -> String {
    let body = response.into_body().collect().now_or_never().unwrap().unwrap();
    String::from_utf8(body.to_bytes().into()).unwrap()
}

fn is_problem(response: Response<Full<Bytes>>, status: u16, detail: &str) {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let problem: serde_json::Value = serde_json::from_str(&body(response)).unwrap();
    assert_eq!((&problem["status"], &problem["detail"]), (&status.into(), &detail.into()));
}

/// Asserts that this response refuses a browser. Its status is 200, because a browser reconnects
/// only after a 200.
fn is_browser_refusal(response: Response<Full<Bytes>>, reason: &str) {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let body = body(response);
    let retry = body.strip_prefix(&format!(": {reason}\n\nretry: ")).unwrap();
    let millis: u64 = retry.strip_suffix("\n\n").unwrap().parse().unwrap();
    assert!((1_000..=10_000).contains(&millis), "{millis}");
}

/// Asserts that this response refuses a client that is not a browser.
fn is_program_refusal(response: Response<Full<Bytes>>, reason: &str) {
    let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=10).contains(&seconds), "{seconds}");
    is_problem(response, 503, reason);
}

fn browser() -> LastEventId {
    let mut headers = HeaderMap::new();
    headers.insert("sec-fetch-mode", "cors".parse().unwrap());
    LastEventId::from_request(&headers, None)
}

/// Asserts that the hub refuses the subscription, and checks both forms of the refusal: for a
/// browser, and for a client that is not a browser.
fn is_refused(subscribe: impl Fn() -> Subscribe<String>, reason: &str) {
    is_program_refusal(refused(subscribe()).into_http_response(), reason);
    is_browser_refusal(refused(subscribe().resume(browser())).into_http_response(), reason);
    let anew = subscribe().resume(browser().or("7").without_id());
    is_browser_refusal(refused(anew).into_http_response(), reason);
}

#[test]
fn a_full_hub_refuses_subscriptions() {
    let limits = Limits { subscribers_max: 1, ..Limits::default() };
    let hub = build(|builder| builder.limits(limits));
    let _one = open(hub.subscribe());
    is_refused(|| hub.subscribe(), "Too many subscriptions are open: the limit is 1.");
}

#[test]
fn subscriptions_above_the_limits_of_clients_names_or_patterns_are_refused() {
    let limits = Limits {
        subscribers_per_client_max: 1,
        subscribed_names_max: 1,
        patterns_max: 0,
        ..Limits::default()
    };
    let hub = build(|builder| builder.limits(limits));
    let _one = open(hub.subscribe().client("c"));
    is_refused(
        || hub.subscribe().client("c"),
        "The client has too many open subscriptions: the limit is 1.",
    );
    let names = "All open subscriptions together name too many topics and clients: the limit is 1.";
    is_refused(|| hub.subscribe().topic("t"), names);
    let patterns = "All open subscriptions together have too many patterns: the limit is 0.";
    is_refused(|| hub.subscribe().pattern("t/*"), patterns);
}

#[test]
fn a_draining_and_a_closed_hub_refuse_subscriptions() {
    let hub = hub();
    hub.drain();
    is_refused(|| hub.subscribe(), "The hub is draining and accepts no new subscriptions.");
    hub.close();
    is_refused(|| hub.subscribe(), "The hub is closed.");
}

#[test]
fn a_finished_topic_answers_204_so_that_the_client_does_not_reconnect() {
    let hub = hub();
    say(&hub, "a", "1");
    hub.finish("a").unwrap();
    let refused = refused(hub.subscribe().topic("a").resume(id(&hub, 1).as_str()));
    let response = refused.into_http_response();
    assert_eq!((response.status(), response.headers().len()), (http::StatusCode::NO_CONTENT, 0));
    assert_eq!(body(response), "");
}

#[test]
fn an_invalid_subscription_is_a_client_error() {
    let hub = hub();
    let selector = refused(hub.subscribe().topic("a b\n"));
    is_problem(
        selector.into_http_response(),
        400,
        "\"a b\\n\" is neither a topic nor a pattern: the name has a control character at byte 3: remove it.",
    );
    let client = refused(hub.subscribe().client(""));
    is_problem(client.into_http_response(), 400, "\"\" is not a client id: the name is empty.");
    let topics: Vec<_> = (0..=1_000).map(|at| at.to_string()).collect();
    let many = refused(hub.subscribe().topics(topics));
    assert!(matches!(many.kind(), SubscribeErrorKind::AtLimit(OpenError::TooManySelectors { .. })));
    is_problem(
        many.into_http_response(),
        400,
        "The subscription names 1001 topics and patterns: the limit is 1000.",
    );
}

#[test]
fn a_filter_on_a_hub_that_keeps_no_values_is_a_server_error() {
    let response = refused(hub().subscribe().filter(|_| true)).into_http_response();
    let detail = "A filter needs the hub to keep values: build it with keep_values.";
    is_problem(response, 500, detail);
}

fn status(error: &PublishError) -> u16 {
    error.to_problem().status().as_u16()
}

#[test]
fn each_error_of_a_publish_has_its_http_status() {
    let hub = build(|builder| {
        let limits = Limits { topics_max: 2, ..Limits::default() };
        builder.limits(limits).event_bytes_max(60)
    });
    let text = String::new;
    let wrong = hub.to("").publish(text()).unwrap_err();
    is_problem(
        wrong.to_problem().into_http_response(),
        400,
        "\"\" is not a topic: the name is empty.",
    );
    for publish in [
        hub.to_client(""),
        hub.to("a").event("open"),
        hub.to("a").event("\n"),
        hub.to("a").id(""),
        hub.to("a").idempotency_key("", ""),
    ] {
        assert_eq!(status(&publish.publish(text()).unwrap_err()), 400);
    }
    assert_eq!(status(&hub.to("a").publish("x".repeat(60)).unwrap_err()), 413);
    hub.to("a").id("x").idempotency_key("", "k").publish(text()).unwrap();
    assert_eq!(status(&hub.to("a").id("x").publish("y".into()).unwrap_err()), 409);
    let reused = hub.to("a").idempotency_key("", "k").publish("y".into());
    assert_eq!(status(&reused.unwrap_err()), 409);
    hub.finish("b").unwrap();
    assert_eq!(status(&hub.finish("b").unwrap_err()), 409);
    assert_eq!(status(&hub.to("c").publish(text()).unwrap_err()), 503);
    hub.close();
    assert_eq!(status(&hub.publish(text()).unwrap_err()), 503);
}

#[test]
fn a_value_that_cannot_be_encoded_is_a_server_error() {
    let hub = Hub::<f64>::with(|_: &f64| {
        downlink::EventType::new("\n").map(|_| unreachable!("not a type"))
    });
    let error = hub.publish(1.0).unwrap_err();
    assert_eq!(status(&error), 500);
}

#[test]
fn the_error_of_a_batch_has_the_status_of_its_invalid_event() {
    let hub = hub();
    let batch = |topic: &str, events: usize| {
        let mut batch = Batch::new(&hub);
        (0..events).for_each(|_| batch.add(hub.to(topic), String::new()));
        batch.publish().unwrap_err().to_problem()
    };
    is_problem(
        batch("", 1).into_http_response(),
        400,
        "Event 1 of the batch cannot be published: \"\" is not a topic: the name is empty.",
    );
    let detail = "The batch has 10001 events, at most 10000 are allowed.";
    is_problem(batch("a", 10_001).into_http_response(), 413, detail);
    hub.finish("over").unwrap();
    assert_eq!(batch("over", 1).status(), 409);
}

#[tokio::test(start_paused = true)]
async fn a_drained_subscription_ends_with_a_reconnection_time() {
    let spread = std::time::Duration::from_millis(700)..=std::time::Duration::from_millis(900);
    let hub = build(|builder| builder.drain_spread(spread));
    let response = open(hub.subscribe().topic("a").open_event(false)).into_http_response();
    say(&hub, "a", "1");
    hub.drain();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.into()).unwrap();
    let end = format!("id: {}\ndata: 1\n\nretry: ", id(&hub, 1));
    let retry = text.strip_prefix(": connected\n\n").unwrap().strip_prefix(&end).unwrap();
    let millis: u64 = retry.strip_suffix("\n\n").unwrap().parse().unwrap();
    assert!((700..=900).contains(&millis), "{millis}");
}

#[tokio::test(start_paused = true)]
async fn a_closed_or_lagging_subscription_ends_with_a_reconnection_time() {
    let one = Retention { events_max: 1, ..Retention::DEFAULT };
    let hub = build(|builder| builder.retention(one).lag_policy(LagPolicy::Disconnect));
    let lagging = open(hub.subscribe().topic("a").open_event(false)).into_http_response();
    let closed = open(hub.subscribe().open_event(false)).into_http_response();
    say(&hub, "a", "1");
    say(&hub, "a", "2");
    hub.close();
    for response in [lagging, closed] {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b": connected\n\nretry: "), "{body:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_finished_or_disconnected_subscription_ends_without_a_reconnection_time() {
    let hub = hub();
    let finished = open(hub.subscribe().topic("a").open_event(false)).into_http_response();
    let gone = open(hub.subscribe().client("c").open_event(false)).into_http_response();
    hub.finish("a").unwrap();
    hub.disconnect("c");
    for response in [finished, gone] {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, ": connected\n\n");
    }
}

#[tokio::test(start_paused = true)]
async fn a_custom_encoding_does_not_apply_to_the_events_that_the_hub_itself_sends() {
    let shout = |event: Published<String>| {
        let shouted = Event::new(event.data().to_uppercase());
        Frame::from(shouted.id(event.id()))
    };
    let hub = keeping(1);
    say(&hub, "a", "gone");
    say(&hub, "a", "gone too");
    let subscribe = hub.subscribe().topic("a").resume(id(&hub, 0).as_str());
    let response = open(subscribe).into_sse_with(shout).into_http_response();
    say(&hub, "a", "live");
    hub.finish("a").unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.into()).unwrap();
    let events: Vec<_> = text.split_terminator("\n\n").collect();
    assert_eq!(events[0], ": connected");
    assert!(events[1].starts_with("event: downlink.open\n"), "{text}");
    assert!(events[2].starts_with("event: downlink.gap\n"), "{text}");
    assert_eq!(events[3..], [format!("id: {}\ndata: LIVE", id(&hub, 3))], "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_custom_encoding_ends_only_its_response() {
    let hub = hub();
    let broken = |_: Published<String>| -> Frame { panic!("on purpose") };
    let broken = open(hub.subscribe().topic("a")).into_sse_with(broken).into_http_response();
    let sound = open(hub.subscribe().topic("a").open_event(false)).into_http_response();
    say(&hub, "a", "1");
    hub.finish("a").unwrap();
    assert!(broken.into_body().collect().await.is_err());
    let body = sound.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, format!(": connected\n\nid: {}\ndata: 1\n\n", id(&hub, 1)));
}

/// The frame of an event has the reconnection time before the data. The method `data` must skip the
/// reconnection time.
#[test]
fn the_data_of_an_event_with_a_reconnection_time_can_be_read() {
    let hub = hub();
    let mut subscription = open(hub.subscribe().topic("a"));
    let publish = hub.to("a").retry(std::time::Duration::from_secs(1));
    publish.publish("said".into()).unwrap();
    let delivery = subscription.next().now_or_never().flatten();
    let Some(Delivery::Event(event)) = delivery else { panic!("{delivery:?}") };
    assert_eq!((event.data().as_ref(), event.id()), ("said", hub.cursor()));
}

/// A handler gets the room from the path of a request as decoded text. If a client writes `%2F` in
/// the path, this text contains a `/`. Such a room must not become the name of another topic.
#[tokio::test]
async fn an_encoded_slash_in_a_path_reaches_no_other_topic() {
    use axum::extract::{Path, State};
    use tower_service::Service;

    async fn join(
        State(hub): State<Hub<String>>,
        Path(room): Path<String>,
    ) -> Result<Subscription<String>, SubscribeError> {
        hub.subscribe().topic_segments(["rooms", &room]).open().await
    }

    async fn say(
        State(hub): State<Hub<String>>,
        Path(room): Path<String>,
    ) -> Result<(), PublishError> {
        hub.to_segments(["rooms", &room]).publish("hello".to_owned()).map(drop)
    }

    let hub = hub();
    let routes = axum::routing::get(join).post(say);
    let mut app = axum::Router::new().route("/rooms/{room}", routes).with_state(hub.clone());
    let paths = ["/rooms/a", "/rooms/a%2Ftyping", "/rooms/%2F", "/rooms/%2A", "/rooms/%7Bid%7D"];
    for (path, expected) in paths.into_iter().zip([200, 400, 400, 400, 400]) {
        for method in ["GET", "POST"] {
            let request = http::Request::builder().method(method).uri(path);
            let request = request.body(axum::body::Body::empty()).unwrap();
            let response = app.call(request).await.unwrap();
            assert_eq!(response.status(), expected, "{method} {path}");
        }
    }
    let topics: Vec<_> = hub.topic_overviews("", None, 9);
    let names: Vec<&str> = topics.iter().map(|topic| topic.topic.as_str()).collect();
    assert_eq!(names, ["rooms/a"]);
}
