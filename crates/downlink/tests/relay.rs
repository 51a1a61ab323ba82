//! Tests of relays, which are hubs that follow another hub, over real sockets.
#![cfg(all(feature = "relay", feature = "axum", feature = "json", feature = "serve"))]

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use downlink::{
    Delivery, Hub, PublishError, Subscription,
    hub::{Limits, Retention, Start},
    relay::{FEED_MEDIA_TYPE, FEEDS_MAX, FeedError, InvalidUpstream, Upstream},
};
use futures_util::StreamExt as _;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

/// The maximum duration of a wait. Every wait takes far less time.
const PATIENCE: Duration = Duration::from_secs(20);

async fn follow(State(hub): State<Hub<u32>>, RawQuery(query): RawQuery) -> Response {
    let after = query.as_deref().and_then(|query| query.strip_prefix("after="));
    match hub.feed(after) {
        Ok(body) => {
            let head = [(header::CONTENT_TYPE, FEED_MEDIA_TYPE)];
            (head, axum::body::Body::new(body)).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

async fn end(State(hub): State<Hub<u32>>) -> Response {
    match hub.feed_end().await {
        Ok(id) => id.as_str().to_owned().into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}

/// A hub that is served at an address.
struct Served {
    hub: Hub<u32>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Served {
    async fn start(hub: Hub<u32>) -> Self {
        Self::start_at(hub, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    async fn start_at(hub: Hub<u32>, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let address = listener.local_addr().expect("the listener is bound");
        let app = Router::new().route("/follow", get(follow)).route("/follow/end", get(end));
        let app = app.with_state(hub.clone());
        let task = tokio::spawn(async move {
            downlink::serve(listener, app).await.expect("the server runs");
        });
        Self { hub, address, task }
    }

    fn upstream(&self) -> Upstream {
        Upstream::new(&format!("http://{}", self.address)).expect("a URL")
    }

    /// A hub that follows this one.
    fn followed(&self) -> Hub<u32> {
        Hub::follow(Hub::builder().json().keep_values(|_| 4).decode_json(), self.upstream())
            .expect("valid settings")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("the wait ends in time")
}

/// Waits for the next event or gap.
async fn next(subscription: &mut Subscription<u32>) -> Delivery<u32> {
    within(subscription.next()).await.expect("the subscription is open")
}

async fn numbers(subscription: &mut Subscription<u32>, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < count {
        match next(subscription).await {
            Delivery::Event(event) => found.push(event.data().into_owned()),
            other => panic!("{other:?}"),
        }
    }
    found
}

#[tokio::test]
async fn a_relay_has_the_events_of_its_upstream_under_the_same_ids() {
    let upstream = Served::start(Hub::json()).await;
    let publish = |number: u32| upstream.hub.to("news").publish(number).expect("room for an event");
    let first = publish(1);
    let relay = upstream.followed();
    let opened = relay.subscribe().topic("news").start(Start::Earliest).open();
    let mut subscription = within(opened).await.expect("room for a subscription");
    let Delivery::Event(event) = next(&mut subscription).await else { panic!("an event") };
    assert_eq!((&*event.data(), Some(&event.id())), ("1", first.id()));

    // A client goes from the upstream to the relay right after an event. So the relay may not know
    // the client's id yet.
    for number in 2..50 {
        let newest = publish(number);
        let id = newest.id().expect("a hub in memory knows the id");
        let resumed = within(relay.subscribe().topic("news").resume(id).open()).await;
        let mut resumed = resumed.expect("room for a subscription");
        publish(number + 100);
        assert_eq!(numbers(&mut resumed, 1).await, [(number + 100).to_string()]);
    }
    assert!(matches!(relay.publish(7), Err(PublishError::ReadOnly)));
    let status = relay.upstream().expect("the hub follows another one");
    assert!(status.connected && status.reached, "{status:?}");
    assert!(upstream.hub.upstream().is_none());
}

#[tokio::test]
async fn filters_of_a_relay_get_the_values_of_the_upstream() {
    let upstream = Served::start(Hub::json()).await;
    let relay = upstream.followed();
    let opened = relay.subscribe().topic("news").filter(|number| number % 2 == 0).open();
    let mut even = within(opened).await.expect("room for a subscription");
    (1..=6).for_each(|number| drop(upstream.hub.to("news").publish(number).expect("room")));
    assert_eq!(numbers(&mut even, 3).await, ["2", "4", "6"]);
}

#[tokio::test]
async fn events_that_the_upstream_has_evicted_are_a_gap_at_a_new_relay() {
    let retention = Retention { events_max: 2, ..Retention::DEFAULT };
    let hub = Hub::builder().json().retention(retention).build().expect("valid settings");
    let upstream = Served::start(hub).await;
    let publish = |topic: &str, number: u32| upstream.hub.to(topic).publish(number).expect("room");
    let (old, quiet) = (publish("busy", 1), publish("quiet", 2));
    (3..10).for_each(|number| drop(publish("busy", number)));
    let relay = upstream.followed();
    let open = async |topic: &str, id| {
        let opened = relay.subscribe().topic(topic).resume(id).open();
        within(opened).await.expect("room for a subscription")
    };
    let mut busy = open("busy", old.id().expect("an id")).await;
    let Delivery::Gap(gap) = next(&mut busy).await else { panic!("a gap") };
    let until = gap.until.expect("the hub knows the last missing event");
    assert!(until.as_str().ends_with("-7"), "{until:?}");
    assert_eq!(numbers(&mut busy, 2).await, ["8", "9"]);
    let mut quiet = open("quiet", quiet.id().expect("an id")).await;
    publish("quiet", 10);
    assert_eq!(numbers(&mut quiet, 1).await, ["10"], "the quiet topic has lost nothing");
}

#[tokio::test]
async fn another_upstream_at_the_same_address_gives_the_clients_a_gap() {
    let first = Served::start(Hub::json()).await;
    let address = first.address;
    let old = first.hub.to("news").publish(1).expect("room for an event");
    let relay = first.followed();
    let opened = relay.subscribe().topic("news").start(Start::Earliest).open();
    let mut subscription = within(opened).await.expect("room for a subscription");
    assert_eq!(numbers(&mut subscription, 1).await, ["1"]);
    first.hub.close();
    drop(first);

    let second = loop {
        // The old server has been told to stop, and releases its address in a moment.
        if TcpListener::bind(address).await.is_ok() {
            break Served::start_at(Hub::json(), address).await;
        }
        tokio::task::yield_now().await;
    };
    second.hub.to("news").publish(2).expect("room for an event");
    // The relay ends its streams when it begins anew.
    while let Some(delivery) = within(subscription.next()).await {
        assert!(!matches!(delivery, Delivery::Event(_)), "{delivery:?}");
    }
    let id = old.id().expect("an id");
    let opened = relay.subscribe().topic("news").resume(id).open();
    let mut resumed = within(opened).await.expect("room for a subscription");
    let Delivery::Gap(gap) = next(&mut resumed).await else { panic!("a gap") };
    assert_eq!(gap.reason.as_str(), "new_epoch");
    assert_eq!(numbers(&mut resumed, 1).await, ["2"]);
}

#[tokio::test]
async fn a_chain_of_relays_carries_events_and_a_loop_is_refused() {
    let first = Served::start(Hub::json()).await;
    let second = Served::start(first.followed()).await;
    let third = second.followed();
    let opened = third.subscribe().topic("news").open();
    let mut subscription = within(opened).await.expect("room for a subscription");
    let receipt = first.hub.to("news").publish(1).expect("room for an event");
    let Delivery::Event(event) = next(&mut subscription).await else { panic!("an event") };
    assert_eq!(Some(&event.id()), receipt.id());
    // The newest id of the first hub is known at the end of the chain at once.
    let newest = first.hub.to("news").publish(2).expect("room for an event");
    let opened = third.subscribe().topic("news").resume(newest.id().expect("an id")).open();
    let mut resumed = within(opened).await.expect("room for a subscription");
    first.hub.to("news").publish(3).expect("room for an event");
    assert_eq!(numbers(&mut resumed, 1).await, ["3"]);

    // A hub that follows the address at which it is served itself.
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        listener.local_addr().expect("the listener is bound")
    };
    let upstream = Upstream::new(&format!("http://{address}")).expect("a URL");
    let itself = Hub::follow(Hub::builder().json(), upstream).expect("valid settings");
    let _served = Served::start_at(itself.clone(), address).await;
    let error = within(async {
        loop {
            let status = itself.upstream().expect("the hub follows another one");
            if let Some(error) = status.error.filter(|error| error.contains("follows this relay")) {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(error.await.contains("follow none"), "the error says what to do");
}

#[tokio::test]
async fn the_lag_is_the_number_of_events_that_a_relay_does_not_have_yet() {
    let hub = Hub::<u32>::json();
    for number in 0..5_000 {
        hub.to(format!("topic-{}", number % 10)).publish(number).expect("room for an event");
    }
    // The first two messages are the opening and a chunk with a part of the events.
    let allowed = Arc::new(Semaphore::new(2));
    let app = Router::new().route(
        "/follow",
        get({
            let (hub, allowed) = (hub.clone(), Arc::clone(&allowed));
            async move || {
                let body = axum::body::Body::new(hub.feed(None).expect("room for a feed"));
                let messages = body.into_data_stream().then(move |message| {
                    let allowed = Arc::clone(&allowed);
                    async move {
                        allowed.acquire().await.expect("the semaphore is open").forget();
                        message
                    }
                });
                let head = [(header::CONTENT_TYPE, FEED_MEDIA_TYPE)];
                (head, axum::body::Body::from_stream(messages)).into_response()
            }
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("the listener is bound"));
    let server = tokio::spawn(async move { downlink::serve(listener, app).await });
    let upstream = Upstream::new(&url).expect("a URL");
    let relay = Hub::<u32>::follow(Hub::builder().json(), upstream).expect("valid settings");
    let lag_becomes = async |wanted: fn(u64) -> bool| {
        within(async {
            loop {
                let status = relay.upstream().expect("the hub follows another one");
                if wanted(status.lag) && status.connected {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    };
    let status = lag_becomes(|lag| lag > 0).await;
    let applied = relay.stats().events as u64;
    assert!(applied > 0 && !status.reached);
    assert_eq!(status.lag + applied, 5_000);
    allowed.add_permits(Semaphore::MAX_PERMITS / 2);
    let status = lag_becomes(|lag| lag == 0).await;
    assert!(status.reached);
    server.abort();
}

#[tokio::test]
async fn the_number_of_feeds_is_limited() {
    let hub = Hub::<u32>::json();
    let feeds: Vec<_> = (0..FEEDS_MAX).map(|_| hub.feed(None).expect("room for a feed")).collect();
    assert_eq!(hub.feed(None).unwrap_err(), FeedError::TooMany);
    drop(feeds);
    within(async {
        while hub.feed(None).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let error = hub.feed(Some("nonsense")).unwrap_err();
    assert_eq!(error, FeedError::InvalidPosition("nonsense".to_owned()));
}

#[tokio::test]
async fn settings_that_a_relay_cannot_use_are_refused() {
    let upstream = || Upstream::new("http://127.0.0.1:1").expect("a URL");
    let refused = Hub::<u32>::follow(Hub::builder(), upstream()).unwrap_err();
    assert_eq!(refused.to_string(), Hub::<u32>::builder().build().unwrap_err().to_string());
    let limits = Limits { bytes_max: 10, ..Limits::default() };
    assert!(Hub::<u32>::follow(Hub::builder().json().limits(limits), upstream()).is_err());
    let values = Hub::<u32>::builder().json().keep_values(|_| 4);
    assert!(Hub::follow(values, upstream()).is_err(), "the values cannot be decoded");
    for url in ["127.0.0.1:1", "ftp://h", "http://h/?a=b", "http://h/#a", ""] {
        assert!(Upstream::new(url).is_err(), "{url}");
    }
    for key in ["", " ", "two\nlines"] {
        assert_eq!(upstream().bearer(key).unwrap_err(), InvalidUpstream::Key, "{key:?}");
    }
    assert!(upstream().bearer("a-key").is_ok());
}
