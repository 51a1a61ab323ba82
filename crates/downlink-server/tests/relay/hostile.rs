//! Upstreams that send anything but a feed. A relay must say why it has no events, keep its memory
//! small, and try again until the upstream is honest.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::{
    listener::Listener,
    node::{Kept, Node, Site},
    patiently,
};

/// The maximum memory of a relay under attack. A relay without events takes far less.
#[cfg(target_os = "linux")]
const RESIDENT_MAX: u64 = 200 << 20;

const FEED: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.downlink.feed\r\n\
                    Connection: close\r\n\r\n";

/// The answer of an upstream, and the reason that the relay gives in `/readyz`.
#[derive(Clone, Debug)]
enum Attack {
    /// Sends these bytes, and closes the connection.
    Bytes(Vec<u8>, &'static str),
    /// Sends the first bytes, and then the second ones over and over.
    Endless(Vec<u8>, Vec<u8>, &'static str),
    /// Sends nothing more after these bytes, and keeps the connection open.
    Silent(Vec<u8>, &'static str),
    /// Sends these bytes, and then a byte now and then.
    Slow(Vec<u8>, &'static str),
}

impl Attack {
    fn reason(&self) -> &'static str {
        match self {
            Self::Bytes(_, reason)
            | Self::Endless(_, _, reason)
            | Self::Silent(_, reason)
            | Self::Slow(_, reason) => reason,
        }
    }

    async fn run(self, mut io: TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(io.read_u8().await?);
        }
        match self {
            Self::Bytes(bytes, _) => {
                io.write_all(&bytes).await?;
                io.shutdown().await
            }
            Self::Endless(first, then, _) => {
                io.write_all(&first).await?;
                loop {
                    io.write_all(&then).await?;
                }
            }
            Self::Silent(bytes, _) => {
                io.write_all(&bytes).await?;
                io.read_u8().await.map(drop)
            }
            Self::Slow(bytes, _) => {
                io.write_all(&bytes).await?;
                loop {
                    sleep(Duration::from_millis(20)).await;
                    io.write_all(&[0]).await?;
                }
            }
        }
    }
}

/// An upstream that attacks, until it becomes a proxy of an honest one.
struct Hostile {
    address: SocketAddr,
    is_honest: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Hostile {
    async fn start(attack: Attack, upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the listener is bound");
        let (is_honest, connections) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (honest, count) = (Arc::clone(&is_honest), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((mut io, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (attack, is_honest) = (attack.clone(), honest.load(Ordering::Relaxed));
                tokio::spawn(async move {
                    if is_honest {
                        let mut there = TcpStream::connect(upstream).await?;
                        copy_bidirectional(&mut io, &mut there).await.map(drop)
                    } else {
                        attack.run(io).await
                    }
                });
            }
        });
        Self { address, is_honest, connections }
    }
}

/// Writes the messages of a feed for an upstream that lies.
mod feed {
    /// Writes numbers and texts in the format of a feed.
    pub(super) struct Message(Vec<u8>);

    impl Message {
        fn number(mut self, mut number: u64) -> Self {
            while number >= 0x80 {
                self.0.push(number as u8 | 0x80);
                number >>= 7;
            }
            self.0.push(number as u8);
            self
        }

        fn text(self, text: &str) -> Self {
            let mut message = self.number(text.len() as u64);
            message.0.extend_from_slice(text.as_bytes());
            message
        }

        fn finish(self) -> Vec<u8> {
            let length = u32::try_from(self.0.len()).expect("a short message");
            [&length.to_le_bytes()[..], &self.0].concat()
        }
    }

    /// The first message of a feed that begins at this offset.
    pub(super) fn opening(version: u64, from: u64, resumed: bool) -> Vec<u8> {
        let message = Message(vec![0]).number(version).number(1).number(77).number(1);
        message.text("abcd0123").number(1).number(from).number(resumed.into()).finish()
    }

    /// A chunk with events of the topic `a` at these offsets.
    pub(super) fn chunk(offsets: &[u64], next: u64, tail: u64) -> Vec<u8> {
        let mut message = Message(vec![1]).number(0).number(1).number(0);
        message = message.number(offsets.len() as u64);
        for offset in offsets {
            message = message.number(*offset).number(0).number(1).number(2).text("a");
            message = message.number(0).number(0).number(1).text("data: lie\n\n");
        }
        message.number(next).number(tail).number(0).number(0).number(0).number(0).number(0).finish()
    }
}

fn of_feed(messages: &[Vec<u8>]) -> Vec<u8> {
    [FEED.as_bytes(), &messages.concat()].concat()
}

fn attacks() -> Vec<Attack> {
    let bytes = |bytes: &[u8], reason| Attack::Bytes(bytes.to_vec(), reason);
    let head = |head: &str, reason| Attack::Bytes(head.as_bytes().to_vec(), reason);
    let lie = |messages: &[Vec<u8>], reason| Attack::Bytes(of_feed(messages), reason);
    let open = || feed::opening(1, 1, false);
    let malformed = "something that is not a feed";
    vec![
        bytes(&[0xff; 4_096], "cannot reach the upstream"),
        bytes(b"", "cannot reach the upstream"),
        head(
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "refuses the feed with 302",
        ),
        head(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nok",
            malformed,
        ),
        head("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone", "with 404 Not Found: none"),
        Attack::Endless(b"HTTP/1.1 200 OK\r\n".into(), b"X-A: b\r\n".into(), "the upstream"),
        Attack::Endless(b"HTTP/1.1 200 OK\r\nX-A: ".into(), vec![b'a'; 1_000], "the upstream"),
        Attack::Endless(
            b"HTTP/1.1 500 Oh\r\n\r\n".into(),
            vec![b'a'; 1_000],
            "refuses the feed with 500",
        ),
        Attack::Silent(Vec::new(), "has not answered within"),
        Attack::Silent(FEED.into(), "has sent next to nothing for"),
        Attack::Slow(b"HTTP/1.1 200 OK\r\nX-A: ".into(), "has not answered within"),
        Attack::Slow(of_feed(&[vec![255, 255, 0, 0]]), "has sent next to nothing for"),
        Attack::Slow(of_feed(&[open(), vec![255, 255, 0, 0]]), "has sent next to nothing for"),
        lie(&[], "has ended the feed"),
        lie(&[u32::MAX.to_le_bytes().to_vec()], "above the limit"),
        lie(&[vec![4, 0, 0, 0, 9, 9, 9, 9]], malformed),
        lie(&[feed::opening(999, 1, false)], "version 999"),
        lie(&[open(), feed::chunk(&[5, 4], 6, 6)], malformed),
        lie(&[open(), feed::chunk(&[4], 4, 4)], malformed),
        lie(&[open(), feed::chunk(&[u64::MAX - 1], u64::MAX, u64::MAX)], malformed),
        lie(&[feed::chunk(&[1, 2, 3], 4, 4)], malformed),
        Attack::Endless(FEED.into(), open(), malformed),
        // These are valid messages, which no honest upstream sends.
        lie(&[open(), feed::chunk(&[1, 2], 3, 1 << 40), feed::chunk(&[1, 2], 3, 3)], "has ended"),
        lie(&[feed::opening(1, 1 << 50, true)], "a position that this relay does not have"),
        lie(&[open(), feed::chunk(&[(1 << 62) - 2], (1 << 62) - 1, 1 << 40)], "has ended"),
        // A long message that never ends.
        Attack::Endless(
            of_feed(&[(60_u32 << 20).to_le_bytes().to_vec()]),
            vec![1; 9_999],
            malformed,
        ),
    ]
}

async fn survives(attack: Attack, mut relay: Node, hostile: Hostile) {
    relay.start().await;
    let expected = attack.reason();
    let why = relay.readyz_becomes(|answer| answer.body.contains(expected)).await;
    // After a lie that looks like a complete feed, the relay may believe that it has everything.
    assert!(why.status == 503 || why.body.starts_with("degraded"), "{attack:?}: {why:?}");
    let before = hostile.connections.load(Ordering::Relaxed);
    patiently(async {
        while hostile.connections.load(Ordering::Relaxed) < before + 2 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    #[cfg(target_os = "linux")]
    assert!(relay.resident_bytes() < RESIDENT_MAX, "{attack:?}: {}", relay.resident_bytes());
    hostile.is_honest.store(true, Ordering::Relaxed);
    relay.becomes_ready().await;
    // The relay may discard the lies only now, and then refuses its readers for a moment.
    let mut reader = patiently(async {
        loop {
            match Listener::try_open(&relay, "topic=a&start=earliest", "").await {
                Ok(reader) => return reader,
                Err(head) => assert!(head.starts_with("http/1.1 503 "), "{head}"),
            }
        }
    })
    .await;
    assert_eq!(reader.until("true").await.len(), 1, "{attack:?}");
    assert!(!relay.log().contains("panicked"), "{attack:?}: {}", relay.log());
    assert!(relay.log().contains(expected), "{attack:?}: {}", relay.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_upstream_neither_stops_nor_bloats_a_relay() {
    let site = Site::new("hostile");
    let mut upstream = site.upstream("upstream", Kept::InMemory, &[]);
    upstream.start().await;
    upstream.publish("a", "true").await;
    let mut surviving = JoinSet::new();
    for (number, attack) in attacks().into_iter().enumerate() {
        let hostile = Hostile::start(attack.clone(), upstream.address).await;
        let kept = if number % 2 == 0 { Kept::InMemory } else { Kept::InStore };
        let relay = site.relay(&format!("relay-{number}"), hostile.address, kept, &[]);
        surviving.spawn(survives(attack, relay, hostile));
    }
    surviving.join_all().await;
}
