//! A stream on three servers: the contract, and servers that are killed, paused and restarted.

use std::collections::BTreeMap;

use downlink_cluster::{EntryName, Journal as _, JournalError, Position, TailItem};
use downlink_nats::JetStream;
use serde_json::json;

use crate::{
    contract::name,
    servers::{
        STREAM, Server, append, check_contract, create, eventually, journal, next, replicas,
        request, start_three,
    },
};

/// The server that leads the stream. The first one must run, to answer the question.
async fn leader(servers: &[Server]) -> usize {
    eventually("the stream has a leader", async || {
        let answer = request(&servers[0], &format!("STREAM.INFO.{STREAM}"), json!({})).await;
        let name = answer["cluster"]["leader"].as_str()?.to_owned();
        servers.iter().position(|server| server.name() == name)
    })
    .await
}

/// Reads the journal with a tail that is opened again after each error, up to `last`.
async fn read_all(journal: &mut JetStream, last: Position) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut tail = journal.tail(Position::FIRST);
    while (bytes.len() as u64) < last.get() {
        match next(&mut tail).await {
            Ok(TailItem::Entry(entry)) => {
                assert_eq!(entry.position.get(), bytes.len() as u64 + 1);
                bytes.push(entry.bytes);
            }
            Ok(TailItem::CaughtUp(_)) => {}
            Ok(TailItem::Hole(range)) => panic!("a hole at {range:?}"),
            Err(JournalError::Unavailable) => {
                tail = journal.tail(Position::new(bytes.len() as u64 + 1));
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    bytes
}

/// The entries that the test has appended, with their positions.
#[derive(Default)]
struct Appended(BTreeMap<EntryName, Position>);

impl Appended {
    /// Appends ten entries.
    async fn append(&mut self, journal: &mut JetStream) {
        for _ in 0..10 {
            let name = name(0, 1_000 + self.0.len() as u64);
            let at = append(journal, name).await;
            self.0.insert(name, at);
        }
    }

    /// Checks that each acknowledged entry is at its position, and no other entry is there twice.
    async fn check(&self, journal: &mut JetStream) {
        let last = self.0.values().copied().max().unwrap_or_default();
        let all = read_all(journal, last).await;
        for (name, at) in &self.0 {
            assert_eq!(all[at.get() as usize - 1], name.to_string().into_bytes());
            let copies = all.iter().filter(|bytes| **bytes == name.to_string().into_bytes());
            assert_eq!(copies.count(), 1, "{name}");
        }
    }
}

#[tokio::test]
async fn a_stream_on_three_servers_keeps_the_contract() {
    let Some(servers) = start_three().await else { return };
    let created = create(&servers, &replicas(3)).await;
    check_contract([created.clone(), journal(&servers[1..])]).await;
}

#[tokio::test]
async fn acknowledged_entries_survive_the_failure_of_any_server() {
    let Some(mut servers) = start_three().await else { return };
    let mut journal = create(&servers, &replicas(3)).await;
    let mut appended = Appended::default();
    appended.append(&mut journal).await;

    let killed = leader(&servers).await;
    servers[killed].kill();
    appended.append(&mut journal).await;
    servers[killed].run().await;
    appended.append(&mut journal).await;

    let paused = leader(&servers).await;
    servers[paused].pause();
    appended.append(&mut journal).await;
    servers[paused].resume();
    appended.append(&mut journal).await;
    appended.check(&mut journal).await;

    // Without a majority, nothing is appended.
    servers[1].kill();
    servers[2].kill();
    let unavailable = Err(JournalError::Unavailable);
    assert_eq!(journal.append(name(0, 1), b"minority".to_vec(), None).await, unavailable);
    servers[1].run().await;
    appended.append(&mut journal).await;
    appended.check(&mut journal).await;
}
