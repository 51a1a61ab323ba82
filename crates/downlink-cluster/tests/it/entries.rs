//! Entries for the tests.

use downlink_cluster::{Entry, EntryName, Group, HubId, Mark, Position, Record, WriterId};
use downlink_log::{Address, Fingerprint, IdempotencyKey, Timestamp, Topic};

pub(crate) const HUB: HubId = HubId([4; 16]);

pub(crate) fn name(counter: u64) -> EntryName {
    EntryName { writer: WriterId(7), counter }
}

pub(crate) fn record(topic: &str) -> Record {
    Record {
        at: Timestamp::from_millis(5),
        to: vec![Address::Topic(Topic::new(topic).unwrap())],
        id: None,
        key: None,
        fingerprint: Fingerprint::default(),
        finish: false,
        payload: Some(b"data".to_vec()),
    }
}

pub(crate) fn key(text: &str) -> Option<IdempotencyKey> {
    Some(IdempotencyKey { credential: "p".into(), key: text.into() })
}

pub(crate) fn keyed(text: &str) -> Record {
    Record { key: key(text), ..record("a") }
}

pub(crate) fn group(records: Vec<Record>) -> Group {
    Group { replaces: Vec::new(), records }
}

/// An entry whose events were planned at the origin.
pub(crate) fn entry(counter: u64, groups: Vec<Group>) -> Entry {
    let (seen, seen_mark) = (Position::ORIGIN, Mark::ORIGIN);
    Entry { hub: HUB, name: name(counter), seen, seen_mark, groups, controls: Vec::new() }
}
