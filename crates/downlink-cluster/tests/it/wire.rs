//! The bytes of entries: decoding returns the entry that was encoded, and refuses hostile bytes.

use downlink_cluster::{
    Base, Control, DecodeError, ENTRY_EVENTS_MAX, EncodeError, Entry, Fork, Group, Heartbeat,
    HubKey, Mark, Position, Record, Snapshot,
    wire::{DECODED_BYTES_MAX, ENTRY_ADDRESSES_MAX, ENTRY_BYTES_MAX, FORK_IDS_MAX, ID_BYTES_MAX},
};
use downlink_log::{Address, ClientId, Epoch, Fingerprint, Offset, Timestamp, Topic};
use proptest::prelude::*;

use crate::{
    allocation::measure,
    entries::{entry, group, key, keyed, name, record},
};

fn full_entry() -> Entry {
    let everyone = vec![Address::Everyone, Address::Client(ClientId::new("c").unwrap())];
    let finish = Record { finish: true, payload: None, to: everyone, ..record("a") };
    let given = Record { id: Some("given".into()), ..keyed("k") };
    let fork = Fork { at: Position::new(3), until: Position::new(9), ids: vec!["x".into()] };
    let snapshot = Snapshot {
        key: HubKey::from_random([1; 16]),
        base: Base::above(Offset::new(77)),
        epochs: vec![(Epoch::from_random(5), Offset::FIRST)],
        forks: vec![fork.clone()],
    };
    let heartbeat = Heartbeat {
        applied: Position::new(4),
        version_max: 1,
        retention: 9,
        has_cache: true,
        node: "a".into(),
    };
    let controls = vec![
        Control::Heartbeat(heartbeat),
        Control::Snapshot(snapshot),
        Control::Fork(fork),
        Control::Unknown { kind: 900 },
    ];
    let replaced = Group { replaces: vec![name(1), name(2)], records: vec![given] };
    Entry {
        seen: Position::new(12),
        seen_mark: Mark::new(u64::MAX),
        controls,
        ..entry(3, vec![replaced, group(vec![finish, record("b/c")])])
    }
}

fn encode(entry: &Entry) -> Vec<u8> {
    entry.encode(ENTRY_BYTES_MAX).unwrap()
}

#[test]
fn every_part_of_an_entry_survives_encoding() {
    let entry = full_entry();
    assert_eq!(Entry::decode(&encode(&entry)), Ok(entry));
}

#[test]
fn bytes_that_are_cut_off_or_too_long_are_refused() {
    let bytes = encode(&full_entry());
    for end in 0..bytes.len() {
        assert!(Entry::decode(&bytes[..end]).is_err(), "{end}");
    }
    assert_eq!(Entry::decode(&[&bytes[..], &[0]].concat()), Err(DecodeError::Malformed));
}

#[test]
fn another_version_is_named_in_the_error() {
    let mut bytes = encode(&entry(1, Vec::new()));
    bytes[0] = 2;
    assert_eq!(
        Entry::decode(&bytes),
        Err(DecodeError::Version { version: 2, hub: Some(crate::entries::HUB) })
    );
}

#[test]
fn an_entry_takes_as_many_events_as_the_limit_and_not_more() {
    let small = Record { payload: None, ..record("a") };
    let of = |count| entry(1, vec![group(vec![small.clone(); count])]);
    let full = of(ENTRY_EVENTS_MAX);
    assert_eq!(Entry::decode(&encode(&full)), Ok(full));
    let (count, count_max) = (ENTRY_EVENTS_MAX + 1, ENTRY_EVENTS_MAX);
    let error = EncodeError::TooMany { part: "events", count, count_max };
    assert_eq!(of(count).encode(ENTRY_BYTES_MAX), Err(error));
}

#[test]
fn an_entry_takes_as_many_addresses_as_the_limit_and_not_more() {
    let of = |count| {
        let to = vec![Address::Everyone; count];
        entry(1, vec![group(vec![Record { to, ..record("a") }])])
    };
    let full = of(ENTRY_ADDRESSES_MAX);
    assert_eq!(Entry::decode(&encode(&full)), Ok(full));
    assert!(of(ENTRY_ADDRESSES_MAX + 1).encode(ENTRY_BYTES_MAX).is_err());
}

#[test]
fn an_entry_may_have_as_many_bytes_as_the_limit_and_not_more() {
    let of = |bytes| {
        entry(1, vec![group(vec![Record { payload: Some(vec![0; bytes]), ..record("a") }])])
    };
    let frame = encode(&of(500_000)).len() - 500_000;
    let full = of(ENTRY_BYTES_MAX - frame);
    assert_eq!(encode(&full).len(), ENTRY_BYTES_MAX);
    assert_eq!(Entry::decode(&encode(&full)), Ok(full));
    let (bytes, bytes_max) = (ENTRY_BYTES_MAX + 1, ENTRY_BYTES_MAX);
    let above = of(ENTRY_BYTES_MAX - frame + 1);
    assert_eq!(above.encode(usize::MAX), Err(EncodeError::TooLarge { bytes, bytes_max }));
    assert_eq!(Entry::decode(&vec![1; bytes]), Err(DecodeError::TooLarge { bytes }));
    assert!(of(100).encode(100).is_err());
}

#[test]
fn publishers_ids_must_be_short_and_unlike_the_ids_of_the_log() {
    let of = |id: &str| {
        encode(&entry(1, vec![group(vec![Record { id: Some(id.into()), ..record("a") }])]))
    };
    assert!(Entry::decode(&of(&"i".repeat(ID_BYTES_MAX))).is_ok());
    for id in [&"i".repeat(ID_BYTES_MAX + 1), "", "k3j9x0qa-41"] {
        assert_eq!(Entry::decode(&of(id)), Err(DecodeError::Id), "{id}");
    }
}

#[test]
fn a_fork_lists_as_many_ids_as_the_limit_and_not_more() {
    let of = |count: usize| {
        let ids = vec!["i".into(); count];
        let fork = Fork { at: Position::new(1), until: Position::new(2), ids };
        encode(&Entry { controls: vec![Control::Fork(fork)], ..entry(1, Vec::new()) })
    };
    assert!(Entry::decode(&of(FORK_IDS_MAX)).is_ok());
    let (count, count_max) = (FORK_IDS_MAX as u64 + 1, FORK_IDS_MAX);
    let error = DecodeError::TooMany { part: "lost ids", count, count_max };
    assert_eq!(Entry::decode(&of(FORK_IDS_MAX + 1)), Err(error));
}

/// The smallest parts of an entry take the most memory for each encoded byte.
#[test]
fn a_decoded_entry_stays_below_its_memory_limit() {
    let tiny = Record {
        to: Vec::new(),
        payload: Some(Vec::new()),
        at: Timestamp::from_millis(0),
        fingerprint: Fingerprint::default(),
        ..record("a")
    };
    let topic = Address::Topic(Topic::new("t").unwrap());
    let many_events = entry(1, vec![group(vec![tiny.clone()]); ENTRY_EVENTS_MAX]);
    let many_topics = Record { to: vec![topic; ENTRY_ADDRESSES_MAX], ..tiny.clone() };
    let ids = vec![Box::from(""); FORK_IDS_MAX];
    let fork = Fork { at: Position::FIRST, until: Position::FIRST, ids };
    let snapshot = Snapshot {
        key: HubKey::from_random([1; 16]),
        base: Base::NONE,
        epochs: Vec::new(),
        forks: vec![fork; 15],
    };
    let many_ids =
        Entry { controls: vec![Control::Snapshot(snapshot); 64], ..entry(1, Vec::new()) };
    for entry in [many_events, entry(1, vec![group(vec![many_topics])]), many_ids] {
        let bytes = encode(&entry);
        let (decoded, _, most) = measure(|| Entry::decode(&bytes));
        assert_eq!(decoded.as_ref(), Ok(&entry));
        assert!(most <= DECODED_BYTES_MAX, "{most} bytes for {}", bytes.len());
    }
}

/// A count that promises more than the bytes contain reserves no memory.
#[test]
fn hostile_counts_reserve_no_memory() {
    let head = encode(&entry(1, Vec::new()));
    // The last two bytes are the counts of groups and control records.
    let head = &head[..head.len() - 2];
    for count in [vec![0xff, 0x1f], vec![0xff, 0xff, 0xff, 0xff, 0x0f], vec![0xff; 9]] {
        let bytes = [head, &count, &[1, 1, 1]].concat();
        let (decoded, _, most) = measure(|| Entry::decode(&bytes));
        assert!(decoded.is_err());
        assert!(most < 1_000, "{most}");
    }
}

proptest! {
    #[test]
    fn changed_bytes_never_panic_and_never_exceed_the_memory_limit(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(&full_entry());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let (decoded, _, most) = measure(|| Entry::decode(&bytes));
        prop_assert!(most <= DECODED_BYTES_MAX);
        if let Ok(entry) = decoded {
            // The numbers of the format have several encodings, so only the values are compared.
            let again = entry.encode(ENTRY_BYTES_MAX).unwrap();
            prop_assert_eq!(Entry::decode(&again).unwrap(), entry);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let bytes = [&[1][..], &bytes].concat();
        let (_, _, most) = measure(|| Entry::decode(&bytes));
        prop_assert!(most <= DECODED_BYTES_MAX);
    }
}

#[test]
fn keys_with_different_credentials_differ() {
    let mut other = keyed("k");
    other.key.as_mut().unwrap().credential = "q".into();
    assert_ne!(key("k"), other.key);
    let entry = entry(1, vec![group(vec![keyed("k")]), group(vec![other])]);
    assert_eq!(Entry::decode(&encode(&entry)), Ok(entry));
}
