//! Tests of the ways in which a stream can end. A stream begins with the greeting, which is the
//! comment `: connected`.

use std::time::{Duration, SystemTime};

use downlink::http::Spread;
use downlink::{Event, Frame, Sse};
use futures_util::stream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Reader, SECOND, silent};

fn endless() -> Sse<impl downlink::http::FrameSource> {
    Sse::new(stream::pending::<Frame>()).keep_alive(silent())
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_80_to_100_percent_of_its_maximum_age() {
    let mut ages = Vec::new();
    for _ in 0..20 {
        let before = Instant::now();
        retry_in(&Reader::greeted(endless().max_age(100 * SECOND)).await.rest().await);
        ages.push(before.elapsed());
    }
    let late = 100 * SECOND + SECOND / 100;
    assert!(ages.iter().all(|age| *age >= 80 * SECOND && *age <= late), "{ages:?}");
    assert!(ages.iter().any(|age| *age != ages[0]), "all ages are equal: {ages:?}");
}

#[tokio::test(start_paused = true)]
async fn a_busy_stream_also_ends_at_its_maximum_age() {
    let (sender, sse) = Sse::channel(1);
    let mut reader = Reader::greeted(sse.max_age(10 * SECOND)).await;
    let before = Instant::now();
    let busy = async {
        let mut ticks = tokio::time::interval(SECOND / 2);
        loop {
            ticks.tick().await;
            if sender.text("x").await.is_err() {
                break;
            }
        }
    };
    let reading = async {
        reader.rest().await;
        drop(reader);
    };
    tokio::join!(busy, reading);
    assert!(before.elapsed() >= 8 * SECOND && before.elapsed() <= 11 * SECOND);
}

/// The rights of a client and its session may both expire. The stream ends at the earlier of the
/// two times.
#[tokio::test(start_paused = true)]
async fn a_stream_with_several_expiries_ends_at_the_earliest() {
    for (first, second) in [(7, 9), (9, 7)] {
        let before = Instant::now();
        let stream = endless().expires_at(before + first * SECOND);
        let mut reader = Reader::greeted(stream.expires_at(before + second * SECOND)).await;
        retry_in(&reader.rest().await);
        assert!(before.elapsed() >= 7 * SECOND && before.elapsed() < 8 * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_expires_at_an_instant() {
    let before = Instant::now();
    let mut reader = Reader::greeted(endless().expires_at(before + 7 * SECOND)).await;
    retry_in(&reader.rest().await);
    assert!(before.elapsed() >= 7 * SECOND && before.elapsed() < 8 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_stream_expires_at_a_system_time() {
    let before = Instant::now();
    let expiry = SystemTime::now() + 60 * SECOND;
    let mut reader = Reader::greeted(endless().expires_at(expiry)).await;
    retry_in(&reader.rest().await);
    let passed = before.elapsed();
    assert!(passed > 55 * SECOND && passed <= 60 * SECOND + SECOND / 100, "{passed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_sends_a_notice_before_it_expires_and_an_event_when_it_expires() {
    let before = Instant::now();
    let sse = endless().expires_at(before + 60 * SECOND).expiry_notice(6 * SECOND);
    let mut reader = Reader::greeted(sse).await;
    let notice = reader.next().await.expect("the stream is open");
    let left = notice.strip_prefix("event: downlink.expiring\ndata: {\"in_ms\":");
    let left = left.and_then(|left| left.strip_suffix("}\n\n")).expect("the frame is the notice");
    assert!(
        (5_900..=6_000).contains(&left.parse::<u32>().expect("the value is a number")),
        "{notice}"
    );
    assert!(before.elapsed() >= 54 * SECOND && before.elapsed() < 55 * SECOND);
    let end = reader.rest().await;
    let retry = end
        .strip_prefix("event: downlink.expired\ndata: {}\n\n")
        .expect("the event of the expiry comes first");
    retry_in(retry);
    assert!(before.elapsed() >= 60 * SECOND && before.elapsed() < 61 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_busy_stream_also_sends_the_notice_of_its_expiry() {
    let (sender, sse) = Sse::channel(1);
    let at = Instant::now() + 10 * SECOND;
    let mut reader = Reader::greeted(sse.expires_at(at).expiry_notice(4 * SECOND)).await;
    let busy = async {
        let mut ticks = tokio::time::interval(SECOND / 2);
        while sender.text("x").await.is_ok() {
            ticks.tick().await;
        }
    };
    let reading = async {
        let said = reader.rest().await;
        drop(reader);
        said
    };
    let said = tokio::join!(busy, reading).1;
    assert_eq!(said.matches("downlink.expiring").count(), 1, "{said}");
    assert!(said.find("downlink.expiring") < said.find("downlink.expired"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_at_its_maximum_age_announces_no_expiry() {
    let at = Instant::now() + 60 * SECOND;
    let sse = endless().expires_at(at).expiry_notice(59 * SECOND).max_age(10 * SECOND);
    let said = Reader::greeted(sse).await.rest().await;
    assert!(!said.contains("downlink.expir"), "{said}");
}

#[tokio::test]
async fn a_stream_with_an_expiry_in_the_past_ends_after_the_greeting() {
    let sse = Sse::new(stream::repeat(Event::new("secret"))).expires_at(SystemTime::UNIX_EPOCH);
    assert!(!Reader::new(sse).rest().await.contains("secret"));
    let sse = Sse::new(stream::repeat(Event::new("secret"))).expires_at(std::time::Instant::now());
    let said = Reader::new(sse).rest().await;
    retry_in(said.strip_prefix(": connected\n\n").expect("the stream begins with the greeting"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_with_the_largest_possible_maximum_age_does_not_end() {
    let sse = endless().max_age(Duration::MAX);
    let mut reader = Reader::greeted(sse).await;
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    assert!(tokio::time::timeout(year, reader.next()).await.is_err());
}

#[tokio::test]
async fn a_signal_ends_a_stream_after_the_events_that_are_ready() {
    let (leave, left) = oneshot::channel::<()>();
    let (sender, sse) = Sse::channel(4);
    let mut reader = Reader::greeted(sse.until(left)).await;
    sender.try_send(Event::new("last")).expect("the channel has room");
    leave.send(()).expect("the stream waits for the signal");
    assert_eq!(reader.next().await.as_deref(), Some("data: last\n\n"));
    assert_eq!(reader.next().await, None);
    drop(reader);
    assert!(sender.is_closed());
}

#[tokio::test]
async fn a_signal_ends_an_idle_stream() {
    let (leave, left) = oneshot::channel::<()>();
    let mut reader = Reader::greeted(endless().until(left)).await;
    let reading = tokio::spawn(async move { reader.next().await });
    tokio::task::yield_now().await;
    leave.send(()).expect("the stream waits for the signal");
    assert_eq!(reading.await.expect("no task panicked"), None);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_at_its_maximum_age_sends_a_reconnection_time_exactly_once() {
    let retry = retry_in(&Reader::greeted(endless().max_age(SECOND)).await.rest().await);
    assert!((1_000..=2_000).contains(&retry), "{retry}");
    let mut reader = Reader::new(endless().max_age(SECOND).reconnection_time(9 * SECOND));
    assert_eq!(reader.rest().await, ": connected\n\nretry: 9000\n\n");
}

#[tokio::test]
async fn a_stream_that_ends_after_its_last_event_sends_no_reconnection_time() {
    let sse = Sse::new(stream::iter([Frame::comment("a")])).max_age(SECOND);
    assert_eq!(Reader::new(sse).rest().await, ": connected\n\n: a\n\n");
}

/// Returns the reconnection time, in milliseconds. The frame must have no field except `retry`.
fn retry_in(text: &str) -> u64 {
    let millis = text.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n\n"));
    millis.expect(text).parse().expect("the value is a number")
}

#[tokio::test(start_paused = true)]
async fn the_reconnection_time_at_the_end_of_a_stream_is_random_within_the_configured_spread() {
    let spread = Spread::between(SECOND, 2 * SECOND);
    for _ in 0..20 {
        let mut reader =
            Reader::greeted(endless().max_age(SECOND).reconnection_spread(spread)).await;
        let millis = retry_in(&reader.rest().await);
        assert!((1_000..=2_000).contains(&millis), "{millis}");
    }
}
