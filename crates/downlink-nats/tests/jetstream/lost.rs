//! Older data of a server is put back, as after a power cut. The stream keeps its identity, is
//! shorter, and gives the lost positions to other entries. A journal cannot detect this loss. So it
//! must show its nodes the stream as it is, and the nodes detect the loss.

use downlink_cluster::{Journal as _, Position, TailItem};

use crate::{
    contract::name,
    servers::{Server, append, create, eventually, next, replicas, start_three},
};

/// Appends entries with these counters.
async fn append_all(
    journal: &mut downlink_nats::JetStream,
    counters: std::ops::RangeInclusive<u64>,
) {
    for counter in counters {
        append(journal, name(0, counter)).await;
    }
}

#[tokio::test]
async fn older_data_of_one_server_shortens_the_journal() {
    let Some(server) = Server::start("").await else { return };
    let mut servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    append_all(&mut journal, 1..=5).await;
    servers[0].stop();
    servers[0].save();
    servers[0].run().await;
    append_all(&mut journal, 6..=8).await;
    let id = journal.open().await.unwrap().id;
    let (lost, _) = journal.read(Position::new(6)..Position::new(9)).await.unwrap();
    servers[0].kill();
    servers[0].restore();
    servers[0].run().await;
    let bounds = eventually("the server is back", async || journal.bounds().await.ok()).await;
    assert_eq!(bounds.last, Position::new(5));
    // A node opens its tail at the last entry that it has.
    let mut tail = journal.tail(Position::new(8));
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(Position::new(5))));
    append_all(&mut journal, 11..=14).await;
    assert_eq!(journal.open().await.unwrap().id, id);
    let (others, _) = journal.read(Position::new(6)..Position::new(9)).await.unwrap();
    assert_eq!(others.len(), lost.len());
    assert!(others.iter().zip(&lost).all(|(other, lost)| other.bytes != lost.bytes));
    // The tail waited for a position after the end. It goes on there, and does not see the earlier
    // entries.
    assert_eq!(next(&mut tail).await, Ok(TailItem::Entry(others[2].clone())));
}

/// Two of three servers come back with older data and outvote the third.
#[tokio::test]
async fn older_data_of_two_servers_shortens_the_journal() {
    let Some(mut servers) = start_three().await else { return };
    let mut journal = create(&servers, &replicas(3)).await;
    append_all(&mut journal, 1..=5).await;
    servers.iter_mut().for_each(Server::stop);
    servers.iter().for_each(Server::save);
    servers.iter_mut().for_each(Server::spawn);
    append_all(&mut journal, 6..=8).await;
    let id = journal.open().await.unwrap().id;
    let (lost, _) = journal.read(Position::new(6)..Position::new(9)).await.unwrap();
    servers.iter_mut().for_each(Server::kill);
    servers[..2].iter().for_each(Server::restore);
    servers[..2].iter_mut().for_each(Server::spawn);
    // The two have a majority, and append other entries before the third returns.
    append_all(&mut journal, 11..=14).await;
    servers[2].spawn();
    append_all(&mut journal, 15..=15).await;
    assert_eq!(journal.open().await.unwrap().id, id);
    let (others, _) = journal.read(Position::new(6)..Position::new(9)).await.unwrap();
    assert!(others.iter().zip(&lost).all(|(other, lost)| other.bytes != lost.bytes));
}
