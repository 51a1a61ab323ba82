//! Tests of the bytes of a response body, and of how these bytes are divided into chunks. A body
//! begins with the greeting, which is the comment `: connected`.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use downlink::http::{AnyError, BATCH_BYTES_MAX, BATCH_FRAMES_MAX, BodyError, FrameSource};
use downlink::{Event, EventType, Frame, KeepAlive, Sse};
use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, advance};

use super::{Reader, SECOND, comment, silent};

#[tokio::test(start_paused = true)]
async fn the_first_bytes_come_before_any_event() {
    let mut reader = Reader::new(Sse::new(stream::pending::<Frame>()));
    let before = Instant::now();
    assert_eq!(reader.next().await.as_deref(), Some(": connected\n\n"));
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn the_reconnection_time_follows_the_greeting() {
    let sse = Sse::new(stream::pending::<Frame>()).reconnection_time(3 * SECOND);
    let first = Reader::new(sse).next().await;
    assert_eq!(first.as_deref(), Some(": connected\n\nretry: 3000\n\n"));
}

#[tokio::test]
async fn a_stream_may_consist_of_events_or_of_results() {
    let events = stream::iter([Event::new("a"), Event::new("b")]);
    assert_eq!(Reader::new(Sse::new(events)).rest().await, ": connected\n\ndata: a\n\ndata: b\n\n");
    let results = stream::iter([Ok::<_, std::io::Error>(comment("c"))]);
    assert_eq!(Reader::new(Sse::new(results)).rest().await, ": connected\n\n: c\n\n");
}

#[tokio::test]
async fn all_ready_frames_are_sent_in_one_chunk() {
    let mut reader = Reader::new(Sse::new(stream::iter([comment("a"), comment("b")])));
    let first = reader.next().await;
    assert_eq!(first.as_deref(), Some(": connected\n\n: a\n\n: b\n\n"));
    assert_eq!(reader.next().await, None);
}

/// Makes a stream of `frames` frames with `bytes` bytes each. Returns the sizes of the chunks after
/// the greeting (the comment at the beginning of the stream).
async fn chunks_of(frames: usize, bytes: usize) -> Vec<usize> {
    let frame = Frame::from(Event::new("x".repeat(bytes - "data: \n\n".len())));
    // The stream returns no frame at the first poll, so the first chunk has only the greeting.
    let late = stream::once(tokio::task::yield_now())
        .flat_map(move |()| stream::iter(vec![frame.clone(); frames]));
    let mut reader = Reader::greeted(Sse::new(late)).await;
    let mut sizes = Vec::new();
    while let Some(chunk) = reader.next().await {
        sizes.push(chunk.len());
    }
    sizes
}

#[tokio::test]
async fn chunks_end_at_the_frame_limit() {
    let full = BATCH_FRAMES_MAX * 10;
    assert_eq!(chunks_of(BATCH_FRAMES_MAX - 1, 10).await, [full - 10]);
    assert_eq!(chunks_of(BATCH_FRAMES_MAX, 10).await, [full]);
    assert_eq!(chunks_of(BATCH_FRAMES_MAX + 1, 10).await, [full, 10]);
}

#[tokio::test]
async fn chunks_end_at_the_byte_limit() {
    let half = BATCH_BYTES_MAX / 2;
    assert_eq!(chunks_of(2, half - 1).await, [BATCH_BYTES_MAX - 2]);
    assert_eq!(chunks_of(2, half).await, [BATCH_BYTES_MAX]);
    assert_eq!(chunks_of(2, half + 1).await, [half + 1, half + 1]);
    assert_eq!(chunks_of(2, BATCH_BYTES_MAX + 1).await, [BATCH_BYTES_MAX + 1; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_sends_a_keep_alive() {
    let mut reader = Reader::greeted(Sse::new(stream::pending::<Frame>())).await;
    for _ in 0..20 {
        let before = Instant::now();
        assert_eq!(reader.next().await.as_deref(), Some(": keep-alive\n"));
        let silence = before.elapsed();
        assert!(silence >= 12 * SECOND && silence <= 18 * SECOND + SECOND / 100, "{silence:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_delays_the_keep_alive() {
    let (sender, sse) = Sse::channel(1);
    let mut reader = Reader::greeted(sse).await;
    for _ in 0..10 {
        advance(11 * SECOND).await;
        sender.try_send(Event::new("x")).expect("the channel has room");
        assert_eq!(reader.next().await.as_deref(), Some("data: x\n\n"));
    }
    let before = Instant::now();
    assert_eq!(reader.next().await.as_deref(), Some(": keep-alive\n"));
    let silence = before.elapsed();
    assert!(silence >= 12 * SECOND && silence <= 18 * SECOND + SECOND / 100, "{silence:?}");
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_can_be_an_event() {
    let alive = Event::new("").event(EventType::from_static("alive"));
    let keep_alive = KeepAlive::new().interval(SECOND).event(alive);
    let sse = Sse::new(stream::pending::<Frame>()).keep_alive(keep_alive);
    let mut reader = Reader::greeted(sse).await;
    assert_eq!(reader.next().await.as_deref(), Some("event: alive\ndata: \n\n"));
}

#[tokio::test(start_paused = true)]
async fn keep_alives_can_be_turned_off() {
    let sse = Sse::new(stream::pending::<Frame>()).keep_alive(silent()).max_age(1_000 * SECOND);
    assert!(Reader::greeted(sse).await.rest().await.starts_with("retry: "));
}

/// A source without events, which chooses its opening frame and its keep-alive itself.
struct Own;

impl FrameSource for Own {
    fn opening(self: Pin<&mut Self>, keep_alive: Option<Duration>) -> Option<Frame> {
        Some(comment(&format!("every {keep_alive:?}")))
    }

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, AnyError>>> {
        Poll::Pending
    }

    fn keep_alive(self: Pin<&mut Self>) -> Option<Frame> {
        Some(comment("still here"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_chooses_its_opening_and_its_keep_alive() {
    let mut reader = Reader::new(Sse::new(Own).reconnection_time(SECOND));
    let first = reader.next().await;
    assert_eq!(first.as_deref(), Some(": connected\n\nretry: 1000\n\n: every Some(15s)\n\n"));
    assert_eq!(reader.next().await.as_deref(), Some(": still here\n\n"));
}

#[tokio::test]
async fn an_error_of_the_source_ends_the_body_after_the_earlier_frames() {
    let items = [Ok(comment("a")), Err(std::io::Error::other("disk on fire"))];
    let mut reader = Reader::new(Sse::new(stream::iter(items)));
    assert_eq!(reader.next().await.as_deref(), Some(": connected\n\n: a\n\n"));
    let error =
        reader.try_next().await.expect("the body yields a result").expect_err("the body fails");
    assert!(matches!(error, BodyError::Source(_)));
    assert_eq!(error.to_string(), "the source of the events failed");
    assert_eq!(error.source().expect("the error has a cause").to_string(), "disk on fire");
    assert!(reader.try_next().await.is_none());
}

#[tokio::test]
async fn a_panic_of_the_stream_ends_only_the_response() {
    let events = stream::iter([1, 2]).map(|n| if n == 1 { comment("a") } else { panic!("bug") });
    let mut reader = Reader::new(Sse::new(events));
    assert_eq!(reader.next().await.as_deref(), Some(": connected\n\n: a\n\n"));
    let error =
        reader.try_next().await.expect("the body yields a result").expect_err("the body fails");
    assert!(matches!(error, BodyError::Panicked));
    assert_eq!(error.to_string(), "the source of the events panicked");
    assert!(error.source().is_none());
    assert!(reader.try_next().await.is_none());
}

/// A source that panics in its method `keep_alive`. If `opens` is false, it already panics in
/// `opening`.
struct Clumsy {
    opens: bool,
}

impl FrameSource for Clumsy {
    fn opening(self: Pin<&mut Self>, _keep_alive: Option<Duration>) -> Option<Frame> {
        assert!(self.opens, "a panic in opening");
        None
    }

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame, AnyError>>> {
        Poll::Pending
    }

    fn keep_alive(self: Pin<&mut Self>) -> Option<Frame> {
        panic!("a panic in keep_alive")
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_keep_alive_ends_only_the_response() {
    let mut reader = Reader::greeted(Sse::new(Clumsy { opens: true })).await;
    let error =
        reader.try_next().await.expect("the body yields a result").expect_err("the body fails");
    assert!(matches!(error, BodyError::Panicked));
    assert!(reader.try_next().await.is_none());
}

#[tokio::test]
async fn a_panic_at_the_opening_ends_only_the_response() {
    let mut reader = Reader::greeted(Sse::new(Clumsy { opens: false })).await;
    let error =
        reader.try_next().await.expect("the body yields a result").expect_err("the body fails");
    assert!(matches!(error, BodyError::Panicked));
    assert!(reader.try_next().await.is_none());
}

#[tokio::test]
async fn a_panic_of_the_signal_future_ends_only_the_response() {
    let sse = Sse::new(stream::pending::<Frame>()).until(async { panic!("bug") });
    let mut reader = Reader::greeted(sse).await;
    let error =
        reader.try_next().await.expect("the body yields a result").expect_err("the body fails");
    assert!(matches!(error, BodyError::Panicked));
}
