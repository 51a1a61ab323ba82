//! A test that checks that axum's server can serve the responses of this crate.

use axum::Router;
use axum::routing::get;
use downlink::{Event, LastEventId, Sse};
use futures_util::stream;
use tokio::net::{TcpListener, TcpStream};

use super::{Client, patiently};

async fn resumed(last: LastEventId) -> Sse<impl downlink::http::FrameSource> {
    let text = format!("after {}", last.as_str().unwrap_or("nothing"));
    Sse::new(stream::iter([Event::new(text)]))
}

#[tokio::test]
async fn axum_can_serve_the_streams_of_this_crate() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("the listener is bound");
    let (sender, sse) = Sse::channel(1);
    let sse = std::sync::Arc::new(std::sync::Mutex::new(Some(sse)));
    let once = move || async move {
        sse.lock().expect("no task panicked").take().expect("only one request arrives")
    };
    let app = Router::new().route("/", get(resumed)).route("/channel", get(once));
    tokio::spawn(axum::serve(listener, app).into_future());

    let mut client = Client::new(TcpStream::connect(address).await.expect("the server listens"));
    client.get("/", "Last-Event-ID: 7\r\nConnection: close\r\n").await;
    let answer = client.rest().await;
    assert!(answer.contains(": connected\n\ndata: after 7\n\n"), "{answer}");

    let mut client = Client::new(TcpStream::connect(address).await.expect("the server listens"));
    client.get("/channel", "").await;
    client.sees(": connected\n\n").await;
    sender.text("a").await.expect("the stream is open");
    client.sees("data: a\n\n").await;
    drop(client);
    patiently(sender.closed()).await;
}
