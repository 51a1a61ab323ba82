//! Tests of a downlink server's own events: `downlink.open`, `downlink.alive` and `downlink.gap`.

use downlink_client::GapReason;
use std::time::Duration;

use crate::scripted::{Server, connect, event, gap};

const OPEN: &str = "event: downlink.open\nid: e-4\ndata: {\"resumed\":true,\"connection\":\"c\",\
                    \"keep_alive_ms\":15000}\n\n";

#[tokio::test]
async fn hidden_control_events_update_the_last_event_id() {
    let server = Server::bind().await;
    let mut source = server.source();
    let body = format!("{OPEN}event: downlink.alive\nid: e-9\ndata: {{}}\n\ndata: x\n\n");
    let _connection = connect(&mut source, &server, body).await;
    let event = event(&mut source).await;
    assert_eq!((&*event.data, &*event.last_event_id), ("x", "e-9"));
}

#[tokio::test]
async fn control_events_are_delivered_if_enabled() {
    let server = Server::bind().await;
    let mut source = server.builder().control_events(true).build().unwrap();
    let _connection = connect(&mut source, &server, OPEN).await;
    assert_eq!(event(&mut source).await.event_type, "downlink.open");
    assert_eq!(source.last_event_id(), "e-4");
}

/// If a subscription's address has `meta=1`, the server sends all events with the type
/// `downlink.event`.
#[tokio::test]
async fn events_of_the_type_downlink_event_are_delivered() {
    let server = Server::bind().await;
    let mut source = server.source();
    let body = format!("{OPEN}event: downlink.event\nid: e-5\ndata: {{}}\n\n");
    let _connection = connect(&mut source, &server, body).await;
    let event = event(&mut source).await;
    assert_eq!((&*event.event_type, &*event.last_event_id), ("downlink.event", "e-5"));
}

#[tokio::test]
async fn a_gap_is_delivered_before_later_events() {
    let server = Server::bind().await;
    let mut source = server.source();
    let body = "event: downlink.gap\nid: e-8\ndata: {\"reason\":\"evicted\",\"after\":\"e-1\",\
                \"oldest\":\"e-9\",\"wait_ms\":40}\n\nid: e-9\ndata: x\n\n";
    let _connection = connect(&mut source, &server, body).await;
    let gap = gap(&mut source).await;
    assert_eq!(gap.reason, GapReason::Evicted);
    assert_eq!((gap.after.as_deref(), gap.oldest.as_deref()), (Some("e-1"), Some("e-9")));
    assert_eq!(gap.wait, Duration::from_millis(40));
    assert_eq!(source.last_event_id(), "e-8");
    assert_eq!(event(&mut source).await.data, "x");
}

#[tokio::test]
async fn a_gap_notice_that_cannot_be_parsed_is_delivered_as_a_gap() {
    let server = Server::bind().await;
    let mut source = server.source();
    let _connection = connect(&mut source, &server, "event: downlink.gap\ndata: ?\n\n").await;
    assert_eq!(gap(&mut source).await.reason, GapReason::UnreadableNotice);
}
