//! A node that is older than the rest of its cluster.

use downlink_cluster::{
    Answer, Base, Bounds, Control, Entry, EntryName, HubId, HubKey, JournalDurability, JournalId,
    Mark, Node, NodeSettings, Opened, Position, Publish, RawEntry, Record, Snapshot, TailItem,
    WriterId, first_entry,
};
use downlink_log::{Address, Fingerprint, Timestamp};

use crate::model::ModelLog;

const HUB: HubId = HubId([7; 16]);

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn raw(position: u64, bytes: Vec<u8>) -> RawEntry {
    RawEntry { position: Position::new(position), time: at(1_000 + position), bytes }
}

/// A node that has applied the first entry of a journal.
fn node() -> Node<ModelLog> {
    let mut node = Node::new(at(0), NodeSettings::new(HUB), ModelLog::default(), None);
    node.handle_writer(WriterId(1));
    let bounds = Bounds { first: Position::FIRST, last: Position::FIRST };
    let (id, durability) = (JournalId(3), JournalDurability::Durable);
    node.handle_opened(at(0), Ok(Opened { id, bounds, entry_bytes_max: 1 << 20, durability }));
    let key = HubKey::from_random([9; 16]);
    let snapshot = Snapshot { key, base: Base::NONE, epochs: Vec::new(), forks: Vec::new() };
    let first = first_entry(HUB, WriterId(2), snapshot).unwrap();
    // The node reads the first entry again when it has found where to begin.
    for _ in 0..2 {
        node.handle_tail(at(0), Ok(TailItem::Entry(raw(1, first.clone()))));
    }
    assert!(node.takes_publishes());
    node
}

fn takes_publishes(node: &mut Node<ModelLog>) -> bool {
    while node.poll_answer().is_some() {}
    let record = Record {
        at: at(5),
        to: vec![Address::Everyone],
        id: None,
        key: None,
        fingerprint: Fingerprint::default(),
        finish: false,
        payload: Some(vec![0; 8]),
    };
    node.publish(at(5), Publish { records: vec![record], stream: None });
    !matches!(node.poll_answer(), Some((_, Answer::Unavailable { appended: false })))
}

#[test]
fn a_node_stops_at_an_entry_of_a_later_version() {
    let mut node = node();
    let entry = Entry {
        hub: HUB,
        name: EntryName { writer: WriterId(2), counter: 1 },
        seen: Position::ORIGIN,
        seen_mark: Mark::ORIGIN,
        groups: Vec::new(),
        controls: Vec::new(),
    };
    let mut later = entry.encode(1 << 20).unwrap();
    later[0] = 2;
    node.handle_tail(at(3), Ok(TailItem::Entry(raw(2, later))));
    assert_eq!(node.status().too_new, Some(2));
    assert!(!node.serves_readers() && !takes_publishes(&mut node));
}

#[test]
fn a_node_stops_when_the_cluster_raises_its_version() {
    let mut node = node();
    let raise = Entry {
        hub: HUB,
        name: EntryName { writer: WriterId(2), counter: 1 },
        seen: Position::ORIGIN,
        seen_mark: Mark::ORIGIN,
        groups: Vec::new(),
        controls: vec![Control::Version(2)],
    };
    node.handle_tail(at(3), Ok(TailItem::Entry(raw(2, raise.encode(1 << 20).unwrap()))));
    node.handle_tail(at(3), Ok(TailItem::Entry(raw(3, b"x".to_vec()))));
    assert_eq!(node.status().too_new, Some(2));
    assert!(!node.serves_readers() && !takes_publishes(&mut node));
}

#[test]
fn a_node_goes_on_after_bytes_that_are_no_entry_of_its_hub() {
    let mut node = node();
    node.handle_tail(
        at(3),
        Ok(TailItem::Entry(raw(2, b"hello, this is no entry at all".to_vec()))),
    );
    assert_eq!(node.status().too_new, None);
    assert!(node.serves_readers() && takes_publishes(&mut node));
}
