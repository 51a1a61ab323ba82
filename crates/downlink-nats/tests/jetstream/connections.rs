//! Connections: servers that are slow, and a server that is cut off from its cluster.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use downlink_cluster::{Journal as _, JournalError, Position, TailItem};
use downlink_nats::{ConnectSettings, JetStream, ServerUrl, UNUSABLE_AFTER};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    contract::name,
    servers::{
        STREAM, Server, append, create, eventually, free_address, next, replicas, start_three_with,
    },
};

/// Accepts connections, and passes each of them on to an address after this time.
async fn slow(to: String, after: Duration) -> ServerUrl {
    let listener = TcpListener::bind(free_address()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                sleep(after).await;
                let mut to = TcpStream::connect(to).await?;
                copy_bidirectional(&mut from, &mut to).await
            });
        }
    });
    ServerUrl::new(&address).unwrap()
}

/// The first server never answers, and the second one is slow. So connecting takes longer than the
/// first request waits. The second request gets the connection.
#[tokio::test]
async fn an_attempt_to_connect_goes_on_for_later_requests() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    create(&servers, &replicas(1)).await;
    let to = servers[0].url().to_string();
    let settings = ConnectSettings {
        servers: vec![
            slow(to.clone(), Duration::from_secs(60)).await,
            slow(to, Duration::from_millis(1_000)).await,
        ],
        ..ConnectSettings::default()
    };
    let mut journal = JetStream::new(settings, STREAM).unwrap();
    let mut first = tokio::spawn(journal.bounds());
    assert!(timeout(Duration::from_secs(1), &mut first).await.is_err());
    let second = journal.bounds();
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.unwrap(), Err(JournalError::Unavailable));
    assert_eq!(second.unwrap().last, Position::ORIGIN);
}

/// The links between the servers of a cluster.
struct Links(watch::Sender<Option<usize>>);

impl Links {
    /// Ends all links of a server, and accepts no new ones.
    fn cut(&self, server: usize) {
        self.0.send_replace(Some(server));
    }
}

/// Starts a proxy for the link from one server to another. The proxy passes all bytes on until the
/// link is cut. Returns the address of the proxy.
async fn link(
    from: usize,
    to: (usize, SocketAddr),
    cut: watch::Receiver<Option<usize>>,
) -> SocketAddr {
    let listener = TcpListener::bind(free_address()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let cut = Arc::new(cut);
    tokio::spawn(async move {
        while let Ok((mut here, _)) = listener.accept().await {
            let mut cut = watch::Receiver::clone(&cut);
            tokio::spawn(async move {
                let is_cut = |cut: &Option<usize>| cut.is_some_and(|it| [from, to.0].contains(&it));
                let passing = async {
                    let mut there = TcpStream::connect(to.1).await?;
                    copy_bidirectional(&mut here, &mut there).await
                };
                tokio::select! {
                    _ = cut.wait_for(is_cut) => {}
                    _ = passing => {}
                }
            });
        }
    });
    address
}

/// Starts three servers whose links can be cut.
async fn start_linked() -> Option<([Server; 3], Links)> {
    let (sender, cut) = watch::channel(None);
    let own = [(); 3].map(|()| free_address());
    let mut routes = [const { Vec::new() }; 3];
    for from in 0..3 {
        routes[from].push(own[from]);
        for to in (0..3).filter(|to| *to != from) {
            routes[from].push(link(from, (to, own[to]), cut.clone()).await);
        }
    }
    Some((start_three_with(routes, |_| {}).await?, Links(sender)))
}

/// The lonely server still answers pings, and the other servers go on without it. One journal
/// appends, one is opened again, and one has a tail. For some seconds, the lonely server may still
/// describe the stream.
#[tokio::test]
async fn journals_leave_a_server_that_is_cut_off_from_its_cluster() {
    let Some((servers, links)) = start_linked().await else { return };
    let mut writer = create(&servers, &replicas(3)).await;
    append(&mut writer, name(0, 1)).await;
    // The leader of the stream stays with the majority, so the majority needs no election.
    let leader =
        eventually("the stream has a leader", async || writer.status().await.ok()?.leader).await;
    let lonely = servers.iter().position(|server| server.name() != leader).unwrap();
    let mut ordered: Vec<&Server> = servers.iter().collect();
    ordered.swap(0, lonely);
    let at = |servers: &[&Server]| {
        let servers = servers.iter().map(|server| server.url()).collect();
        JetStream::new(ConnectSettings { servers, ..ConnectSettings::default() }, STREAM).unwrap()
    };
    let (mut appending, mut opening, mut tailing) = (at(&ordered), at(&ordered), at(&ordered));
    for journal in [&mut appending, &mut opening, &mut tailing] {
        journal.open().await.unwrap();
    }
    let mut tail = tailing.tail(Position::FIRST);
    assert!(matches!(next(&mut tail).await, Ok(TailItem::Entry(_))));
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(Position::FIRST)));

    links.cut(lonely);
    let cut = Instant::now();
    // Each journal leaves the lonely server, and then another server answers its next request.
    let within = UNUSABLE_AFTER + Duration::from_secs(2);
    let appended = async {
        append(&mut appending, name(0, 2)).await;
        cut.elapsed()
    };
    let opened = async {
        eventually("the journal is opened", async || {
            opening.open().await.ok().filter(|opened| opened.bounds.last > Position::FIRST)
        })
        .await;
        cut.elapsed()
    };
    let read = async {
        loop {
            match next(&mut tail).await {
                Ok(TailItem::Entry(entry)) if entry.position.get() == 2 => break cut.elapsed(),
                Ok(_) => {}
                Err(_) => tail = tailing.tail(Position::FIRST),
            }
        }
    };
    let (appended, opened, read) = tokio::join!(appended, opened, read);
    assert!(appended < within, "{appended:?}");
    assert!(opened < within * 2 && read < within * 2, "{opened:?} {read:?}");
}
