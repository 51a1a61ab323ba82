//! The operations from which a test chooses at random, and the small limits of the log. A test
//! applies the same operations to the log and to a model of it.

use std::time::Duration;

use downlink_log::{
    Address, ClientId, Limits, Retention, RetentionRules, Selection, Start, Timestamp, Topic,
    TopicSelector,
};
use proptest::prelude::*;

pub(crate) const GAP_REPLAY_MAX: usize = 3;
pub(crate) const TOPICS: [&str; 12] =
    ["a", "b", "a/x", "a/y", "b/x", "b/y", "c/x/z", "c/y/z", "d", "e", "f", "g/x"];

#[derive(Clone, Debug)]
pub(crate) enum Target {
    Everyone,
    Client(u8),
    Topic(u8),
}

impl Target {
    pub(crate) fn address(&self) -> Address {
        match self {
            Self::Everyone => Address::Everyone,
            Self::Client(number) => Address::Client(client(*number)),
            Self::Topic(number) => Address::Topic(topic(*number)),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Append {
        targets: Vec<Target>,
        bytes: usize,
        id: Option<u8>,
        finish: bool,
    },
    Finish {
        target: Target,
    },
    Connect {
        client: u8,
        start: Start,
    },
    Drop {
        client: u8,
    },
    Read {
        client: u8,
        events_max: usize,
    },
    Advance {
        ms: u64,
    },
    /// Replaces the retention rules by the rules with this number.
    SetRetention {
        rules: u8,
    },
}

pub(crate) fn client(number: u8) -> ClientId {
    ClientId::new(&format!("client-{number}")).expect("a valid client id")
}

fn topic(number: u8) -> Topic {
    Topic::new(TOPICS[usize::from(number) % TOPICS.len()]).expect("a valid topic")
}

/// The topics and patterns that the client with this number reads. They are the same for all
/// connections of the client.
pub(crate) fn selection(number: u8) -> Selection {
    let texts: &[&str] = match number % 8 {
        0 => &["a"],
        1 => &["a", "b", "a/x"],
        2 => &["a/*"],
        3 => &["*"],
        4 => &["c/{any}/z", "b/*", "d"],
        5 => &["d", "e"],
        // If a selection names few topics, the log merges their events. With this many topics, the
        // log reads the index instead, which is a list of all events.
        6 => &["a", "b", "a/x", "a/y", "b/x", "b/y", "d", "e", "f", "g/x"],
        _ => &[],
    };
    Selection {
        selectors: texts
            .iter()
            .map(|text| TopicSelector::parse(text).expect("a valid selector"))
            .collect(),
        client: number.is_multiple_of(2).then(|| client(number % 4)),
    }
}

/// The retention rules with this number. A log begins with the rules 0.
pub(crate) fn retention(number: u8) -> RetentionRules {
    let rule = |events_max, bytes_max, age: Option<u64>| Retention {
        events_max,
        bytes_max,
        age_max: age.map(Duration::from_millis),
    };
    let selector = |text| TopicSelector::parse(text).expect("a valid selector");
    let of = |rules, default, inbox, everyone, finished_keep_ms| RetentionRules {
        rules,
        default,
        inbox,
        everyone,
        finished_keep: Duration::from_millis(finished_keep_ms),
    };
    match number % 4 {
        0 => of(
            vec![
                (selector("a"), rule(3, usize::MAX, None)),
                (selector("a/*"), rule(2, usize::MAX, Some(30))),
                (selector("b/*"), rule(10, 300, Some(60))),
                (selector("d"), rule(1, usize::MAX, Some(20))),
            ],
            rule(5, usize::MAX, Some(100)),
            rule(2, usize::MAX, Some(40)),
            rule(4, usize::MAX, Some(70)),
            50,
        ),
        // Each topic keeps only its newest event, and only for 15 ms.
        1 => {
            let newest = rule(1, usize::MAX, Some(15));
            of(Vec::new(), newest, newest, newest, 10)
        }
        // Each topic keeps more events, and some topics keep events of any age.
        2 => of(
            vec![(selector("a/*"), rule(20, usize::MAX, None))],
            rule(20, usize::MAX, Some(300)),
            rule(20, usize::MAX, None),
            rule(20, usize::MAX, Some(300)),
            200,
        ),
        // The same selectors as in the rules 0, in another order and with other limits.
        _ => of(
            vec![
                (selector("b/*"), rule(2, usize::MAX, None)),
                (selector("d"), rule(4, 500, Some(80))),
                (selector("a"), rule(1, usize::MAX, Some(50))),
            ],
            rule(10, 250, Some(60)),
            rule(3, 200, Some(100)),
            rule(2, 300, None),
            50,
        ),
    }
}

/// The names of many further topics. With so many topics, a reader of a pattern searches the index
/// (a list of all events) instead of each topic.
pub(crate) fn crowd() -> Vec<String> {
    ["", "a/", "b/"]
        .iter()
        .flat_map(|prefix| (0..70).map(move |n| format!("{prefix}n{n}")))
        .collect()
}

pub(crate) fn limits() -> Limits {
    Limits {
        subscribers_max: 7,
        subscribers_per_client_max: 2,
        selectors_max: 300,
        patterns_max: 3,
        topics_max: 9,
        subscribed_names_max: 12 + crowd().len(),
        bytes_max: 2_000,
        gap_replay_max: GAP_REPLAY_MAX,
    }
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        1 => Just(Target::Everyone),
        2 => (0..4u8).prop_map(Target::Client),
        9 => (0..12u8).prop_map(Target::Topic),
    ]
}

fn start() -> impl Strategy<Value = Start> {
    prop_oneof![
        4 => Just(Start::Live),
        2 => Just(Start::Earliest),
        1 => (0..6usize).prop_map(Start::Last),
        1 => (0..400u64).prop_map(|ms| Start::Since(Timestamp::from_millis(1_000 + ms))),
        1 => (0..6u8).prop_map(|id| Start::After(format!("given-{id}").into())),
        1 => Just(Start::After("nonsense".into())),
        1 => Just(Start::After("00000000-3".into())),
        1 => Just(Start::After("70000000-99999".into())),
    ]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let targets = prop_oneof![
        6 => target().prop_map(|target| vec![target]),
        1 => prop::collection::vec(target(), 2..4),
    ];
    let id = prop_oneof![5 => Just(None), 1 => (0..6u8).prop_map(Some)];
    prop_oneof![
        8 => (targets, 0..120usize, id, prop::bool::weighted(0.05))
            .prop_map(|(targets, bytes, id, finish)| Op::Append { targets, bytes, id, finish }),
        1 => (0..12u8).prop_map(|number| Op::Finish { target: Target::Topic(number) }),
        4 => (0..8u8, start()).prop_map(|(client, start)| Op::Connect { client, start }),
        2 => (0..8u8).prop_map(|client| Op::Drop { client }),
        7 => (0..8u8, prop_oneof![Just(1), 1..6usize]).prop_map(|(client, events_max)| Op::Read { client, events_max }),
        2 => (0..40u64).prop_map(|ms| Op::Advance { ms }),
        1 => (0..4u8).prop_map(|rules| Op::SetRetention { rules }),
    ]
}
