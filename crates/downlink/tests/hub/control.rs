//! Tests of the events that the hub itself sends: `downlink.open`, `downlink.alive` and
//! `downlink.gap`.

use std::time::Duration;

use downlink::http::KeepAlive;
use downlink::hub::{Start, Subscription};
use http_body_util::BodyExt;

use super::{build, hub, id, open, say};

/// Reads the response body of a subscription chunk by chunk.
struct Wire<B>(B);

impl Wire<()> {
    fn of(
        subscription: Subscription<String>,
        keep_alive: KeepAlive,
    ) -> Wire<impl http_body::Body<Data = bytes::Bytes, Error: std::fmt::Debug> + Unpin> {
        let response = subscription.into_sse().keep_alive(keep_alive).into_http_response();
        Wire(Box::pin(response.into_body()))
    }
}

impl<B: http_body::Body<Data = bytes::Bytes, Error: std::fmt::Debug> + Unpin> Wire<B> {
    /// Returns the next chunk, which may be a keep-alive. The clock is paused, and advances only
    /// when all tasks wait.
    async fn next(&mut self) -> String {
        let frame =
            self.0.frame().await.expect("the stream is open").expect("the stream has not failed");
        String::from_utf8(frame.into_data().expect("the frame has data").into()).unwrap()
    }
}

fn every_second() -> KeepAlive {
    KeepAlive::new().interval(Duration::from_secs(1))
}

#[tokio::test(start_paused = true)]
async fn the_open_event_comes_first_and_its_id_is_the_cursor_where_the_subscription_starts() {
    let hub = hub();
    say(&hub, "a", "1");
    let subscription = open(hub.subscribe().topic("a"));
    let number = subscription.number();
    let mut wire = Wire::of(subscription, every_second());
    let expected = format!(
        ": connected\n\nevent: downlink.open\nid: {}\ndata: \
         {{\"resumed\":false,\"connection\":\"{number}\",\"keep_alive_ms\":1000}}\n\n",
        id(&hub, 1)
    );
    assert_eq!(wire.next().await, expected);
}

#[tokio::test(start_paused = true)]
async fn the_open_event_shows_that_the_client_resumed_and_that_keep_alives_are_off() {
    let hub = hub();
    say(&hub, "a", "1");
    let subscribe = hub.subscribe().topic("a").resume(id(&hub, 0).as_str());
    let first = Wire::of(open(subscribe), KeepAlive::off()).next().await;
    assert!(first.contains(&format!("\nid: {}\ndata: {{\"resumed\":true,", id(&hub, 0))));
    assert!(first.contains("\"keep_alive_ms\":0}"), "{first}");
    assert!(first.ends_with(&format!("id: {}\ndata: 1\n\n", id(&hub, 1))), "{first}");
}

#[tokio::test(start_paused = true)]
async fn the_open_event_can_be_turned_off_for_a_hub_or_a_subscription() {
    let without = build(|builder| builder.open_event(false));
    let mut wire = Wire::of(open(without.subscribe()), every_second());
    assert_eq!(wire.next().await, ": connected\n\n");
    let mut wire = Wire::of(open(without.subscribe().open_event(true)), every_second());
    assert!(wire.next().await.contains("event: downlink.open\n"));
    let mut wire = Wire::of(open(hub().subscribe().open_event(false)), every_second());
    assert_eq!(wire.next().await, ": connected\n\n");
}

// If `downlink.open` had the id of an event after the missing events, a client could get this id
// and disconnect before `downlink.gap`. The client would then resume after this id, and never get
// the gap.
#[tokio::test(start_paused = true)]
async fn the_open_event_has_no_id_if_the_hub_does_not_know_the_last_id_of_the_client() {
    let hub = hub();
    say(&hub, "a", "1");
    let lost = id(&hub, 50);
    for unknown in ["who", "00000000-9", &lost] {
        let subscribe = hub.subscribe().topic("a").resume(unknown);
        let first = Wire::of(open(subscribe), every_second()).next().await;
        let (head, gap) = first.split_once("event: downlink.gap\n").unwrap();
        assert!(head.contains("event: downlink.open\ndata: {\"resumed\":false"), "{first}");
        assert!(!head.contains("id:"), "{first}");
        assert!(gap.starts_with("id: "), "{first}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_open_event_has_the_last_id_of_the_client_if_later_events_were_evicted() {
    let hub = super::keeping(1);
    say(&hub, "a", "1");
    say(&hub, "a", "2");
    let subscribe = hub.subscribe().topic("a").resume(id(&hub, 0).as_str());
    let first = Wire::of(open(subscribe), every_second()).next().await;
    assert!(first.contains(&format!("downlink.open\nid: {}\n", id(&hub, 0))), "{first}");
    assert!(first.contains(&format!("downlink.gap\nid: {}\n", id(&hub, 1))), "{first}");
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_is_a_comment_while_the_cursor_does_not_move() {
    let hub = hub();
    let mut wire = Wire::of(open(hub.subscribe()), every_second());
    wire.next().await;
    assert_eq!(wire.next().await, ": keep-alive\n");
    assert_eq!(wire.next().await, ": keep-alive\n");
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_has_an_id_after_the_cursor_has_moved_past_the_last_sent_id() {
    let hub = build(|builder| builder.keep_values(String::len));
    let wanted = |value: &String| value.starts_with('y');
    let subscription = open(hub.subscribe().topic("a").filter(wanted));
    let mut wire = Wire::of(subscription, every_second());
    wire.next().await;
    say(&hub, "a", "no");
    let alive = format!("event: downlink.alive\nid: {}\ndata: {{}}\n\n", id(&hub, 1));
    assert_eq!(wire.next().await, alive);
    assert_eq!(wire.next().await, ": keep-alive\n", "the id must be sent only once");
    say(&hub, "a", "yes");
    assert_eq!(wire.next().await, format!("id: {}\ndata: yes\n\n", id(&hub, 2)));
    assert_eq!(wire.next().await, ": keep-alive\n", "the event has already sent the id");
}

// The client gets none of the many events to another topic, so its last id becomes old. The client
// must still be able to resume without a gap.
#[tokio::test(start_paused = true)]
async fn a_client_of_a_quiet_topic_resumes_without_a_gap() {
    let hub = hub();
    let mut wire = Wire::of(open(hub.subscribe().topic("quiet")), every_second());
    wire.next().await;
    say(&hub, "quiet", "1");
    assert_eq!(wire.next().await, format!("id: {}\ndata: 1\n\n", id(&hub, 1)));
    for _ in 0..2_000 {
        say(&hub, "noisy", "");
    }
    wire.next().await;
    let mut again = open(hub.subscribe().topic("quiet").resume(id(&hub, 1).as_str()));
    assert!(
        super::seen(&mut again).is_empty(),
        "no event of the topic was evicted, so there is no gap"
    );
}

/// A web page cannot see comments. So a page that wants to see keep-alives needs them as events.
#[tokio::test(start_paused = true)]
async fn a_keep_alive_that_pages_can_see_is_an_event_without_an_id() {
    let hub = hub();
    let mut wire = Wire::of(open(hub.subscribe().announce_alive(true)), every_second());
    wire.next().await;
    assert_eq!(wire.next().await, "event: downlink.alive\ndata: {}\n\n");
}

// The greeting is the comment at the beginning of the stream.
#[tokio::test(start_paused = true)]
async fn the_first_chunk_has_the_greeting_and_the_replayed_events() {
    let hub = hub();
    for data in ["1", "2"] {
        say(&hub, "a", data);
    }
    let subscribe = hub.subscribe().topic("a").start(Start::Earliest).open_event(false);
    let mut wire = Wire::of(open(subscribe), every_second());
    let expected =
        format!(": connected\n\nid: {}\ndata: 1\n\nid: {}\ndata: 2\n\n", id(&hub, 1), id(&hub, 2));
    assert_eq!(wire.next().await, expected);
}

/// A web page sees only events of the types that it listens to. A page that listens only to
/// `downlink.alive` must get this event in time, even while many other events arrive.
#[tokio::test(start_paused = true)]
async fn keep_alives_that_pages_can_see_are_sent_even_on_a_busy_stream() {
    let hub = hub();
    let subscribe = hub.subscribe().topic("a").announce_alive(true);
    let mut wire = Wire::of(open(subscribe), every_second());
    wire.next().await;
    let mut seen = String::new();
    for _ in 0..15 {
        say(&hub, "a", "x");
        seen.push_str(&wire.next().await);
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(seen.matches("event: downlink.alive").count(), 1, "{seen}");
    assert_eq!(seen.matches("data: x").count(), 15);
}
