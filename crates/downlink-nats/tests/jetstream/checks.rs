//! The findings about hubs at real servers, and full storages.

use std::time::Duration;

use downlink_cluster::{Journal as _, JournalDurability, JournalError, Position};
use downlink_nats::{
    ConnectSettings, Credentials, ENTRY_BYTES_MAX, HubError, JetStream, MonitorUrl, SYNC_TAG,
    Severity, StreamSettings,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    contract::name,
    servers::{
        HUB, STREAM, Server, append, create, eventually, free_address, journal, replicas, request,
        start_three, start_three_synced,
    },
};

async fn codes(journal: &JetStream, monitors: &[MonitorUrl]) -> Vec<&'static str> {
    let findings = journal.check(monitors).await.unwrap();
    assert!(findings.is_sorted_by_key(|finding| finding.severity == Severity::Warning));
    findings.into_iter().map(|finding| finding.code).collect()
}

/// Appends large entries until one is refused. Returns their number, and the error.
async fn fill(journal: &mut JetStream) -> (u64, JournalError) {
    for counter in 1..=100 {
        let answer = journal.append(name(0, counter), vec![7; ENTRY_BYTES_MAX], None).await;
        if let Err(error) = answer {
            return (counter - 1, error);
        }
    }
    panic!("the storage is not full after 100 entries");
}

#[tokio::test]
async fn the_check_finds_what_a_new_hub_on_one_server_lacks() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    assert_eq!(codes(&journal(&servers), &[]).await, ["no-stream"]);
    let mut journal = create(&servers, &replicas(1)).await;
    assert_eq!(codes(&journal, &[]).await, ["no-first-entry", "one-replica", "no-sync-tag"]);
    append(&mut journal, name(0, 1)).await;
    assert_eq!(codes(&journal, &[]).await, ["one-replica", "no-sync-tag"]);
    assert_eq!(journal.create_stream(&replicas(1), HUB).await, Err(HubError::Exists));
}

/// An operator may have made the stream.
#[tokio::test]
async fn the_settings_of_a_foreign_stream_are_found() {
    let Some(server) = Server::start("").await else { return };
    let config = json!({"name": STREAM, "subjects": ["a", "b"], "retention": "limits",
        "discard": "old", "storage": "file", "num_replicas": 1, "max_msgs_per_subject": 5,
        "allow_rollup_hdrs": true, "allow_msg_ttl": true});
    request(&server, &format!("STREAM.CREATE.{STREAM}"), config).await;
    let servers = [server];
    let found = codes(&journal(&servers), &[]).await;
    let expected = [
        "subjects",
        "subject-limit",
        "no-hub-id",
        "one-replica",
        "no-sync-tag",
        "deletable",
        "purgeable",
        "rollup",
        "message-expiry",
        "unlimited",
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn the_limits_of_the_settings_reach_the_server() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let settings = StreamSettings {
        age_max: Duration::from_secs(60),
        bytes_max: Some(1_000_000),
        entries_max: Some(10),
        ..replicas(1)
    };
    let mut journal = create(&servers, &settings).await;
    for counter in 1..=11 {
        append(&mut journal, name(0, counter)).await;
    }
    let findings = journal.check(&[]).await.unwrap();
    let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let expected = "error: `max_age` is 60s, so a node may find no snapshot and cannot begin: raise \
                    `max_age` to at least 30 minutes";
    assert_eq!(texts[0], expected);
    assert!(texts[1].contains("the stream is full, and its oldest entry is only"), "{texts:?}");
    let window = "warning: `duplicate_window` is 60s, so more copies";
    assert!(texts.iter().any(|text| text.starts_with(window)), "{texts:?}");
    let status = request(&servers[0], &format!("STREAM.INFO.{STREAM}"), json!({})).await;
    assert_eq!(status["config"]["max_bytes"], 1_000_000);
}

#[tokio::test]
async fn the_monitoring_address_shows_whether_a_server_syncs_always() {
    let tag = "server_tags: [\"sync:always\"]";
    let storage = ["max_file: 64M", "max_file: 64M, sync_interval: always"];
    let expected = [("", "lazy-sync"), (tag, "false-sync-tag")];
    for (more, code) in expected {
        let Some((server, url)) = Server::start_with_monitor(more, storage[0]).await else {
            return;
        };
        let servers = [server];
        let journal = journal(&servers);
        assert!(codes(&journal, &[url]).await.contains(&code), "{code}");
    }
    let Some((server, url)) = Server::start_with_monitor(tag, storage[1]).await else { return };
    let servers = [server];
    assert_eq!(codes(&journal(&servers), &[url]).await, ["no-stream"]);
}

#[tokio::test]
async fn a_storage_that_is_almost_full_is_found() {
    let more = "accounts { A { users: [ { user: ann, password: x } ], \
                jetstream: { max_file: 4M } } }\nno_auth_user: ann";
    let Some((server, url)) = Server::start_with_monitor(more, "max_file: 5M").await else {
        return;
    };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    assert_eq!(fill(&mut journal).await, (4, JournalError::Full));
    let findings = journal.check(&[url]).await.unwrap();
    let account = findings.iter().find(|finding| finding.code == "account-full").unwrap();
    assert!(account.text.starts_with("the account has used 9"), "{account}");
    assert_eq!(journal.bounds().await.unwrap().last, Position::new(4));
}

/// The limit is the one of the server.
#[tokio::test]
async fn a_full_storage_refuses_entries_and_says_so() {
    let Some((server, url)) = Server::start_with_monitor("", "max_file: 3M").await else { return };
    let servers = [server];
    let mut journal = create(&servers, &replicas(1)).await;
    let (count, error) = fill(&mut journal).await;
    assert_eq!(error, JournalError::Full);
    assert_eq!(journal.bounds().await.unwrap().last, Position::new(count));
    let found = codes(&journal, &[url]).await;
    assert!(found.contains(&"server-full"), "{found:?}");
}

#[tokio::test]
async fn a_full_stream_that_keeps_its_oldest_entries_refuses_new_ones() {
    let Some(server) = Server::start("").await else { return };
    let config = json!({"name": STREAM, "subjects": ["a"], "retention": "limits",
        "discard": "new", "storage": "file", "num_replicas": 1, "max_bytes": 2_800_000});
    request(&server, &format!("STREAM.CREATE.{STREAM}"), config).await;
    let servers = [server];
    let mut journal = journal(&servers);
    assert_eq!(fill(&mut journal).await, (3, JournalError::Full));
    let found = codes(&journal, &[]).await;
    assert!(found.contains(&"stream-full") && found.contains(&"discard-new"), "{found:?}");
}

/// Serves one answer at a monitoring address.
async fn answering(answer: Vec<u8>) -> MonitorUrl {
    let listener = TcpListener::bind(free_address()).await.unwrap();
    let url = MonitorUrl::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 1_024];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(&answer).await;
        }
    });
    url
}

#[tokio::test]
async fn a_monitoring_address_without_a_usable_answer_is_found() {
    let Some(server) = Server::start("").await else { return };
    let servers = [server];
    let journal = journal(&servers);
    let nobody = MonitorUrl::new(&format!("http://{}", free_address())).unwrap();
    assert_eq!(codes(&journal, &[nobody]).await, ["no-stream", "no-monitor"]);
    let ok = "HTTP/1.0 200 OK\r\n\r\n";
    for answer in ["", "HTTP/1.0 404 Not Found\r\n\r\n{}", ok, "+OK\r\n", "\r\n\r\n"] {
        let url = answering(answer.into()).await;
        assert_eq!(codes(&journal, &[url]).await, ["no-stream", "no-monitor"], "{answer}");
    }
    // An answer without an end.
    let endless = [ok.as_bytes(), &[b' '; 1_000_000]].concat();
    let url = answering(endless).await;
    assert_eq!(codes(&journal, &[url]).await, ["no-stream", "no-monitor"]);
}

/// The setup that the documentation recommends.
#[tokio::test]
async fn a_hub_on_three_synced_servers_is_durable_and_has_no_finding() {
    let Some((servers, monitors)) = start_three_synced().await else { return };
    let tags = vec![SYNC_TAG.to_owned()];
    let mut journal = create(&servers, &StreamSettings { tags, ..StreamSettings::default() }).await;
    append(&mut journal, name(0, 1)).await;
    eventually("all servers are current", async || {
        codes(&journal, &monitors).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(journal.status().await.unwrap().durability, JournalDurability::Durable);
    assert_eq!(journal.open().await.unwrap().durability, JournalDurability::Durable);
    let tags = vec!["disk:none".to_owned()];
    let servers: Vec<_> = servers.iter().map(Server::url).collect();
    let settings = ConnectSettings { servers, ..ConnectSettings::default() };
    let other = JetStream::new(settings, "other").unwrap();
    let settings = StreamSettings { tags, ..StreamSettings::default() };
    let refused = other.create_stream(&settings, HUB).await.unwrap_err();
    assert!(refused.to_string().contains("tags not matched"), "{refused}");
}

#[tokio::test]
async fn servers_that_are_away_are_found() {
    let Some(mut servers) = start_three().await else { return };
    let mut journal = create(&servers, &replicas(3)).await;
    append(&mut journal, name(0, 1)).await;
    eventually("all servers are current", async || {
        (codes(&journal, &[]).await == ["no-sync-tag"]).then_some(())
    })
    .await;
    let leader = journal.status().await.unwrap().leader.unwrap();
    let mut others = servers.iter_mut().filter(|server| server.name() != leader);
    let (one, other) = (others.next().unwrap(), others.next().unwrap());
    one.kill();
    eventually("one server is away", async || {
        let findings = journal.check(&[]).await.ok()?;
        let is_away = ["replica-behind", "replica-offline"];
        let away = findings.iter().find(|finding| is_away.contains(&finding.code))?;
        away.text.contains(&format!("the server {} ", one.name())).then_some(())
    })
    .await;
    other.kill();
    eventually("the stream has no leader", async || {
        let findings = journal.check(&[]).await.ok()?;
        (findings.first()?.code == "no-leader").then_some(())
    })
    .await;
}

/// This user may not ask for the storage of the account, so the check leaves the storage out.
#[tokio::test]
async fn a_user_without_a_right_gets_the_other_findings() {
    let users = "authorization { users: [ { user: ann, password: x, \
                 permissions: { publish: { deny: \"$JS.API.INFO\" } } } ] }";
    let Some(server) = Server::start(users).await else { return };
    let settings = ConnectSettings {
        servers: vec![server.url()],
        credentials: Credentials::UserAndPassword { user: "ann".into(), password: "x".into() },
        ..ConnectSettings::default()
    };
    let journal = JetStream::new(settings, STREAM).unwrap();
    journal.create_stream(&replicas(1), HUB).await.unwrap();
    assert_eq!(codes(&journal, &[]).await, ["no-first-entry", "one-replica", "no-sync-tag"]);
}
