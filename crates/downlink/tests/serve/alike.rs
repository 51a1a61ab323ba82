//! Tests that a peer gets the same answers on all types of sockets.
//!
//! The server is built on hyper, an HTTP library. On some types of sockets, hyper writes the
//! streams. On all other types, the server writes the streams itself. A peer must not notice which
//! of the two writes its stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Response;
use axum::middleware::map_response;
use axum::response::IntoResponse;
use axum::routing::get;
use downlink::hub::{Hub, Start};
use downlink::{Event, Frame, Sse};
use futures_util::stream;
use http_body::Frame as HttpFrame;

use super::Running;
use super::answer::Answer;
use super::wire::{Foreign, Tcp, Unix, Wire};

/// Serves the app on one kind of socket, sends one request and returns the answer.
async fn answer<W: Wire>(app: Router) -> Answer {
    let running = Running::<W>::new(app).await;
    let mut client = running.get("/").await;
    let answer = client.answer().await;
    // The connection must still be usable.
    client.get("/nowhere", "").await;
    assert_eq!(client.answer().await.status, "HTTP/1.1 404 Not Found");
    answer
}

/// Serves the same app on each kind of socket. Asserts that all answers are equal, and returns the
/// answer.
async fn answer_of_all(app: impl Fn() -> Router) -> Answer {
    let over_hyper = answer::<Foreign>(app()).await;
    assert_eq!(answer::<Tcp>(app()).await, over_hyper);
    assert_eq!(answer::<Unix>(app()).await, over_hyper);
    assert_eq!(over_hyper.header("transfer-encoding"), Some("chunked"));
    over_hyper
}

fn events() -> impl futures_util::Stream<Item = Event> + Send + 'static {
    stream::iter((0..200).map(|number| Event::new(format!("{number}\n{}", "x".repeat(500)))))
}

#[tokio::test]
async fn a_hub_subscription_is_the_same_on_all_sockets() {
    // Ids contain the epoch of the hub, which is a random number. All servers use one hub, so that
    // their ids are equal.
    let hub = Hub::builder().text().open_event(false).build().expect("the settings are valid");
    for number in 0..100 {
        hub.to("a").publish(number.to_string()).expect("the hub accepts the event");
    }
    hub.finish("a").expect("the topic can be finished");
    let answer = answer_of_all(|| {
        let hub = hub.clone();
        let join =
            move || async move { hub.subscribe().topic("a").start(Start::Earliest).open().await };
        Router::new().route("/", get(join))
    });
    let answer = answer.await;
    assert!(answer.body.contains("data: 99\n\n"), "{answer:?}");
}

#[tokio::test]
async fn a_stream_of_events_is_the_same_on_all_sockets() {
    let answer = answer_of_all(|| Router::new().route("/", get(|| async { Sse::new(events()) })));
    assert_eq!(answer.await.body.matches("\n\n").count(), 201);
}

#[tokio::test]
async fn a_channel_of_events_is_the_same_on_all_sockets() {
    let answer = answer_of_all(|| {
        let talk = || async {
            let (sender, sse) = Sse::channel(1);
            tokio::spawn(async move {
                for number in 0..50 {
                    sender.text(number.to_string()).await.expect("the stream is open");
                }
                sender.finish();
            });
            sse.reconnection_time(Duration::from_secs(2))
        };
        Router::new().route("/", get(talk))
    });
    let answer = answer.await;
    assert!(answer.body.starts_with(": connected\n\nretry: 2000\n\ndata: 0\n\n"), "{answer:?}");
    assert!(answer.body.ends_with("data: 49\n\n"), "{answer:?}");
}

#[tokio::test]
async fn a_stream_of_axum_is_the_same_on_all_sockets() {
    use axum::response::sse::{Event, KeepAlive, Sse};

    let answer = answer_of_all(|| {
        let events = || {
            stream::iter((0..50).map(|n| Ok::<_, Infallible>(Event::default().data(n.to_string()))))
        };
        let sse = move || async move { Sse::new(events()).keep_alive(KeepAlive::default()) };
        Router::new().route("/", get(sse))
    });
    assert!(answer.await.body.ends_with("data: 49\n\n"));
}

/// A body that changes the data of another body, as a middleware might. It also adds a frame and a
/// trailer at the end.
struct Shouting {
    inner: Body,
    bytes: usize,
    ended: u8,
}

impl http_body::Body for Shouting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<HttpFrame<Bytes>, axum::Error>>> {
        if self.ended == 0 {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let data = frame.into_data().expect("the frame has data");
                    self.bytes += data.len();
                    return Poll::Ready(Some(Ok(HttpFrame::data(
                        data.to_ascii_uppercase().into(),
                    ))));
                }
                Some(error) => return Poll::Ready(Some(error)),
                None => {}
            }
        }
        self.ended += 1;
        Poll::Ready(match self.ended {
            1 => Some(Ok(HttpFrame::data(format!(": {} bytes\n\n", self.bytes).into()))),
            2 => Some(Ok(HttpFrame::trailers(
                [(
                    "x-bytes".parse().expect("the header is valid"),
                    "1".parse().expect("the header is valid"),
                )]
                .into_iter()
                .collect(),
            ))),
            _ => None,
        })
    }
}

async fn shouted(response: Response<Body>) -> Response<Body> {
    response.map(|inner| Body::new(Shouting { inner, bytes: 0, ended: 0 }))
}

#[tokio::test]
async fn a_body_that_wraps_another_body_is_the_same_on_all_sockets() {
    let answer = answer_of_all(|| {
        let app = Router::new().route("/", get(|| async { Sse::new(events()) }));
        app.route_layer(map_response(shouted))
    });
    let answer = answer.await;
    assert!(answer.body.starts_with(": CONNECTED\n\nDATA: 0\nDATA: XXX"), "{answer:?}");
    assert!(answer.body.ends_with(" bytes\n\n"), "{answer:?}");
}

#[tokio::test]
async fn a_compressed_stream_is_the_same_on_all_sockets() {
    let answer = answer_of_all(|| {
        let coded = || async {
            let chunks = stream::iter(["not ", "really ", "br"].map(Ok::<_, Infallible>));
            let headers = [("content-type", "text/event-stream"), ("content-encoding", "br")];
            (headers, Body::from_stream(chunks)).into_response()
        };
        Router::new().route("/", get(coded))
    });
    assert_eq!(answer.await.body, "not really br");
}

/// The body has empty frames. They must not end the stream.
#[tokio::test]
async fn empty_frames_do_not_end_a_stream() {
    let answer = answer_of_all(|| {
        let chunks = || {
            stream::iter(["", "data: a\n\n", "", "", "data: b\n\n", ""].map(Ok::<_, Infallible>))
        };
        let raw = move || async move {
            ([("content-type", "text/event-stream")], Body::from_stream(chunks()))
        };
        Router::new().route("/", get(raw))
    });
    assert_eq!(answer.await.body, "data: a\n\ndata: b\n\n");
}

/// The server does not treat a response as a stream if its status is not 200 or if it has a length.
#[tokio::test]
async fn responses_with_another_status_or_a_length_are_the_same_on_all_sockets() {
    for (status, length) in [(201, false), (503, false), (200, true)] {
        let app = || {
            let response = move || async move {
                let response =
                    Response::builder().status(status).header("content-type", "text/event-stream");
                let response = if length { response.header("content-length", 9) } else { response };
                let frames =
                    stream::iter([Ok::<_, Infallible>(Frame::comment("hello").into_bytes())]);
                response.body(Body::from_stream(frames)).expect("the response is valid")
            };
            Router::new().route("/", get(response))
        };
        let over_hyper = answer::<Foreign>(app()).await;
        assert_eq!(over_hyper.body, ": hello\n\n");
        assert_eq!(answer::<Tcp>(app()).await, over_hyper);
        assert_eq!(answer::<Unix>(app()).await, over_hyper);
    }
}
