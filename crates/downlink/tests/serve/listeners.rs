//! Tests of apps that are not a router, and of listeners that are not TCP listeners.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use axum::serve::ListenerExt;
use downlink::adapters::axum::AxumListener;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{Client, body_of};

type Running = super::Running<super::wire::Tcp>;

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

async fn peer(ConnectInfo(peer): ConnectInfo<SocketAddr>) -> String {
    peer.to_string()
}

/// Sends one request for `/` and returns the body of the answer.
async fn asked(running: &Running) -> String {
    let mut client = running.connect().await;
    client.get("/", "Connection: close\r\n").await;
    body_of(&client.rest().await).to_owned()
}

#[tokio::test]
async fn method_routers_and_make_services_are_served() {
    let method_router = get(|| async { "method" });
    assert_eq!(asked(&Running::with(method_router, |serve| serve).await).await, "method");
    let maker = hello().into_make_service();
    assert_eq!(asked(&Running::with(maker, |serve| serve).await).await, "hello");
    let maker = Router::new().route("/", get(peer));
    let maker = maker.into_make_service_with_connect_info::<SocketAddr>();
    let answer = asked(&Running::with(maker, |serve| serve).await).await;
    assert!(answer.starts_with("127.0.0.1:"), "{answer}");
}

#[tokio::test]
async fn a_handler_gets_the_peer_address_without_extra_setup() {
    let running = Running::new(Router::new().route("/", get(peer))).await;
    let mut client = running.get("/").await;
    let own = client.io.local_addr().expect("the client is connected").to_string();
    client.sees(&own).await;
}

#[tokio::test]
async fn listeners_of_axum_are_served() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("the listener is bound");
    let tapped = Arc::new(Mutex::new(0));
    let taps = Arc::clone(&tapped);
    let listener = listener.tap_io(move |_| *taps.lock().expect("no task panicked") += 1);
    let serving = tokio::spawn(downlink::serve(listener, hello()).into_future());
    let mut client = Client::new(TcpStream::connect(address).await.expect("the server listens"));
    client.get("/", "").await;
    client.sees("hello").await;
    assert_eq!(*tapped.lock().expect("no task panicked"), 1);
    serving.abort();

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let serve = downlink::serve(AxumListener(listener), hello());
    let address = serve.local_addr().expect("the listener is bound");
    tokio::spawn(serve.into_future());
    let mut client = Client::new(TcpStream::connect(address).await.expect("the server listens"));
    client.get("/", "").await;
    client.sees("hello").await;
}

#[tokio::test]
async fn unix_sockets_are_served() {
    let directory = std::env::temp_dir().join(format!("downlink-serve-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("the directory can be made");
    let path = directory.join("socket");
    let _ = std::fs::remove_file(&path);
    let serve = downlink::serve(UnixListener::bind(&path).expect("the listener is bound"), hello());
    let address = serve.local_addr().expect("the listener is bound");
    assert_eq!(address.as_pathname(), Some(path.as_path()));
    tokio::spawn(serve.into_future());
    let mut client = Client::new(UnixStream::connect(&path).await.expect("the server listens"));
    client.get("/", "").await;
    client.sees("hello").await;
    std::fs::remove_dir_all(&directory).expect("the directory can be removed");
}
