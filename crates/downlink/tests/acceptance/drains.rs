//! Tests of requirement 16: a drain of a hub ends all streams and spreads the reconnects over time.
//! The drain also works under a server that does not know that its responses are streams.

use std::time::Duration;

use downlink::KeepAlive;
use downlink::hub::Hub;
use http_body_util::BodyExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::{Client, app, open, patiently};

#[tokio::test]
async fn acceptance_16_ten_thousand_drained_clients_reconnect_at_random_times() {
    const CLIENTS: usize = 10_000;
    let (from, to) = (Duration::from_secs(2), Duration::from_secs(12));
    let hub = Hub::<String>::builder().text().drain_spread(from..=to).build().unwrap();
    let join =
        || open(hub.subscribe().topic("a").open_event(false)).into_http_response().into_body();
    let bodies: Vec<_> = (0..CLIENTS).map(|_| join()).collect();
    hub.drain();
    let mut by_second = [0_usize; 10];
    for body in bodies {
        let text = body.collect().await.unwrap().to_bytes();
        let text = std::str::from_utf8(&text).unwrap();
        let millis = text.strip_prefix(": connected\n\nretry: ").unwrap().strip_suffix("\n\n");
        let millis: usize = millis.unwrap().parse().unwrap();
        assert!((2_000..=12_000).contains(&millis));
        by_second[((millis - 2_000) / 1_000).min(9)] += 1;
    }
    // On average, a tenth of the clients reconnects in each second. The standard deviation is 30.
    // The bounds are six standard deviations from the average, so the test does not fail by chance.
    assert!(by_second.iter().all(|clients| (820..=1_180).contains(clients)), "{by_second:?}");
    assert_eq!(hub.stats().subscribers, 0);
}

// axum's graceful shutdown waits for open streams. The streams end only because the hub drains.
#[tokio::test]
async fn acceptance_16_a_drained_hub_lets_axums_own_server_end() {
    let hub = Hub::<String>::text();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, app(&hub, KeepAlive::off()))
        .with_graceful_shutdown(hub.drain_on(stopped));
    let ended = tokio::spawn(server.into_future());
    let io = TcpStream::connect(address).await.unwrap();
    let mut client = Client::subscribe(io, "topics=a", "").await;
    hub.to("a").publish("the last".to_owned()).unwrap();
    stop.send(()).unwrap();
    assert_eq!(client.event().await.data, "the last");
    assert!(client.next().await.is_none());
    assert!(
        client.decoder.reconnection_time().is_some(),
        "the client must get a reconnection time"
    );
    patiently(ended).await.unwrap().unwrap();
}
