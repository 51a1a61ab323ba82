//! Tests of `Sse::channel`, which makes a response and a sender of its events.

use std::error::Error;

use downlink::http::{CHANNEL_EVENTS_MAX, SendError, SendJsonError, TrySendError};
use downlink::{Event, Sse};
use futures_util::FutureExt;

use super::Reader;

#[tokio::test]
async fn all_events_arrive_in_order() {
    let (sender, sse) = Sse::channel(8);
    sender.send(Event::new("a")).await.expect("the stream is open");
    sender.text("b").await.expect("the stream is open");
    sender.json(&[1, 2]).await.expect("the stream is open");
    sender.comment("c").await.expect("the stream is open");
    sender.clone().try_send(Event::new("d")).expect("the stream is open");
    drop(sender);
    assert_eq!(
        Reader::new(sse).rest().await,
        ": connected\n\ndata: a\n\ndata: b\n\ndata: [1,2]\n\n: c\n\ndata: d\n\n"
    );
}

#[tokio::test]
async fn a_channel_holds_as_many_events_as_its_capacity() {
    for (asked, holds) in [(0, 1), (1, 1), (2, 2), (CHANNEL_EVENTS_MAX + 1, CHANNEL_EVENTS_MAX)] {
        let (sender, _sse) = Sse::channel(asked);
        for _ in 0..holds {
            sender.try_send(Event::default()).expect("the channel has room");
        }
        let full = sender.try_send(Event::new("more")).expect_err("the channel is full");
        assert_eq!(full, TrySendError::Full(Event::new("more")));
        assert_eq!(full.to_string(), "the channel is full");
    }
}

#[tokio::test]
async fn send_waits_for_room() {
    let (sender, sse) = Sse::channel(1);
    sender.try_send(Event::new("a")).expect("the channel has room");
    let mut waiting = Box::pin(sender.text("b"));
    assert!(waiting.as_mut().now_or_never().is_none());
    let mut reader = Reader::new(sse);
    assert_eq!(reader.next().await.as_deref(), Some(": connected\n\ndata: a\n\n"));
    waiting.await.expect("the channel has room after the first event was read");
    assert_eq!(reader.next().await.as_deref(), Some("data: b\n\n"));
}

#[tokio::test]
async fn the_sender_notices_a_dropped_body() {
    let (sender, sse) = Sse::channel(1);
    let response = sse.into_http_response();
    assert!(sender.closed().now_or_never().is_none());
    assert!(!sender.is_closed());
    drop(response);
    sender.closed().await;
    assert!(sender.is_closed());
}

#[tokio::test]
async fn a_send_after_the_body_was_dropped_returns_the_event() {
    let (sender, sse) = Sse::channel(1);
    sender.try_send(Event::new("a")).expect("the channel has room");
    let waiting = tokio::spawn({
        let sender = sender.clone();
        async move { sender.text("b").await }
    });
    tokio::task::yield_now().await;
    drop(sse);
    let error = waiting.await.expect("no task panicked").expect_err("the stream has ended");
    assert_eq!(error, SendError(Event::new("b")));
    assert_eq!(error.to_string(), "the stream has ended");
    let closed = sender.try_send(Event::new("c")).expect_err("the stream has ended");
    assert_eq!(closed, TrySendError::Closed(Event::new("c")));
    assert_eq!(closed.to_string(), "the stream has ended");
    sender.comment("d").await.expect_err("the stream has ended");
}

#[tokio::test]
async fn finish_ends_the_stream_after_all_sent_events() {
    let (sender, sse) = Sse::channel(2);
    let other = sender.clone();
    sender.try_send(Event::new("a")).expect("the channel has room");
    sender.try_send(Event::new("b")).expect("the channel has room");
    sender.finish();
    sender.finish();
    assert!(other.is_closed());
    assert_eq!(Reader::new(sse).rest().await, ": connected\n\ndata: a\n\ndata: b\n\n");
}

#[tokio::test]
async fn no_event_is_accepted_after_the_stream_is_finished() {
    let (sender, sse) = Sse::channel(2);
    sender.finish();
    assert_eq!(sender.text("a").await, Err(SendError(Event::new("a"))));
    assert_eq!(sender.try_send(Event::new("b")), Err(TrySendError::Closed(Event::new("b"))));
    sender.comment("c").await.expect_err("the stream is finished");
    assert_eq!(Reader::new(sse).rest().await, ": connected\n\n");
}

/// While one sender waits for room in the channel, another sender finishes the stream. The waiting
/// send must then return an error.
#[tokio::test]
async fn a_send_that_waits_for_room_fails_if_the_stream_is_finished() {
    let (sender, sse) = Sse::channel(1);
    sender.try_send(Event::new("a")).expect("the channel has room");
    let mut waiting = Box::pin(sender.text("b"));
    assert!(waiting.as_mut().now_or_never().is_none());
    sender.finish();
    let read = Reader::new(sse).rest().await;
    assert_eq!(read, ": connected\n\ndata: a\n\n");
    assert_eq!(waiting.await, Err(SendError(Event::new("b"))));
}

#[tokio::test]
async fn sending_a_value_that_json_cannot_encode_is_an_error() {
    let (sender, sse) = Sse::channel(1);
    let keyed_by_lists = std::collections::BTreeMap::from([(vec![1], 1)]);
    let error = sender.json(&keyed_by_lists).await.expect_err("JSON cannot encode the value");
    assert!(matches!(error, SendJsonError::Encode(_)));
    assert_eq!(error.to_string(), "the value was not sent, because it could not be encoded");
    assert!(error.source().is_some());
    drop(sse);
    let error = sender.json(&1).await.expect_err("the stream has ended");
    assert!(matches!(error, SendJsonError::Closed(_)));
    assert_eq!(error.to_string(), "the value was not sent");
    assert_eq!(error.source().expect("the error has a cause").to_string(), "the stream has ended");
}

#[tokio::test]
async fn concurrent_senders_lose_no_event_sent_before_the_stream_is_finished() {
    let (sender, sse) = Sse::channel(3);
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut sent = 0;
                while sent < 100 && sender.text("x").await.is_ok() {
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    let reading = tokio::spawn(async move { Reader::new(sse).rest().await });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    sender.finish();
    let mut sent = 0;
    for task in senders {
        sent += task.await.expect("no task panicked");
    }
    let read = reading.await.expect("no task panicked");
    assert_eq!(read.matches("data: x\n\n").count(), sent);
}
