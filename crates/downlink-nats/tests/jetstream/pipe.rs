//! A connection that loses a message. A client of NATS does that if its buffer is full.

use std::sync::Arc;

use downlink_cluster::{Journal as _, Position, TailItem};
use downlink_nats::{ConnectSettings, JetStream, ServerUrl};
use tokio::{
    io::{self, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::{
    contract::name,
    servers::{STREAM, Server, append, create, next, replicas},
};

/// Passes the bytes of each connection on, except delivered messages with these sequences. Returns
/// its address.
async fn losing(server: ServerUrl, sequences: &'static [u64]) -> ServerUrl {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Arc::new(server.to_string());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let server = TcpStream::connect(&*server).await?;
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                let requests = io::copy(&mut from_client, &mut to_server);
                tokio::try_join!(requests, pass_answers(from_server, to_client, sequences))
            });
        }
    });
    ServerUrl::new(&address).unwrap()
}

/// Passes lines on, and after the line of a message also its bytes.
async fn pass_answers(
    from: impl AsyncRead + Unpin,
    mut to: impl io::AsyncWrite + Unpin,
    lost: &[u64],
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    loop {
        let mut message = Vec::new();
        if from.read_until(b'\n', &mut message).await? == 0 {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&message).into_owned();
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut is_lost = false;
        if matches!(words.first(), Some(&"MSG" | &"HMSG")) {
            let length: usize = words[words.len() - 1].parse().unwrap();
            let mut rest = vec![0; length + 2];
            from.read_exact(&mut rest).await?;
            message.append(&mut rest);
            let reply = words.get(3).filter(|word| word.starts_with("$JS.ACK."));
            let sequence = reply.and_then(|reply| reply.split('.').nth(5)?.parse().ok());
            is_lost = sequence.is_some_and(|sequence| lost.contains(&sequence));
        }
        if !is_lost {
            to.write_all(&message).await?;
        }
    }
}

#[tokio::test]
async fn entries_that_the_connection_loses_are_fetched_and_are_no_hole() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    for counter in 1..=8 {
        append(&mut journal, name(0, counter)).await;
    }
    let (all, bounds) = journal.read(Position::FIRST..Position::new(9)).await.unwrap();
    let servers = vec![losing(servers[0].url(), &[1, 3, 4, 7]).await];
    let settings = ConnectSettings { servers, ..ConnectSettings::default() };
    let mut tail = JetStream::new(settings, STREAM).unwrap().tail(Position::FIRST);
    for entry in all {
        assert_eq!(next(&mut tail).await, Ok(TailItem::Entry(entry)));
    }
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(bounds.last)));
}
