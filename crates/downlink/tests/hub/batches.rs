//! Tests of publishing several events as one batch.

use downlink::hub::{BATCH_EVENTS_MAX, Batch, BatchError, Hub, PublishError};

use super::{hub, open, say, seen};

fn batch(hub: &Hub<String>, events: &[(&str, &str)]) -> Batch<String> {
    let mut batch = Batch::new(hub);
    for (topic, data) in events {
        batch.add(hub.to(topic), (*data).to_owned());
    }
    batch
}

#[test]
fn events_of_a_batch_are_adjacent_and_in_order() {
    let hub = hub();
    let mut subscription = open(hub.subscribe().topics(["a", "b"]));
    let batch = batch(&hub, &[("a", "1"), ("b", "2"), ("a", "3")]);
    assert_eq!((batch.len(), batch.is_empty()), (3, false));
    let receipts = batch.publish().unwrap();
    let offsets: Vec<_> = receipts.iter().map(|receipt| receipt.offset().unwrap().get()).collect();
    assert_eq!(offsets, [1, 2, 3]);
    assert_eq!(seen(&mut subscription), ["1", "2", "3"]);
}

#[test]
fn an_empty_batch_publishes_nothing() {
    let hub = hub();
    let batch = Batch::new(&hub);
    assert!(batch.is_empty());
    assert!(batch.publish().unwrap().is_empty());
    assert_eq!(hub.stats().published, 0);
}

#[test]
fn one_invalid_event_rejects_the_whole_batch() {
    let hub = hub();
    say(&hub, "over", "x");
    hub.finish("over").unwrap();
    let before = hub.stats();
    for (wrong, expected) in [
        ("over", "a topic of the event is finished, so it accepts no more events"),
        ("", "\"\" is not a topic"),
    ] {
        let error = batch(&hub, &[("a", "1"), (wrong, "2"), ("a", "3")]).publish().unwrap_err();
        let BatchError::Event { index, error } = error else { panic!("{error:?}") };
        assert_eq!((index, error.to_string().as_str()), (1, expected));
    }
    assert_eq!(hub.stats(), before);
}

#[test]
fn a_batch_that_publishes_to_a_topic_after_finishing_it_is_rejected() {
    let hub = hub();
    let mut batch = Batch::new(&hub);
    batch.add(hub.to("a").last(), "1".to_owned());
    batch.add(hub.to("a"), "2".to_owned());
    let error = batch.publish().unwrap_err();
    assert!(matches!(error, BatchError::Event { index: 1, error: PublishError::Finished }));
    assert!(!hub.topic_overview("a").unwrap().finished);
}

#[test]
fn a_repeated_event_within_a_batch_is_published_once() {
    let hub = hub();
    let mut batch = Batch::new(&hub);
    batch.add(hub.to("a").id("x"), "same".to_owned());
    batch.add(hub.to("a").id("x"), "same".to_owned());
    let receipts = batch.publish().unwrap();
    assert!(receipts[0].id().is_some());
    assert_eq!(receipts[0].id(), receipts[1].id());
    assert_eq!((receipts[0].is_repeated(), receipts[1].is_repeated()), (Some(false), Some(true)));
    assert_eq!(hub.stats().published, 1);
}

#[test]
fn a_batch_has_a_limited_number_of_events() {
    let hub = hub();
    let of = |events: usize| {
        let mut batch = Batch::new(&hub);
        for _ in 0..events {
            batch.add(hub.to("a"), String::new());
        }
        batch.publish()
    };
    for events in [BATCH_EVENTS_MAX - 1, BATCH_EVENTS_MAX] {
        assert_eq!(of(events).unwrap().len(), events);
    }
    let published = hub.stats().published;
    let error = of(BATCH_EVENTS_MAX + 1).unwrap_err();
    assert!(matches!(error, BatchError::TooMany { events } if events == BATCH_EVENTS_MAX + 1));
    assert_eq!(hub.stats().published, published);
}
