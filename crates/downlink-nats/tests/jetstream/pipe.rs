//! A connection that loses or repeats messages. A client of NATS loses them if its buffer is full.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use downlink_cluster::{Journal as _, JournalError, Position, TailItem};
use downlink_nats::{ConnectSettings, JetStream, JetStreamTail, ServerUrl};
use futures_util::FutureExt as _;
use serde_json::json;
use tokio::{
    io::{self, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::{
    contract::name,
    servers::{STREAM, Server, append, create, next, replicas, request},
};

/// Returns how many copies of a delivered message the proxy passes on. The parameter is the
/// sequence of the message. With 0 copies, the message is lost.
type Copies = fn(u64) -> usize;

/// Starts a proxy in front of a server. For each message that the server delivers, the proxy passes
/// on as many copies as `copies` returns. It passes on all other bytes once. Returns the address of
/// the proxy, and a counter of the connections to it.
async fn passing(server: ServerUrl, copies: Copies) -> (ServerUrl, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let accepted = Arc::clone(&count);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Arc::new(server.to_string());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            accepted.fetch_add(1, Ordering::Relaxed);
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let server = TcpStream::connect(&*server).await?;
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let requests = io::copy(&mut from_client, &mut to_server);
                tokio::try_join!(requests, pass_answers(from_server, to_client, copies))
            });
        }
    });
    (ServerUrl::new(&address).unwrap(), count)
}

/// Passes on what the server sends. This is a line, or a message, which is a line followed by the
/// bytes of the message.
async fn pass_answers(
    from: impl AsyncRead + Unpin,
    mut to: impl io::AsyncWrite + Unpin,
    copies: Copies,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    loop {
        let mut message = Vec::new();
        if from.read_until(b'\n', &mut message).await? == 0 {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&message).into_owned();
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut count = 1;
        if matches!(words.first(), Some(&"MSG" | &"HMSG")) {
            let length: usize = words[words.len() - 1].parse().unwrap();
            let mut rest = vec![0; length + 2];
            from.read_exact(&mut rest).await?;
            message.append(&mut rest);
            let reply = words.get(3).filter(|word| word.starts_with("$JS.ACK."));
            let sequence = reply.and_then(|reply| reply.split('.').nth(5)?.parse().ok());
            count = sequence.map_or(1, copies);
        }
        for _ in 0..count {
            to.write_all(&message).await?;
        }
    }
}

#[tokio::test]
async fn entries_that_the_connection_loses_are_fetched_and_not_reported_as_a_hole() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    for counter in 1..=8 {
        append(&mut journal, name(0, counter)).await;
    }
    let (all, bounds) = journal.read(Position::FIRST..Position::new(9)).await.unwrap();
    let mut tail = tail_over(&servers[0], |at| usize::from(![1, 3, 4, 7].contains(&at))).await;
    for entry in all {
        assert_eq!(next(&mut tail).await, Ok(TailItem::Entry(entry)));
    }
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(bounds.last)));
}

/// A tail that begins at the first position, and reads through a proxy with these `copies`.
async fn tail_over(server: &Server, copies: Copies) -> JetStreamTail {
    let servers = vec![passing(server.url(), copies).await.0];
    let settings = ConnectSettings { servers, ..ConnectSettings::default() };
    JetStream::new(settings, STREAM).unwrap().tail(Position::FIRST)
}

/// No later message shows that these entries are missing, but a heartbeat does.
#[tokio::test]
async fn the_newest_entries_that_the_connection_loses_are_fetched() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    for counter in 1..=4 {
        append(&mut journal, name(0, counter)).await;
    }
    let (all, bounds) = journal.read(Position::FIRST..Position::new(9)).await.unwrap();
    let mut tail = tail_over(&servers[0], |at| usize::from(at < 3)).await;
    for entry in all {
        assert_eq!(next(&mut tail).await, Ok(TailItem::Entry(entry)));
    }
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(bounds.last)));
}

/// A tail may get a position again because an older stream was put back. Only the node can find
/// this out, by comparing the entries.
#[tokio::test]
async fn a_repeated_position_is_an_error() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    for counter in 1..=3 {
        append(&mut journal, name(0, counter)).await;
    }
    let mut tail = tail_over(&servers[0], |at| if at == 2 { 2 } else { 1 }).await;
    for at in 1..=2 {
        let item = next(&mut tail).await.unwrap();
        assert!(matches!(&item, TailItem::Entry(entry) if entry.position.get() == at), "{item:?}");
    }
    assert_eq!(next(&mut tail).await, Err(JournalError::Unavailable));
}

/// The client remembers each request without an answer. In this test, the server answers questions,
/// so the connection seems to be good. It answers no appends.
#[tokio::test]
async fn a_connection_with_too_many_unanswered_requests_is_replaced() {
    let Some(server) = Server::start("").await else { return };
    let config = json!({"name": STREAM, "subjects": ["a"], "retention": "limits",
        "discard": "old", "storage": "file", "num_replicas": 1, "no_ack": true});
    request(&server, &format!("STREAM.CREATE.{STREAM}"), config).await;
    let (url, connections) = passing(server.url(), |_| 1).await;
    let settings = ConnectSettings { servers: vec![url], ..ConnectSettings::default() };
    let mut journal = JetStream::new(settings, STREAM).unwrap();
    journal.open().await.unwrap();
    let mut sent = 0;
    while connections.load(Ordering::Relaxed) == 1 {
        // Each append sends its request. The append is dropped without an answer, at the latest
        // when the next ones begin.
        let mut appends: Vec<_> = (0..32)
            .map(|number| journal.append(name(0, sent + number), vec![1], None).boxed())
            .collect();
        for append in &mut appends {
            assert!(append.as_mut().now_or_never().is_none());
        }
        sent += 32;
        // The last question may fail, because the connection can send no more requests.
        let _ = journal.bounds().await;
        assert!(sent <= 4_096, "one connection has {sent} requests without an answer");
    }
    assert!(sent >= 512, "{sent}");
    assert!(journal.bounds().await.is_ok());
}
