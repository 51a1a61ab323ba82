//! Tests of the hub's metrics in the OpenMetrics format.

#![cfg(feature = "metrics")]

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::{hub, open, say, seen};

#[test]
fn the_metrics_of_a_hub_are_valid_openmetrics_text() {
    let hub = hub();
    let mut left = open(hub.subscribe().topic("a").resume("who"));
    let _here = open(hub.subscribe().topic("a"));
    say(&hub, "a", "1");
    seen(&mut left);
    drop(left);
    let stats = hub.stats();
    let bytes = stats.bytes;
    let expected = format!(
        "\
# HELP downlink_subscribers Open subscriptions.
# TYPE downlink_subscribers gauge
downlink_subscribers 1
# HELP downlink_topics Existing topics, including clients' inboxes.
# TYPE downlink_topics gauge
downlink_topics 1
# HELP downlink_events_kept Retained events; an event in several topics counts once in each.
# TYPE downlink_events_kept gauge
downlink_events_kept 1
# HELP downlink_bytes_kept Retained bytes.
# TYPE downlink_bytes_kept gauge
downlink_bytes_kept {bytes}
# HELP downlink_events_published Events published.
# TYPE downlink_events_published counter
downlink_events_published_total 1
# HELP downlink_publishes_refused Publishes refused because of the store, by reason.
# TYPE downlink_publishes_refused counter
downlink_publishes_refused_total{{reason=\"busy\"}} 0
downlink_publishes_refused_total{{reason=\"disk_full\"}} 0
downlink_publishes_refused_total{{reason=\"store_failed\"}} 0
# HELP downlink_events_delivered Events that subscriptions read from the log.
# TYPE downlink_events_delivered counter
downlink_events_delivered_total 1
# HELP downlink_connects Subscriptions opened.
# TYPE downlink_connects counter
downlink_connects_total 2
# HELP downlink_refused Subscriptions refused.
# TYPE downlink_refused counter
downlink_refused_total 0
# HELP downlink_disconnects Subscriptions ended, by reason.
# TYPE downlink_disconnects counter
downlink_disconnects_total{{reason=\"left\"}} 1
downlink_disconnects_total{{reason=\"finished\"}} 0
downlink_disconnects_total{{reason=\"drained\"}} 0
downlink_disconnects_total{{reason=\"closed\"}} 0
downlink_disconnects_total{{reason=\"disconnected\"}} 0
downlink_disconnects_total{{reason=\"lagged\"}} 0
downlink_disconnects_total{{reason=\"filter_panicked\"}} 0
downlink_disconnects_total{{reason=\"unreadable\"}} 0
downlink_disconnects_total{{reason=\"stalled\"}} 0
downlink_disconnects_total{{reason=\"expired\"}} 0
downlink_disconnects_total{{reason=\"revoked\"}} 0
# HELP downlink_gaps Gaps reported, by reason.
# TYPE downlink_gaps counter
downlink_gaps_total{{reason=\"evicted\"}} 0
downlink_gaps_total{{reason=\"unknown_id\"}} 1
downlink_gaps_total{{reason=\"new_epoch\"}} 0
downlink_gaps_total{{reason=\"lagged\"}} 0
downlink_gaps_total{{reason=\"lost\"}} 0
downlink_gaps_total{{reason=\"unreadable\"}} 0
# EOF
"
    );
    assert_eq!(stats.openmetrics(), expected);
}

#[test]
fn the_hubs_metrics_can_be_registered_together_with_metrics_of_the_app() {
    let mut registry = Registry::default();
    let own = Counter::<u64>::default();
    own.inc();
    registry.register("own", "Of the app", own);
    hub().stats().register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.contains("\nown_total 1\n"), "{text}");
    assert!(text.contains("\ndownlink_subscribers 0\n"), "{text}");
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1);
}

#[test]
fn the_lags_of_all_subscriptions_are_a_histogram_on_request() {
    let hub = hub();
    let mut caught_up = open(hub.subscribe().topic("a"));
    let _behind = open(hub.subscribe().topic("a"));
    let _quiet = open(hub.subscribe().topic("b"));
    for _ in 0..12 {
        say(&hub, "a", "1");
    }
    seen(&mut caught_up);
    let text = hub.stats_with_lags().openmetrics();
    for line in [
        "downlink_lag_events_max 12",
        "downlink_lag_events_sum 12.0",
        "downlink_lag_events_count 3",
        "downlink_lag_events_bucket{le=\"0.0\"} 2",
        "downlink_lag_events_bucket{le=\"10.0\"} 2",
        "downlink_lag_events_bucket{le=\"100.0\"} 3",
        "downlink_lag_events_bucket{le=\"+Inf\"} 3",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
    }
    assert!(!hub.stats().openmetrics().contains("downlink_lag_events"));
    assert!(!text.contains("downlink_store_"), "the hub has no store: {text}");
}
