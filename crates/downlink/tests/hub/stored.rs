//! Tests of a hub with a store, which keeps the events in a file. Each test has its own file.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use downlink::{
    Delivery, Event, Hub, PublishError, SubscribeErrorKind,
    hub::{
        Batch, BatchError, DisconnectReason, Durability, GapReason, HubError, HubStore, Retention,
        Start,
    },
};
use futures_util::StreamExt;

/// A temporary folder. Dropping this value removes the folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("downlink-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder can be created");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("hub.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SMALL: Retention = Retention { events_max: 1_000, ..Retention::DEFAULT };

fn open(file: &Path, durability: Durability) -> Hub<String> {
    let hub =
        Hub::builder().text().store(HubStore::from(file).durability(durability)).retention(SMALL);
    hub.build().expect("the store opens")
}

async fn close(hub: Hub<String>) {
    hub.close();
    hub.closed().await;
}

async fn publish(hub: &Hub<String>, data: impl Into<String>) -> String {
    let receipt = hub.to("news").publish(data.into()).expect("the hub accepts the event");
    receipt.durable().await.expect("the store commits the event").id().as_str().to_owned()
}

/// Opens a subscription and returns the frames of its first `count` events. Panics if the
/// subscription gets a gap.
async fn frames(hub: &Hub<String>, resume: &str, count: usize) -> Vec<String> {
    let mut news = hub
        .subscribe()
        .topic("news")
        .resume(resume)
        .open()
        .await
        .expect("the hub accepts the subscription");
    let mut frames = Vec::new();
    while frames.len() < count {
        match news.next().await {
            Some(Delivery::Event(event)) => {
                frames.push(String::from_utf8_lossy(event.frame().as_bytes()).into_owned());
            }
            other => panic!("{other:?} ({:?}) after {} events", news.ended(), frames.len()),
        }
    }
    frames
}

#[tokio::test]
async fn after_a_restart_the_history_has_the_same_bytes() {
    let folder = Folder::new();
    let hub = open(&folder.file(), Durability::Commit);
    let first = publish(&hub, "one\r\ntwo").await;
    hub.to("news").event("note").id("mine").publish("three".to_owned()).unwrap();
    let retry = std::time::Duration::from_secs(3);
    hub.to("news").and_to_everyone().retry(retry).publish(String::new()).unwrap();
    publish(&hub, "four").await;
    let live = frames(&hub, "earliest", 4).await;
    close(hub).await;

    let hub = open(&folder.file(), Durability::Commit);
    assert_eq!(frames(&hub, "earliest", 4).await, live);
    assert_eq!(frames(&hub, &first, 3).await, live[1..]);
    assert_eq!(frames(&hub, "mine", 2).await, live[2..]);
    let later = publish(&hub, "five").await;
    assert_ne!(later.split('-').next(), first.split('-').next());
    assert_eq!(frames(&hub, &first, 4).await[..3], live[1..]);
    close(hub).await;
}

#[tokio::test]
async fn the_store_keeps_history_by_the_new_retention_after_a_restart() {
    let folder = Folder::new();
    let build = |retention: Retention| {
        let builder = Hub::<String>::builder().text().store(folder.file()).retention(retention);
        builder.build().expect("the store opens")
    };
    let few = Retention { events_max: 8, ..Retention::DEFAULT };
    let hub = build(few);
    for number in 0..20 {
        publish(&hub, number.to_string()).await;
    }
    hub.set_retention(SMALL).unwrap();
    for number in 20..100 {
        publish(&hub, number.to_string()).await;
    }
    close(hub).await;

    // Up to an eighth more events than the rule allows stay in the file.
    let hub = build(SMALL);
    let events = hub.topic_overview("news").unwrap().events;
    assert!((88..=89).contains(&events), "the hub keeps {events} events");
    hub.set_retention(few).unwrap();
    assert_eq!(hub.topic_overview("news").unwrap().events, 8);
    // The store evicts its events a moment later.
    let oldest = async || {
        let mut all = hub.subscribe().topic("news").start(Start::Earliest).open().await.unwrap();
        match all.next().await {
            Some(Delivery::Event(event)) => event.data().parse::<u32>().unwrap(),
            // The store has evicted events while this subscription was reading.
            Some(Delivery::Gap(_)) => 0,
            other => panic!("{other:?}"),
        }
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while oldest().await < 91 {
        assert!(Instant::now() < deadline, "the store still has its old events");
    }
    close(hub).await;

    let hub = build(SMALL);
    let events = hub.topic_overview("news").unwrap().events;
    assert!((8..=9).contains(&events), "the hub keeps {events} events");
    close(hub).await;
}

#[tokio::test]
async fn one_connection_replays_more_events_than_memory_holds() {
    let folder = Folder::new();
    let limits = downlink::hub::Limits { bytes_max: 64 << 10, ..Default::default() };
    let builder =
        Hub::builder().text().store(folder.file()).limits(limits).event_bytes_max(1 << 10);
    let hub: Hub<String> = builder.retention(SMALL).build().unwrap();
    // The hub always keeps the whole newest batch in memory. So the test publishes batches that are
    // smaller than the memory limit.
    for hundred in 0..10 {
        let mut batch = Batch::new(&hub);
        for number in 0..100 {
            batch.add(hub.to("news"), format!("{:0>500}", 100 * hundred + number));
        }
        let receipts = batch.publish().unwrap();
        let confirmed = BatchError::durable(&receipts).await.unwrap();
        assert_eq!(confirmed.len(), 100);
    }
    publish(&hub, "last").await;
    assert!(hub.stats().bytes <= 64 << 10, "{:?}", hub.stats());
    let all = frames(&hub, "earliest", 1_000).await;
    let numbers = all.iter().map(|frame| frame.trim_end().rsplit('0').next().unwrap_or_default());
    assert_eq!(numbers.filter(|digits| !digits.is_empty()).count(), 900);
    assert!(all[999].trim_end().ends_with("0999") && all[0].trim_end().ends_with("0000"));
    close(hub).await;
}

#[tokio::test]
async fn with_a_store_the_results_of_a_publish_are_known_only_when_the_event_is_durable() {
    let folder = Folder::new();
    for durability in [Durability::Commit, Durability::Relaxed] {
        let hub = open(&folder.file(), durability);
        let _news = hub.subscribe().topic("news").open().await.unwrap();
        let receipt = hub.to("news").publish("x".to_owned()).unwrap();
        assert_eq!((receipt.id(), receipt.offset()), (None, None));
        assert_eq!((receipt.matched(), receipt.is_repeated()), (None, None));
        let certain = receipt.durable().await.unwrap();
        assert_eq!((certain.matched(), certain.is_repeated()), (1, false));
        assert_eq!(hub.cursor(), *certain.id());
        close(hub).await;
    }
}

#[tokio::test]
async fn idempotency_keys_and_finished_topics_survive_restarts() {
    let folder = Folder::new();
    let hub = open(&folder.file(), Durability::Commit);
    let pay = |hub: &Hub<String>, what: &str| {
        hub.to("paid").idempotency_key("", "k").publish(what.to_owned())
    };
    let first = pay(&hub, "1").unwrap().durable().await.unwrap();
    hub.to("answer").last().publish("42".to_owned()).unwrap().durable().await.unwrap();
    let finish = |hub: &Hub<String>| hub.to("paid").idempotency_key("", "end").finish();
    let end = finish(&hub).unwrap().durable().await.unwrap();
    close(hub).await;

    let hub = open(&folder.file(), Durability::Commit);
    let again = pay(&hub, "1").unwrap().durable().await.unwrap();
    assert_eq!((again.id(), again.is_repeated()), (first.id(), true));
    let other = pay(&hub, "2").unwrap().durable().await;
    assert!(matches!(other, Err(PublishError::KeyReused)));
    let again = finish(&hub).unwrap().durable().await.unwrap();
    assert_eq!((again.id(), again.is_repeated()), (end.id(), true));
    let late = hub.to("answer").publish("43".to_owned()).unwrap().durable().await;
    assert!(matches!(late, Err(PublishError::Finished)));
    let mut answer = hub.subscribe().topic("answer").open().await.unwrap();
    let Some(Delivery::Event(event)) = answer.next().await else {
        panic!("the topic has no event")
    };
    assert_eq!(event.data(), "42");
    assert!(answer.next().await.is_none());
    let read = hub.subscribe().topic("answer").resume(&event.id()).open().await;
    assert_eq!(read.unwrap_err().kind(), &SubscribeErrorKind::Finished);
    close(hub).await;
}

#[tokio::test]
async fn filters_get_values_decoded_from_the_store() {
    let folder = Folder::new();
    let build = || {
        let hub = Hub::<Vec<u32>>::builder().json().store(folder.file()).keep_values(|_| 4);
        hub.decode_json().build().unwrap()
    };
    let hub = build();
    for number in 0..6 {
        hub.to("n").publish(vec![number]).unwrap().durable().await.unwrap();
    }
    hub.close();
    hub.closed().await;
    let hub = build();
    let even = hub.subscribe().topic("n").filter(|value| value[0].is_multiple_of(2));
    let mut even = even.start(Start::Earliest).open().await.unwrap();
    for expected in [0, 2, 4] {
        let Some(Delivery::Event(event)) = even.next().await else { panic!("no event") };
        assert_eq!(event.value(), Some(&vec![expected]));
    }
    drop(even);
    hub.close();
    hub.closed().await;

    let blind = Hub::<Vec<u32>>::builder().json().store(folder.file()).keep_values(|_| 4);
    assert_eq!(blind.build().err(), Some(HubError::ValuesNeedDecoding));
}

#[tokio::test]
async fn a_stored_event_whose_value_cannot_be_decoded_gives_a_gap() {
    let folder = Folder::new();
    let hub = open(&folder.file(), Durability::Commit);
    for data in ["1", "two", "3"] {
        publish(&hub, data).await;
    }
    close(hub).await;
    let read = |event: &Event| event.fields().data?.parse::<u32>().ok();
    let write = |value: &u32| Ok::<_, std::convert::Infallible>(Event::new(value.to_string()));
    let hub = Hub::builder().encode_with(write).store(folder.file()).keep_values(|_| 4);
    let hub = hub.decode_values(read).build().unwrap();
    let mut news = hub.subscribe().topic("news").start(Start::Earliest).open().await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(match news.next().await {
            Some(Delivery::Event(event)) => event.data().into_owned(),
            Some(Delivery::Gap(gap)) if gap.reason == GapReason::Unreadable => "gap".to_owned(),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, ["1", "gap", "3"]);
}

/// The hub is dropped while a subscription still exists. The subscription must not keep the store
/// open, because another hub must be able to open the store.
#[tokio::test]
async fn a_store_can_be_opened_again_while_an_old_subscription_exists() {
    let folder = Folder::new();
    let hub = open(&folder.file(), Durability::Commit);
    let mut news = hub.subscribe().topic("news").open().await.unwrap();
    publish(&hub, "one").await;
    drop(hub);

    let again = open(&folder.file(), Durability::Commit);
    publish(&again, "two").await;
    let Some(Delivery::Event(event)) = news.next().await else { panic!("no event") };
    assert_eq!(event.data(), "one");
    assert!(news.next().await.is_none());
    assert_eq!(news.ended(), Some(DisconnectReason::Closed));
    assert_eq!(frames(&again, "earliest", 2).await.len(), 2);
    close(again).await;
}

/// A subscription that has not yet read all events from the file must not keep the store open.
#[tokio::test]
async fn a_subscription_that_reads_from_the_file_ends_when_its_hub_is_dropped() {
    let folder = Folder::new();
    let limits = downlink::hub::Limits { bytes_max: 4 << 10, ..Default::default() };
    let builder =
        Hub::builder().text().store(folder.file()).limits(limits).event_bytes_max(1 << 10);
    let hub: Hub<String> = builder.retention(SMALL).build().unwrap();
    for _ in 0..100 {
        publish(&hub, "x".repeat(500)).await;
    }
    let mut news = hub.subscribe().topic("news").start(Start::Earliest).open().await.unwrap();
    drop(hub);
    let again = open(&folder.file(), Durability::Commit);
    while news.next().await.is_some() {}
    assert_eq!(news.ended(), Some(DisconnectReason::Closed));
    assert_eq!(frames(&again, &news.last_event_id(), 1).await.len(), 1);
    close(again).await;
}

#[tokio::test]
async fn opening_a_store_twice_is_an_error() {
    let folder = Folder::new();
    let hub = open(&folder.file(), Durability::Commit);
    let second = Hub::<String>::builder().text().store(folder.file()).build().err().unwrap();
    let HubError::Store { file, .. } = &second else { panic!("{second:?}") };
    assert_eq!(*file, folder.file());
    let says = format!("the store {} could not be opened", file.display());
    assert_eq!(second.to_string(), says);
    let said = std::error::Error::source(&second).unwrap().to_string();
    assert!(said.contains("hub.db") && said.contains("this process"), "{said}");
    close(hub).await;
}
