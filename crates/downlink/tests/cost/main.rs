//! Tests that count the memory and the allocations of a subscription. A commit that raises a limit
//! in this file must give the reason.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "these tests use only a part of the module")]
#[path = "../../../downlink-proto/tests/it/allocation.rs"]
mod allocation;

use std::task::{Context, Poll, Waker};

use allocation::allocations_of;
use downlink::{
    Frame, Subscription,
    adapters::{AsPublished, SubscriptionFrames},
    http::{AnyError, SseBody},
    hub::{Hub, Offset},
};
use futures_util::FutureExt;
use futures_util::StreamExt;

/// The number of subscriptions whose memory is counted together. The lists of the hub double their
/// capacity when they grow, so the counted memory also includes unused capacity.
const SUBSCRIPTIONS: usize = 10_000;

/// Opens a subscription to one topic and to one client's inbox. The subscription has read
/// everything and waits.
fn waiting(hub: &Hub<String>, topic: &str, client: &str) -> Subscription<String> {
    let opened = hub.subscribe().topic(topic).client(client).open();
    let mut subscription = opened.now_or_never().unwrap().unwrap();
    assert!(poll(&mut subscription).is_none());
    subscription
}

/// Polls a subscription once. Returns the offset of the next event, if there is one.
fn poll(subscription: &mut Subscription<String>) -> Option<Offset> {
    match subscription.poll_next_unpin(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Some(downlink::Delivery::Event(event))) => Some(event.offset()),
        Poll::Ready(other) => panic!("{other:?}"),
        Poll::Pending => None,
    }
}

/// An idle stream has a response body, and the hub keeps some state for it in its log. Together
/// they take less than 607 bytes. With twice as much, a subscription would take more memory than
/// its connection.
#[test]
fn an_idle_subscription_with_an_inbox_takes_no_more_memory_than_the_limit() {
    let hub = Hub::<String>::text();
    let mut subscriptions = Vec::with_capacity(SUBSCRIPTIONS);
    let ((), used) = allocations_of(|| {
        for number in 0..SUBSCRIPTIONS {
            subscriptions.push(waiting(&hub, "news", &format!("client-{number}")));
        }
    });
    let itself = size_of::<SubscriptionFrames<String, AsPublished>>();
    let behind = used.live / SUBSCRIPTIONS as isize;
    assert!(itself <= 168, "a subscription takes {itself} bytes");
    let body = size_of::<SseBody<SubscriptionFrames<String, AsPublished>>>();
    println!("an idle subscription: {itself} bytes, its body {body}, and {behind} in the log");
    assert!(body <= 208, "a body takes {body} bytes");
    assert!(behind <= 398, "the log keeps {behind} bytes for a subscription");
}

/// The memory of one idle stream over a socket. It includes the memory of the client, because the
/// client runs in the same thread as the server.
#[cfg(all(feature = "axum", feature = "serve", target_os = "linux"))]
fn bytes_of_an_idle_stream(has_limits: bool) -> isize {
    use tokio::io::AsyncReadExt;

    const STREAMS: usize = 448;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endless = || async { downlink::Sse::new(futures_util::stream::pending::<Frame>()) };
        let app = axum::Router::new().route("/", axum::routing::get(endless));
        let mut serve = downlink::serve::<_, _, downlink::serve::AsService>(listener, app);
        if has_limits {
            serve = serve
                .connections_per_address_max(10_000.try_into().unwrap())
                .connects_per_address("1/h,burst:10000".parse().unwrap());
        }
        tokio::spawn(serve.into_future());
        // Each stream has a different address.
        let open = async |number: usize| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            let host = [127, 0, 1 + (number / 200) as u8, 1 + (number % 200) as u8];
            socket.bind((std::net::Ipv4Addr::from(host), 0).into()).unwrap();
            let mut client = socket.connect(address).await.unwrap();
            client.try_write(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
            let mut bytes = [0; 1_024];
            let mut seen = Vec::new();
            while !seen.ends_with(b": connected\n\n\r\n") {
                let read = client.read(&mut bytes).await.unwrap();
                assert!(read > 0);
                seen.extend_from_slice(&bytes[..read]);
            }
            client
        };
        let mut clients = Vec::with_capacity(STREAMS);
        // The allocator counts from here on.
        allocations_of(|| ());
        for number in 0..STREAMS {
            clients.push(open(number).await);
        }
        let live = allocation::used().live;
        drop(clients);
        live / STREAMS as isize
    })
}

/// The server has two limits for each peer address. Each of the two limits keeps a table with an
/// entry for each address. The two entries of an address together must take little memory.
#[cfg(all(feature = "axum", feature = "serve", target_os = "linux"))]
#[test]
fn the_limits_for_each_address_take_little_memory() {
    let (off, on) = (bytes_of_an_idle_stream(false), bytes_of_an_idle_stream(true));
    println!("an idle stream: {off} bytes without limits for its address, {on} with them");
    assert!(on - off <= 160, "{off} without limits, {on} with them");
}

/// The bytes of the response body of one idle stream, without the state in the hub's log.
#[cfg(feature = "access")]
fn body_bytes<S>(
    hub: &Hub<String>,
    body: impl Fn(usize, Subscription<String>) -> SseBody<S>,
) -> isize {
    let open = |number| waiting(hub, "news", &format!("client-{number}"));
    let opened: Vec<_> = (0..SUBSCRIPTIONS).map(open).collect();
    let (bodies, used) = allocations_of(|| {
        let bodies = opened.into_iter().enumerate();
        bodies.map(|(number, opened)| Box::new(body(number, opened))).collect::<Vec<_>>()
    });
    drop(bodies);
    used.live / SUBSCRIPTIONS as isize
}

/// A grant (the rights of a caller) takes 24 bytes, and 16 more bytes if it has an end. A ticket is
/// a credential in a URL. A stream with a ticket also has an entry in the table of tickets.
/// Together, these take at most 64 bytes.
#[cfg(feature = "access")]
#[test]
fn a_grant_adds_at_most_64_bytes_to_an_idle_stream() {
    use std::time::{Duration, SystemTime};

    use downlink::{
        access::Caller,
        hub::{ClientId, TopicSelector},
    };
    use downlink_access::{Access, AccessOptions, Grant, Presented, Secret, TicketKeys};

    let hub = Hub::<String>::text();
    let key = Secret::from_file_bytes(&[b't'; 32]).unwrap();
    let tickets = Some(TicketKeys::new("a", &[key]).unwrap());
    let access = Access::new(AccessOptions { tickets, ..AccessOptions::default() });
    let until = SystemTime::now() + Duration::from_secs(3_600);
    let user = Caller::trusted(access.clone(), Grant::app().with_until(until.into()));
    let browser = |number| {
        let client = ClientId::new(&format!("client-{number}")).unwrap();
        let topics = vec![TopicSelector::parse("*").unwrap()];
        let ticket = user.issue(topics, Some(client), Duration::from_secs(600)).unwrap().0;
        let verified = access.verify(&Presented::new().ticket(&ticket), SystemTime::now().into());
        Caller::new(access.clone(), verified.unwrap(), false)
    };
    let browsers: Vec<Caller> = (0..SUBSCRIPTIONS).map(browser).collect();

    let without = body_bytes(&hub, |_, opened| opened.into_http_response().into_body());
    let stream = |caller: &Caller, opened: Subscription<String>| {
        let sse = caller.stream(&hub, opened.into_frames()).unwrap();
        sse.into_http_response().into_body()
    };
    let with_token = body_bytes(&hub, |_, opened| stream(&user, opened));
    let with_ticket = body_bytes(&hub, |number, opened| stream(&browsers[number], opened));
    println!("a body: {without} bytes, with a token {with_token}, with a ticket {with_ticket}");
    assert!(
        with_token - without <= 40,
        "{without} bytes without a grant, {with_token} with a token"
    );
    assert!(
        with_ticket - without <= 64,
        "{without} bytes without a grant, {with_ticket} with a ticket"
    );
}

/// A subscription that resumes from a cursor must take the same memory as a new subscription.
#[test]
fn a_resumed_subscription_has_the_same_memory_as_a_new_one() {
    let hub = Hub::<String>::text();
    let cursor = hub.cursor();
    let others = ["alice", "bob"].map(|client| waiting(&hub, "news", client));
    // The lists of the hub grow for this subscription, so they need not grow during the counts.
    drop(waiting(&hub, "news", "carol"));
    let (subscription, anew) = allocations_of(|| waiting(&hub, "news", "carol"));
    drop(subscription);
    let (_subscription, back) = allocations_of(|| {
        let opened = hub.subscribe().topic("news").client("carol").resume(&cursor).open();
        let mut subscription = opened.now_or_never().unwrap().unwrap();
        assert!(poll(&mut subscription).is_none());
        subscription
    });
    assert_eq!(back.live, anew.live);
    drop(others);
}

/// For each delivery, the subscription is polled twice. The first poll returns the event. The
/// second poll returns nothing, and the subscription waits again.
#[test]
fn a_delivery_to_a_waiting_subscription_allocates_nothing() {
    let hub = Hub::<String>::text();
    let mut subscriptions = ["alice", "bob"].map(|client| waiting(&hub, "news", client));
    for to in [hub.to("news"), hub.to_everyone(), hub.to("news").and_to_everyone()] {
        to.publish("hello".to_owned()).unwrap();
        for subscription in &mut subscriptions {
            let ((), used) = allocations_of(|| {
                assert!(poll(subscription).is_some());
                assert!(poll(subscription).is_none());
            });
            assert_eq!(used.count, 0);
        }
    }
    // A topic and the client's inbox both have a new event. Both events must be delivered in order.
    hub.to("news").publish("one".to_owned()).unwrap();
    hub.to_client("alice").publish("two".to_owned()).unwrap();
    let [alice, _] = &mut subscriptions;
    let (seen, used) = allocations_of(|| [poll(alice), poll(alice), poll(alice)]);
    let offsets = seen.map(|offset| offset.map(Offset::get));
    assert!(matches!(offsets, [Some(one), Some(two), None] if one < two), "{offsets:?}");
    assert_eq!(used.count, 0);
}

/// Publishes one event in a hub with this many other topics, each with one subscription. Returns
/// the number of allocations.
fn publish_beside(topics: usize) -> usize {
    let hub = Hub::<String>::text();
    let others: Vec<_> = (0..topics)
        .map(|number| waiting(&hub, &format!("other/{number}"), &format!("client-{number}")))
        .collect();
    let mut reader = waiting(&hub, "news", "alice");
    let publish = || hub.to("news").publish("hello".to_owned()).unwrap();
    publish();
    let (_, used) = allocations_of(publish);
    assert!(poll(&mut reader).is_some());
    drop(others);
    used.count
}

/// This test counts only allocations. The tests of the crate `downlink-log` count locks and wakes.
#[test]
fn the_allocations_of_a_publish_do_not_depend_on_the_number_of_topics() {
    let few = publish_beside(100);
    println!("a publish: {few} allocations");
    assert_eq!(publish_beside(20_000), few);
}

/// A poll may return an error instead of a frame. The type that can hold a frame or an error must
/// be as small as the type that can hold only a frame.
#[test]
fn the_result_of_a_poll_is_no_larger_with_an_error_type() {
    let with_error = size_of::<Poll<Option<Result<Frame, AnyError>>>>();
    assert_eq!(with_error, size_of::<Poll<Option<Frame>>>());
}
