//! Tests of the endpoints and of the program. The tests of the endpoints use a paused clock and no
//! socket.

#[path = "../../basic/tests/support/mod.rs"]
mod support;

use axum::{Router, body::Body, http::Request};
use dashboard::{PERIOD, Sample, Walk};
use downlink::{Hub, PublishError};
use serde_json::Value;
use support::{open, patiently, program, send};

fn hub() -> Hub<Sample> {
    dashboard::hub().expect("the settings are valid")
}

fn publish(hub: &Hub<Sample>, metric: &'static str, value: f64) {
    let topic = format!("metrics/{metric}");
    let receipt =
        hub.to(topic).publish(Sample { metric, at_ms: 7, value }).expect("the event is published");
    assert_eq!(receipt.is_repeated(), Some(false));
}

/// The metric and the value of each event in a stream, in order.
fn samples(seen: &str) -> Vec<(String, f64)> {
    let data = seen.lines().filter_map(|line| line.strip_prefix(r#"data: {"metric""#));
    let sample = |rest: &str| {
        let sample: Value =
            serde_json::from_str(&format!(r#"{{"metric"{rest}"#)).expect("the text is JSON");
        let metric = sample["metric"].as_str().expect("the value is text").to_owned();
        (metric, sample["value"].as_f64().expect("the value is a number"))
    };
    data.map(sample).collect()
}

fn last_id(seen: &str) -> String {
    let mut ids = seen.lines().filter_map(|line| line.strip_prefix("id: "));
    ids.next_back().expect("the stream has an id").to_owned()
}

#[tokio::test]
async fn new_client_gets_the_newest_value_of_each_metric_at_once() {
    let hub = hub();
    for value in [1.0, 2.0, 3.0] {
        publish(&hub, "walk", value);
        publish(&hub, "memory", value * 10.0);
    }
    let mut stream = open(&dashboard::app(hub), "/events", "").await;
    let seen = stream.sees(r#""value":30.0}"#).await;
    assert_eq!(samples(seen), [("walk".into(), 3.0), ("memory".into(), 30.0)]);
    assert!(!seen.contains("downlink.gap"), "{seen}");
}

#[tokio::test]
async fn reconnecting_client_gets_the_newest_values_without_a_gap() {
    let hub = hub();
    let app = dashboard::app(hub.clone());
    publish(&hub, "walk", 1.0);
    let id = last_id(open(&app, "/events", "").await.sees("value").await);
    for value in [2.0, 3.0, 4.0] {
        publish(&hub, "walk", value);
    }
    let mut stream = open(&app, "/events", &id).await;
    let seen = stream.sees("value").await;
    assert_eq!(samples(seen), [("walk".into(), 4.0)]);
    assert!(!seen.contains("downlink.gap"), "{seen}");
}

#[tokio::test]
async fn slow_reader_skips_to_the_newest_value() {
    let hub = hub();
    let app = dashboard::app(hub.clone());
    let mut stream = open(&app, "/events", "").await;
    stream.sees("keep_alive_ms").await;
    for value in 1..=1_000 {
        publish(&hub, "walk", f64::from(value));
    }
    assert_eq!(samples(stream.sees(r#""value":1000.0}"#).await), [("walk".into(), 1_000.0)]);
}

#[tokio::test(start_paused = true)]
async fn samples_come_every_period_and_the_random_walk_depends_only_on_its_seed() {
    let hub = hub();
    let mut stream = open(&dashboard::app(hub.clone()), "/events", "").await;
    tokio::spawn(dashboard::publish_samples(hub, 7));
    let at = format!(r#""metric":"streams","at_ms":{}"#, 3 * PERIOD.as_millis());
    let seen = stream.sees(&at).await.to_owned();

    let mut walk = Walk::new(7);
    let expected: Vec<_> = (0..4).map(|_| walk.step()).collect();
    let of = |metric| {
        let shown = samples(&seen);
        shown.into_iter().filter(|(name, _)| name == metric).map(|(_, value)| value).collect()
    };
    let walked: Vec<f64> = of("walk");
    assert_eq!(walked, expected);
    let uptimes: Vec<f64> = of("uptime");
    assert_eq!(uptimes, [0.0, 0.25, 0.5, 0.75]);
    let streams: Vec<f64> = of("streams");
    assert_eq!(streams, [1.0; 4]);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn all_metrics_are_published() {
    let hub = hub();
    let mut stream = open(&dashboard::app(hub.clone()), "/events", "").await;
    tokio::spawn(dashboard::publish_samples(hub, 7));
    let seen = samples(stream.sees(r#""metric":"streams""#).await);
    let metrics: Vec<_> = seen.iter().map(|(metric, _)| metric.as_str()).collect();
    assert_eq!(metrics, dashboard::METRICS);
    assert!(seen[2].1 > 0.1, "the process uses more than 0.1 MiB: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn samples_end_when_the_hub_is_closed() {
    let hub = hub();
    let publishing = tokio::spawn(dashboard::publish_samples(hub.clone(), 7));
    hub.close();
    let ended = patiently(publishing).await.expect("no task panicked");
    assert!(matches!(ended, Err(PublishError::Closed)), "{ended:?}");
}

async fn page(app: &Router, path: &str) {
    let request = Request::get(path).body(Body::empty()).expect("the request is valid");
    let response = send(app, request).await;
    assert_eq!(response.status(), 200);
    let policy =
        response.headers()["content-security-policy"].to_str().expect("the value is ASCII");
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
}

#[tokio::test]
async fn page_contacts_no_other_server() {
    let app = dashboard::app(hub());
    for path in ["/", "/dashboard.css", "/dashboard.js"] {
        page(&app, path).await;
    }
}

#[cfg(unix)]
mod started {
    use rustix::process::Signal;

    use super::program;

    const PROGRAM: &str = env!("CARGO_BIN_EXE_dashboard");

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
