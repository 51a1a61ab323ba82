//! Tails: holes inside the stream, silent servers, and positions after the end.

use std::time::Duration;

use downlink_cluster::{Journal as _, JournalError, Position, TailItem};
use downlink_nats::{ConnectSettings, Credentials, JetStream, StreamSettings};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    contract::name,
    servers::{HUB, STREAM, Server, append, create, eventually, journal, next, replicas, request},
};

const FIRST: Position = Position::FIRST;

/// Streams of this crate do not allow deletes, but an operator may have made another one.
#[tokio::test]
async fn deleted_entries_inside_the_stream_are_a_hole() {
    let Some(server) = Server::start("").await else { return };
    let config = json!({"name": STREAM, "subjects": ["a"], "retention": "limits",
        "discard": "old", "storage": "file", "num_replicas": 1});
    request(&server, &format!("STREAM.CREATE.{STREAM}"), config).await;
    let servers = [server];
    let mut journal = journal(&servers);
    for counter in 1..=6 {
        append(&mut journal, name(0, counter)).await;
    }
    for deleted in [3, 4] {
        let delete = format!("STREAM.MSG.DELETE.{STREAM}");
        let answer = request(&servers[0], &delete, json!({ "seq": deleted })).await;
        assert_eq!(answer["success"], true, "{answer}");
    }
    let (kept, bounds) = journal.read(FIRST..Position::new(9)).await.unwrap();
    assert_eq!((kept.len(), bounds.last), (4, Position::new(6)));
    let mut tail = journal.tail(FIRST);
    let mut items = Vec::new();
    while items.last() != Some(&TailItem::CaughtUp(bounds.last)) {
        items.push(next(&mut tail).await.unwrap());
    }
    let entry = |at: usize| TailItem::Entry(kept[at].clone());
    let hole = TailItem::Hole(Position::new(3)..Position::new(5));
    let expected = [entry(0), entry(1), hole, entry(2), entry(3), TailItem::CaughtUp(bounds.last)];
    assert_eq!(items, expected);
}

#[tokio::test]
async fn a_tail_after_the_end_says_where_the_end_is() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    for counter in 1..=3 {
        append(&mut journal, name(0, counter)).await;
    }
    let mut tail = journal.tail(Position::new(6));
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(Position::new(3))));
    // The entries 4 and 5 are not asked for.
    for counter in 4..=6 {
        append(&mut journal, name(0, counter)).await;
    }
    let item = next(&mut tail).await.unwrap();
    let TailItem::Entry(entry) = item else { panic!("{item:?}") };
    assert_eq!(entry.position, Position::new(6));
}

#[tokio::test]
async fn a_paused_server_is_noticed_within_three_seconds() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    append(&mut journal, name(0, 1)).await;
    let mut tail = journal.tail(Position::new(2));
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(FIRST)));
    servers[0].pause();
    let paused = Instant::now();
    assert_eq!(next(&mut tail).await, Err(JournalError::Unavailable));
    let noticed = paused.elapsed();
    assert!(noticed <= Duration::from_secs(3), "{noticed:?}");
    servers[0].resume();
    append(&mut journal, name(0, 2)).await;
    eventually("the next tail goes on", async || {
        let item = next(&mut journal.tail(Position::new(2))).await.ok()?;
        matches!(item, TailItem::Entry(_)).then_some(())
    })
    .await;
}

/// Heartbeats keep an idle tail open. After 30 seconds its request for messages ends, and it asks
/// again.
#[tokio::test]
async fn an_idle_tail_stays_open_and_gets_the_next_entry() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    let mut tail = journal.tail(FIRST);
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(Position::ORIGIN)));
    let idle = tokio::time::timeout(Duration::from_secs(32), next(&mut tail)).await;
    assert!(idle.is_err(), "{idle:?}");
    append(&mut journal, name(0, 1)).await;
    let item = next(&mut tail).await.unwrap();
    assert!(matches!(&item, TailItem::Entry(entry) if entry.position == FIRST), "{item:?}");
}

/// The entries have more bytes than one request asks for.
#[tokio::test]
async fn a_tail_reads_more_than_one_request_asks_for() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    for counter in 1..=1_000 {
        let bytes = vec![counter as u8; if counter % 50 == 0 { 700_000 } else { 100 }];
        journal.append(name(0, counter), bytes, None).await.unwrap();
    }
    let mut tail = journal.tail(FIRST);
    for number in 1..=1_000 {
        let item = next(&mut tail).await.unwrap();
        let TailItem::Entry(entry) = item else { panic!("{item:?}") };
        assert_eq!(entry.position, Position::new(number));
        assert!(entry.bytes.iter().all(|byte| *byte == number as u8));
    }
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(Position::new(1_000))));
}

/// If the tail asked for more than its buffer holds, the client would drop messages, and the tail
/// would look them up one by one. In this test, the user has no right to look up messages.
#[tokio::test]
async fn a_long_tail_loses_no_message_on_the_way() {
    const COUNT: u64 = 20_000;
    let users = "authorization { users: [ { user: ann, password: x }, { user: bob, password: x, \
                 permissions: { publish: { deny: \"$JS.API.STREAM.MSG.GET.>\" } } } ] }";
    let Some(server) = Server::start(users).await else { return };
    let user = |user: &str| {
        let credentials = Credentials::UserAndPassword { user: user.into(), password: "x".into() };
        let servers = vec![server.url()];
        let settings = ConnectSettings { servers, credentials, ..ConnectSettings::default() };
        JetStream::new(settings, STREAM).unwrap()
    };
    let (mut ann, mut bob) = (user("ann"), user("bob"));
    ann.create_stream(&replicas(1), HUB).await.unwrap();
    let appends =
        (1..=COUNT).map(|counter| ann.append(name(0, counter), vec![7; 200], None).boxed());
    let mut appends = stream::iter(appends).buffer_unordered(48);
    while let Some(appended) = appends.next().await {
        appended.unwrap();
    }
    let mut tail = bob.tail(FIRST);
    for at in 1..=COUNT {
        let item = next(&mut tail).await.unwrap();
        assert!(matches!(&item, TailItem::Entry(entry) if entry.position.get() == at), "{at}");
    }
}

/// A cluster creates no consumers while its servers together have no leader. In this test, the user
/// may not create consumers.
#[tokio::test]
async fn a_tail_without_a_consumer_asks_the_leader() {
    let users = "authorization { users: [ { user: ann, password: x }, { user: bob, password: x, \
                 permissions: { publish: { deny: \"$JS.API.CONSUMER.>\" } } } ] }";
    let Some(server) = Server::start(users).await else { return };
    let user = |user: &str| {
        let credentials = Credentials::UserAndPassword { user: user.into(), password: "x".into() };
        let servers = vec![server.url()];
        let settings = ConnectSettings { servers, credentials, ..ConnectSettings::default() };
        JetStream::new(settings, STREAM).unwrap()
    };
    let (mut ann, mut bob) = (user("ann"), user("bob"));
    let settings = StreamSettings { entries_max: Some(3), ..replicas(1) };
    ann.create_stream(&settings, HUB).await.unwrap();
    for counter in 1..=5 {
        append(&mut ann, name(0, counter)).await;
    }
    let (kept, _) = ann.read(FIRST..Position::new(9)).await.unwrap();
    let mut tail = bob.tail(FIRST);
    assert_eq!(next(&mut tail).await, Ok(TailItem::Hole(FIRST..Position::new(3))));
    for entry in kept {
        assert_eq!(next(&mut tail).await, Ok(TailItem::Entry(entry)));
    }
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(Position::new(5))));
    append(&mut ann, name(0, 6)).await;
    let item = next(&mut tail).await.unwrap();
    assert!(matches!(&item, TailItem::Entry(entry) if entry.position.get() == 6), "{item:?}");
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(Position::new(6))));
    // The tail fails after some seconds, so that the next tail can create a consumer.
    assert_eq!(next(&mut tail).await, Err(JournalError::Unavailable));
}

/// The server says nothing when the bytes of a request are used up exactly.
#[tokio::test]
async fn a_request_whose_bytes_are_used_up_exactly_is_followed_by_the_next() {
    const MIB: usize = 1_024 * 1_024;
    const COUNT: u64 = 12;
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    // The size of an entry without its bytes. It includes the headers, the subject of the message,
    // and the subject for the acknowledgement. The latter contains the name of a consumer and
    // nanoseconds.
    let at = append(&mut journal, name(0, 11)).await;
    let get = format!("STREAM.MSG.GET.{STREAM}");
    let answer = request(&servers[0], &get, json!({ "seq": at.get() })).await;
    let subject = answer["message"]["subject"].as_str().unwrap().len();
    let headers = answer["message"]["hdrs"].as_str().unwrap();
    let headers = headers.len() / 4 * 3 - headers.matches('=').count();
    let without_bytes = |at: u64| {
        let (consumer, nanos, pending) = ("c".repeat(22), "1".repeat(19), COUNT + 1 - at);
        let reply = format!("$JS.ACK.{STREAM}.{consumer}.1.{at}.{}.{nanos}.{pending}", at - 1);
        subject + headers + reply.len()
    };
    let mut sum = 0;
    for at in 2..=COUNT + 1 {
        let bytes = match at {
            6 => 4 * MIB - sum - without_bytes(at),
            11 => 8 * MIB - sum - without_bytes(at),
            _ => 800_000,
        };
        sum += bytes + without_bytes(at);
        journal.append(name(0, at + 10), vec![7; bytes], None).await.unwrap();
    }
    let mut tail = journal.tail(Position::new(2));
    for at in 2..=COUNT + 1 {
        let item = next(&mut tail).await.unwrap();
        assert!(matches!(&item, TailItem::Entry(entry) if entry.position.get() == at), "{at}");
    }
}

/// No later message shows that these entries are missing, but a heartbeat does.
#[tokio::test]
async fn deleted_entries_at_the_end_are_a_hole() {
    let Some(server) = Server::start("").await else { return };
    let config = json!({"name": STREAM, "subjects": ["a"], "retention": "limits",
        "discard": "old", "storage": "file", "num_replicas": 1});
    request(&server, &format!("STREAM.CREATE.{STREAM}"), config).await;
    let servers = [server];
    let mut journal = journal(&servers);
    for counter in 1..=4 {
        append(&mut journal, name(0, counter)).await;
    }
    for deleted in [3, 4] {
        let delete = format!("STREAM.MSG.DELETE.{STREAM}");
        request(&servers[0], &delete, json!({ "seq": deleted })).await;
    }
    let (kept, bounds) = journal.read(FIRST..Position::new(9)).await.unwrap();
    assert_eq!((kept.len(), bounds.last), (2, Position::new(4)));
    let mut tail = journal.tail(FIRST);
    for entry in kept {
        assert_eq!(next(&mut tail).await, Ok(TailItem::Entry(entry)));
    }
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(Position::new(2))));
    let hole = TailItem::Hole(Position::new(3)..Position::new(5));
    assert_eq!(next(&mut tail).await, Ok(hole));
    assert_eq!(next(&mut tail).await, Ok(TailItem::CaughtUp(Position::new(4))));
}
