//! Attacks on the connections of a server: slow heads, heads that are too large, peers that vanish,
//! and connections from many addresses. In each test an ordinary user reads and publishes during
//! the attack. Afterwards the server has as many connections and descriptors as before.
//!
//! Each address of 127.0.0.0/8 is an address of this machine. The user has the address 127.0.0.1.
//! The timed figures of these attacks come from `cargo xtask bench`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use socket2::{SockFilter, SockRef};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    PATIENCE, patiently,
    request::{Place, Request},
    site::Site,
    stream::Stream,
};

const CONNECTIONS: &str = "downlink_connections{listener=\"public\"}";
const OF_ADDRESS: &str = "downlink_connections_refused_total{listener=\"public\",\
                          reason=\"connections_per_address_max\"}";
const OF_RATE: &str =
    "downlink_connections_refused_total{listener=\"public\",reason=\"connects_per_address\"}";
const OF_ALL: &str =
    "downlink_connections_refused_total{listener=\"public\",reason=\"connections_max\"}";

/// The memory that an attack may take, in addition to that of its connections: memory that the
/// allocator keeps for later, and the requests of the test itself.
const SLACK_BYTES: u64 = 24 << 20;
/// The memory of a connection while hyper is reading a request: the state of hyper, and a head of
/// 32 KiB. The numbers are from `docs/LIMITS.md`.
const HEAD_BYTES: u64 = (21 + 32) << 10;
/// The memory of a subscription and its stream, from the same page.
const STREAM_BYTES: u64 = 320 + 300 + 88;
/// The memory of all addresses and keys that the rates remember, from the same page.
const RATES_BYTES: u64 = 8 << 20;

/// A server under attack, and an ordinary user.
struct Attacked {
    site: Site,
    address: SocketAddr,
    user: Stream,
    /// The numbers before the attack.
    descriptors: u64,
    resident: u64,
    published: usize,
}

impl Attacked {
    async fn start(flags: &[&str]) -> Self {
        let site = Site::start(flags);
        let &Place::Tcp(address) = site.public() else { panic!("the public listener is on TCP") };
        let user = site.subscribe_as("ada", "topic=rooms/1").await;
        let mut attacked = Self { site, address, user, descriptors: 0, resident: 0, published: 0 };
        attacked.assert_served().await;
        attacked.until(CONNECTIONS, 1).await;
        attacked.descriptors = attacked.number("process_open_fds").await;
        attacked.resident = attacked.resident().await;
        attacked
    }

    /// Connects from 127.1.x.y, where x and y are the parts of `source`.
    async fn connect(&self, source: u16) -> TcpStream {
        let [high, low] = source.to_be_bytes();
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::new(127, 1, high, low), 0).into()).expect("a loopback address");
        socket.connect(self.address).await.expect("the server listens")
    }

    /// The user publishes an event, and gets it.
    async fn assert_served(&mut self) {
        self.published += 1;
        let data = self.published.to_string();
        let publish = Request::post("/events?topic=rooms/1", data.clone());
        assert_eq!(self.site.outcome_as("ada", publish).await, "200");
        assert_eq!(self.user.data().await, data);
    }

    async fn number(&self, metric: &str) -> u64 {
        self.site.metric(metric).await.parse().expect("a whole number")
    }

    async fn resident(&self) -> u64 {
        self.number("process_resident_memory_bytes").await
    }

    /// Waits until a metric has this value.
    async fn until(&self, metric: &str, value: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.number(metric).await;
            if now == value {
                return;
            }
            assert!(Instant::now() < deadline, "{metric} is {now}, not {value}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asserts that the attack takes at most these bytes.
    async fn assert_memory(&self, bytes_max: u64) {
        let grown = self.resident().await.saturating_sub(self.resident);
        assert!(grown <= bytes_max + SLACK_BYTES, "{grown} bytes, at most {bytes_max}");
    }

    /// Asserts that nothing is left of the attack.
    async fn assert_over(mut self) {
        self.until(CONNECTIONS, 1).await;
        self.until("process_open_fds", self.descriptors).await;
        self.until("downlink_subscribers", 1).await;
        self.assert_served().await;
        self.assert_memory(0).await;
    }
}

/// Subscribes to a topic that everyone may read, and reads the first line of the answer.
async fn subscribe(io: &mut TcpStream, topic: &str) -> String {
    let request = format!("GET /events?topic={topic} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    io.write_all(request.as_bytes()).await.expect("the connection is open");
    let mut line = String::new();
    while !line.ends_with("\r\n") {
        line.push(patiently(io.read_u8()).await.expect("an answer").into());
    }
    line.trim_end().to_owned()
}

#[tokio::test]
async fn slow_heads_take_bounded_memory_and_end_at_the_header_timeout() {
    const ADDRESSES: u16 = 40;
    const SLOW: u64 = ADDRESSES as u64 * 3;
    let limits = ["--connections-per-address-max", "3", "--connects-per-address", "off"];
    let mut attacked =
        Attacked::start(&[&limits[..], &["--header-timeout", "5s", "--public", "p"]].concat())
            .await;
    // The head is as long as it may be, and its end never comes.
    let head = format!("GET /events?topic=p HTTP/1.1\r\nX-Filler: {}", "a".repeat(30_000));
    let mut slow = Vec::new();
    for source in 0..ADDRESSES {
        for _ in 0..3 {
            let mut io = attacked.connect(source).await;
            io.write_all(head.as_bytes()).await.expect("the connection is open");
            slow.push(io);
        }
        let refused = subscribe(&mut attacked.connect(source).await, "p").await;
        assert_eq!(refused, "HTTP/1.1 429 Too Many Requests");
    }
    attacked.until(CONNECTIONS, 1 + SLOW).await;
    assert_eq!(attacked.number(OF_ADDRESS).await, u64::from(ADDRESSES));
    attacked.assert_served().await;
    attacked.assert_memory(SLOW * HEAD_BYTES).await;
    // A byte now and then does not keep a connection open.
    let end = Instant::now() + PATIENCE;
    for io in &mut slow {
        while timeout_at(end, io.write_u8(b'a')).await.expect("the server closes it").is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    }
    drop(slow);
    attacked.assert_over().await;
}

/// Each peer sends as much of its head as the server takes.
#[tokio::test]
async fn heads_that_are_too_large_take_bounded_memory() {
    const HEADS: u16 = 64;
    const BYTES: usize = 8 << 20;
    let mut attacked = Attacked::start(&["--public", "p"]).await;
    let head: Arc<str> = ("GET / HTTP/1.1\r\nX-Filler: ".to_owned() + &"a".repeat(BYTES)).into();
    let mut peers = JoinSet::new();
    for source in 0..HEADS {
        let (mut io, head) = (attacked.connect(source).await, Arc::clone(&head));
        peers.spawn(async move {
            let (mut read, mut write) = io.split();
            let mut answer = Vec::new();
            // The server may reset the connection while the peer still sends.
            let sending = write.write_all(head.as_bytes());
            let _ = patiently(async { tokio::join!(sending, read.read_to_end(&mut answer)) }).await;
            String::from_utf8(answer).expect("UTF-8")
        });
    }
    attacked.assert_served().await;
    while let Some(answer) = peers.join_next().await {
        let answer = answer.expect("no peer panics");
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        attacked.assert_memory(u64::from(HEADS) * HEAD_BYTES).await;
    }
    attacked.assert_over().await;
}

/// Each address keeps as many subscriptions as it may have, and tries to get one more. Then it
/// closes one of them, and gets another one.
#[tokio::test]
async fn addresses_at_their_limits_do_not_keep_other_addresses_out() {
    const ADDRESSES: u16 = 1_000;
    const HELD: usize = 2;
    let limits = ["--connections-per-address-max", "2", "--connects-per-address", "1/h,burst:4"];
    // The user connects more often than these limits allow. So the address of the user is that of a
    // trusted proxy, to which the limits do not apply.
    let flags = ["--trusted-proxy", "127.0.0.1", "--public", "p"];
    let mut attacked = Attacked::start(&[&limits[..], &flags].concat()).await;
    let mut held = Vec::new();
    for source in 0..ADDRESSES {
        let mut streams = Vec::new();
        for _ in 0..HELD {
            let mut io = attacked.connect(source).await;
            assert_eq!(subscribe(&mut io, "p").await, "HTTP/1.1 200 OK");
            streams.push(io);
        }
        let refused = subscribe(&mut attacked.connect(source).await, "p").await;
        assert_eq!(refused, "HTTP/1.1 429 Too Many Requests");
        held.push(streams);
    }
    let all = u64::from(ADDRESSES) * HELD as u64;
    attacked.until(CONNECTIONS, 1 + all).await;
    assert_eq!(attacked.number(OF_ADDRESS).await, u64::from(ADDRESSES));
    attacked.assert_served().await;
    attacked.assert_memory(all * STREAM_BYTES + RATES_BYTES).await;
    for streams in &mut held {
        streams.pop();
    }
    attacked.until(CONNECTIONS, 1 + all / 2).await;
    // The fourth connection of an address is the last one that its rate allows.
    for (source, streams) in (0..).zip(&mut held) {
        let mut io = attacked.connect(source).await;
        assert_eq!(subscribe(&mut io, "p").await, "HTTP/1.1 200 OK");
        streams.push(io);
        let refused = subscribe(&mut attacked.connect(source).await, "p").await;
        assert_eq!(refused, "HTTP/1.1 429 Too Many Requests");
    }
    assert_eq!(attacked.number(OF_RATE).await, u64::from(ADDRESSES));
    attacked.assert_served().await;
    drop(held);
    attacked.assert_over().await;
}

/// The peers subscribe, and then their sockets drop every packet of the server, like the socket of
/// a machine without power. Half of them get events, and the others only keep-alives.
#[tokio::test]
async fn a_subscription_ends_when_its_peer_vanishes() {
    const PEERS: u16 = 200;
    let flags = ["--write-stall-max", "2s", "--keep-alive", "1s", "--public", "p;q"];
    let mut attacked = Attacked::start(&flags).await;
    let mut vanished = Vec::new();
    for source in 0..PEERS {
        let mut io = attacked.connect(source).await;
        let topic = if source % 2 == 0 { "p" } else { "q" };
        assert_eq!(subscribe(&mut io, topic).await, "HTTP/1.1 200 OK");
        // BPF_RET with 0: the kernel keeps no byte of a packet, and acknowledges none.
        let drop_all = [SockFilter::new(0x06, 0, 0, 0)];
        SockRef::from(&io).attach_filter(&drop_all).expect("Linux has socket filters");
        vanished.push(io);
    }
    attacked.site.publish("topic=p", &"x".repeat(1_000)).await;
    attacked.assert_served().await;
    attacked.assert_memory(u64::from(PEERS) * STREAM_BYTES).await;
    attacked.until("downlink_connects_total", 1 + u64::from(PEERS)).await;
    attacked.until("downlink_subscribers", 1).await;
    attacked.assert_over().await;
    // Until now, the peers have not closed their sockets.
    drop(vanished);
}

/// Without a limit for each address, the attacker takes every connection that the server has.
#[tokio::test]
async fn a_server_at_its_limit_of_connections_still_serves_its_open_connections() {
    let flags = ["--connections-max", "50", "--public", "p"];
    let mut attacked = Attacked::start(&flags).await;
    let mut held = Vec::new();
    for source in 1..50 {
        let mut io = attacked.connect(source).await;
        assert_eq!(subscribe(&mut io, "p").await, "HTTP/1.1 200 OK");
        held.push(io);
    }
    for source in 0..20 {
        let refused = subscribe(&mut attacked.connect(source).await, "p").await;
        assert_eq!(refused, "HTTP/1.1 503 Service Unavailable");
    }
    assert_eq!(attacked.number(OF_ALL).await, 20);
    attacked.site.publish("topic=rooms/1", "to the user").await;
    assert_eq!(attacked.user.data().await, "to the user");
    drop(held);
    attacked.assert_over().await;
}
