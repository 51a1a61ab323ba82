//! Hubs: their creation, their identity, and the state of their streams.

use std::time::Duration;

use downlink_cluster::{
    Base, Entry, HubId, HubKey, Journal as _, JournalDurability, JournalError, Position, Snapshot,
    WriterId,
};
use downlink_nats::{
    ConnectSettings, Credentials, HubError, HubStatus, Init, JetStream, NewHub, StreamSettings,
};
use serde_json::json;

use crate::servers::{
    HUB, STREAM, Server, append, create, eventually, journal, replicas, request, start_three,
};

const FIRST: Position = Position::FIRST;

/// A hub whose identity consists of this byte, 16 times.
fn new_hub(byte: u8) -> NewHub {
    let key = HubKey::from_random([byte; 16]);
    let snapshot = Snapshot { key, base: Base::NONE, epochs: Vec::new(), forks: Vec::new() };
    NewHub { hub: HubId([byte; 16]), writer: WriterId(u64::from(byte)), snapshot }
}

/// The hub of the first entry, which must be the only one.
async fn hub_of_only_entry(journal: &mut JetStream) -> HubId {
    let (entries, bounds) = journal.read(FIRST..Position::new(9)).await.unwrap();
    assert_eq!((entries.len(), bounds.last), (1, FIRST));
    Entry::decode(&entries[0].bytes).unwrap().hub
}

#[tokio::test]
async fn a_second_init_finds_the_hub_and_changes_nothing() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut journal = journal(&servers);
    let missing = HubError::NoStream { stream: STREAM.into() };
    assert_eq!(journal.hub().await, Err(missing.clone()));
    assert_eq!(journal.status().await, Err(missing));
    let hub = HubId([1; 16]);
    assert_eq!(journal.init(&replicas(1), new_hub(1)).await, Ok(Init::Created(hub)));
    let stream = format!("STREAM.INFO.{STREAM}");
    let before = request(&servers[0], &stream, json!({})).await;
    let other = StreamSettings { bytes_max: Some(1_000), ..replicas(1) };
    assert_eq!(journal.init(&other, new_hub(2)).await, Ok(Init::Existed(hub)));
    let after = request(&servers[0], &stream, json!({})).await;
    assert_eq!((&before["config"], &before["state"]), (&after["config"], &after["state"]));
    assert_eq!(journal.hub().await, Ok(hub));
    assert_eq!(hub_of_only_entry(&mut journal).await, hub);
}

/// An earlier init ended between its two steps.
#[tokio::test]
async fn a_stream_without_an_entry_gets_the_first_entry_of_its_own_hub() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    assert_eq!(journal.init(&replicas(1), new_hub(2)).await, Ok(Init::Completed(HUB)));
    assert_eq!(hub_of_only_entry(&mut journal).await, HUB);
    assert_eq!(journal.init(&replicas(1), new_hub(2)).await, Ok(Init::Existed(HUB)));
}

/// The stream is empty, but its last position shows that it has had entries.
#[tokio::test]
async fn a_hub_still_exists_after_all_its_entries_are_removed() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let config = json!({"name": STREAM, "subjects": ["a"], "retention": "limits",
        "discard": "old", "storage": "file", "num_replicas": 1,
        "metadata": { "downlink-hub-id": "07070707070707070707070707070707" }});
    request(&servers[0], &format!("STREAM.CREATE.{STREAM}"), config).await;
    let journal = journal(&servers);
    assert_eq!(journal.init(&replicas(1), new_hub(2)).await, Ok(Init::Completed(HUB)));
    request(&servers[0], &format!("STREAM.PURGE.{STREAM}"), json!({})).await;
    assert_eq!(journal.init(&replicas(1), new_hub(2)).await, Ok(Init::Existed(HUB)));
    let status = journal.status().await.unwrap();
    assert_eq!((status.first, status.last, status.times), (FIRST.next(), FIRST, None));
}

#[tokio::test]
async fn of_two_inits_at_the_same_time_one_creates_the_hub() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let (one, other) = (journal(&servers), journal(&servers));
    let settings = replicas(1);
    let results = tokio::join!(one.init(&settings, new_hub(1)), other.init(&settings, new_hub(2)));
    let hub = one.hub().await.unwrap();
    let mut results = [results.0.unwrap(), results.1.unwrap()];
    results.sort_by_key(|result| !matches!(result, Init::Created(_)));
    assert_eq!(results[0], Init::Created(hub), "{results:?}");
    assert!(matches!(results[1], Init::Existed(found) | Init::Completed(found) if found == hub));
    assert_eq!(hub_of_only_entry(&mut journal(&servers)).await, hub);
}

#[tokio::test]
async fn a_stream_without_a_hub_is_not_changed_by_init() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let (stream, create) = (format!("STREAM.INFO.{STREAM}"), format!("STREAM.CREATE.{STREAM}"));
    let config = |subjects: &[&str]| {
        json!({"name": STREAM, "subjects": subjects, "retention": "limits",
            "discard": "old", "storage": "file", "num_replicas": 1})
    };
    request(&servers[0], &create, config(&["a"])).await;
    let journal = journal(&servers);
    assert_eq!(journal.init(&replicas(1), new_hub(1)).await, Err(HubError::NoHubId));
    assert_eq!(journal.hub().await, Err(HubError::NoHubId));
    assert_eq!(journal.status().await.unwrap().hub, None);
    request(&servers[0], &format!("STREAM.UPDATE.{STREAM}"), config(&["a", "b"])).await;
    assert_eq!(journal.init(&replicas(1), new_hub(1)).await, Err(HubError::Subjects));
    assert_eq!(request(&servers[0], &stream, json!({})).await["state"]["messages"], 0);
}

/// A node of one hub never opens the stream of another one.
#[tokio::test]
async fn a_journal_opens_only_the_stream_of_its_hub() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    create(&servers, &replicas(1)).await;
    let open = async |hub| journal(&servers).for_hub(hub).clone().open().await.map(drop);
    assert_eq!(open(HUB).await, Ok(()));
    assert_eq!(open(HubId([8; 16])).await, Err(JournalError::Refused));
}

#[tokio::test]
async fn without_a_hub_the_error_says_what_is_missing() {
    let more = "accounts { A { users: [ { user: ann, password: x } ] } }";
    let Some(server) = Server::start(more).await else { return };
    let with = |password: &str| {
        let (user, password) = ("ann".into(), password.into());
        let settings = ConnectSettings {
            servers: vec![server.url()],
            credentials: Credentials::UserAndPassword { user, password },
            ..ConnectSettings::default()
        };
        JetStream::new(settings, STREAM).unwrap()
    };
    assert_eq!(with("x").hub().await, Err(HubError::NoJetStream));
    let no_jetstream = Err(HubError::NoJetStream);
    assert_eq!(with("x").init(&replicas(1), new_hub(1)).await, no_jetstream);
    let error = with("wrong").hub().await.unwrap_err();
    assert!(matches!(&error, HubError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("authorization"), "{error}");
    assert!(error.advice().contains("credentials"));
}

#[tokio::test]
async fn a_refusal_has_the_reason_that_the_server_gives() {
    let Some(server) = Server::start("").await else { return };
    let refused = journal(&[server]).init(&replicas(3), new_hub(1)).await.unwrap_err();
    let text = "the server refuses the request: replicas > 1 not supported in non-clustered mode \
                (code 10074)";
    assert_eq!(refused.to_string(), text);
}

#[tokio::test]
async fn the_status_of_one_server_has_positions_times_and_bytes() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let settings = StreamSettings { bytes_max: Some(1_000_000), ..replicas(1) };
    let mut journal = create(&servers, &settings).await;
    let empty = journal.status().await.unwrap();
    assert_eq!(
        (empty.first, empty.last, empty.times, empty.bytes),
        (FIRST, Position::ORIGIN, None, 0)
    );
    for counter in 1..=3 {
        append(&mut journal, crate::contract::name(0, counter)).await;
    }
    let (entries, _) = journal.read(FIRST..Position::new(9)).await.unwrap();
    let HubStatus {
        hub,
        at,
        first,
        last,
        times,
        bytes,
        bytes_max,
        durability,
        leader,
        followers,
        ..
    } = journal.status().await.unwrap();
    assert_eq!((hub, first, last), (Some(HUB), FIRST, Position::new(3)));
    assert_eq!(times, Some((entries[0].time, entries[2].time)));
    assert!(at >= entries[2].time && bytes > 0);
    assert_eq!((bytes_max, durability), (Some(1_000_000), JournalDurability::Relaxed));
    assert_eq!((leader, followers), (Some("one".into()), Vec::new()));
}

#[tokio::test]
async fn the_status_of_three_servers_names_the_leader_and_the_followers() {
    let Some(mut servers) = start_three().await else { return };
    // The cluster has no leader yet.
    let journal = journal(&servers);
    let hub = HubId([1; 16]);
    assert_eq!(journal.init(&replicas(3), new_hub(1)).await, Ok(Init::Created(hub)));
    let current = eventually("all servers are current", async || {
        let status = journal.status().await.ok()?;
        status.followers.iter().all(|follower| follower.is_current).then_some(status)
    })
    .await;
    let mut names: Vec<&str> = current.followers.iter().map(|other| other.name.as_str()).collect();
    names.extend(current.leader.as_deref());
    names.sort_unstable();
    assert_eq!((names, current.hub), (vec!["a", "b", "c"], Some(hub)));

    let killed = current.followers[0].name.clone();
    let of_name = |servers: &[Server; 3], name: &str| {
        servers.iter().position(|server| server.name() == name).unwrap()
    };
    let at = of_name(&servers, &killed);
    servers[at].kill();
    let status = eventually("the server is not current", async || {
        let status = journal.status().await.ok()?;
        let follower = status.followers.iter().find(|follower| follower.name == killed)?;
        let is_silent = follower.silent_for > Duration::from_secs(5);
        (is_silent && !follower.is_current).then(|| status.clone())
    })
    .await;
    let other = status.followers.iter().find(|follower| follower.name != killed).unwrap();
    assert!(other.is_current && !other.is_offline && other.lag == 0, "{other:?}");
    let leader = of_name(&servers, &status.leader.unwrap());
    servers[leader].kill();
    eventually("the stream has no leader", async || {
        (journal.status().await == Err(HubError::NoLeader)).then_some(())
    })
    .await;
}
