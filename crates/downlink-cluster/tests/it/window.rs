//! The rules of the window, one by one. The window decides which events of an entry are applied. It
//! compares them with the entries between two positions: the one at which they were planned, and
//! the one of their entry.

use std::time::Duration;

use downlink_cluster::{
    Anchor, Control, DecodeError, Entry, Group, Heartbeat, HubId, HubKey, Mark, Position, Record,
    Rules, Verdict, Void, Window, wire::ENTRY_BYTES_MAX,
};
use downlink_log::{Address, Timestamp, Topic};

use crate::{
    allocation::measure,
    entries::{HUB, entry, group, keyed, name, record},
};

const KEY: HubKey = HubKey::from_random([9; 16]);

/// A window with the entries that were pushed. Each entry is a second later than the one before.
struct Test {
    window: Window,
    now: u64,
    /// The marks of all positions.
    marks: Vec<Mark>,
}

impl Test {
    fn new(rules: Rules) -> Self {
        let window = Window::new(rules, HUB, KEY, Anchor::ORIGIN);
        Self { window, now: 1_000_000, marks: vec![Mark::ORIGIN] }
    }

    fn push(&mut self, entry: &Entry) -> Result<Vec<bool>, Void> {
        self.push_after(1_000, entry)
    }

    fn push_after(&mut self, millis: u64, entry: &Entry) -> Result<Vec<bool>, Void> {
        self.now += millis;
        let bytes = entry.encode(ENTRY_BYTES_MAX).unwrap();
        let time = Timestamp::from_millis(self.now);
        let Verdict { mark, groups } = self.window.push(&bytes, Ok(entry), time);
        self.marks.push(mark);
        groups
    }

    /// Changes `entry` as if its events were planned at a position of this window.
    fn seen(&self, position: usize, entry: Entry) -> Entry {
        let seen = Position::new(position as u64);
        Entry { seen, seen_mark: self.marks[position], ..entry }
    }
}

fn test() -> Test {
    Test::new(Rules::default())
}

fn finish(topic: &str) -> Record {
    Record { finish: true, ..record(topic) }
}

/// Pushes two entries whose events were planned at the origin. Returns the verdict about the second
/// entry.
fn second(first: Vec<Group>, second: Vec<Group>) -> Vec<bool> {
    let mut test = test();
    test.push(&entry(1, first)).unwrap();
    test.push(&entry(2, second)).unwrap()
}

fn one(record: Record) -> Vec<Group> {
    vec![group(vec![record])]
}

#[test]
fn the_first_of_two_events_with_the_same_key_is_applied() {
    assert_eq!(second(one(keyed("k")), one(keyed("k"))), [false]);
    assert_eq!(second(one(keyed("k")), one(keyed("l"))), [true]);
}

#[test]
fn the_first_of_two_events_with_the_same_id_is_applied() {
    let given = |id: &str| one(Record { id: Some(id.into()), ..record("a") });
    assert_eq!(second(given("i"), given("i")), [false]);
    assert_eq!(second(given("i"), given("j")), [true]);
}

#[test]
fn an_event_is_dropped_if_one_of_its_topics_was_finished_before() {
    let mut two = record("b");
    two.to.push(Address::Topic(Topic::new("a").unwrap()));
    assert_eq!(second(one(finish("a")), one(two)), [false]);
    assert_eq!(second(one(finish("a")), one(record("b"))), [true]);
    assert_eq!(second(one(record("a")), one(finish("a"))), [true]);
}

#[test]
fn a_group_is_dropped_as_a_whole_and_other_groups_are_applied() {
    let groups = vec![group(vec![record("b"), keyed("k")]), group(vec![record("b")])];
    assert_eq!(second(one(keyed("k")), groups), [false, true]);
}

#[test]
fn a_group_is_dropped_because_of_an_earlier_group_of_the_same_entry() {
    let groups = [one(keyed("k")), one(keyed("k"))].concat();
    assert_eq!(second(Vec::new(), groups), [true, false]);
}

#[test]
fn an_entry_that_has_seen_an_earlier_entry_is_not_compared_with_it() {
    let mut test = test();
    test.push(&entry(1, one(keyed("k")))).unwrap();
    let later = test.seen(1, entry(2, one(keyed("k"))));
    assert_eq!(test.push(&later), Ok(vec![true]));
}

/// A node that begins in the middle cannot know whether an entry was void. So an event is also
/// compared with the events of void entries.
#[test]
fn an_event_is_dropped_because_of_an_event_of_a_void_entry() {
    let mut test = test();
    let wrong = Entry { seen_mark: Mark::new(1), ..entry(1, one(keyed("k"))) };
    assert_eq!(test.push(&wrong), Err(Void::OtherHistory));
    assert_eq!(test.push(&entry(2, one(keyed("k")))), Ok(vec![false]));
    assert_eq!(test.push(&entry(3, one(keyed("k")))), Ok(vec![false]));
}

#[test]
fn a_copy_of_an_entry_is_void() {
    let mut test = test();
    let first = entry(1, one(record("a")));
    assert_eq!(test.push(&first), Ok(vec![true]));
    assert_eq!(test.push(&first), Err(Void::Repeated));
}

#[test]
fn an_entry_and_the_entry_that_replaces_it_are_not_both_applied() {
    let again = || {
        let replaces = vec![name(1)];
        entry(2, vec![Group { replaces, records: vec![record("a")] }])
    };
    let first = entry(1, one(record("a")));
    let mut original_first = test();
    assert_eq!(original_first.push(&first), Ok(vec![true]));
    assert_eq!(original_first.push(&again()), Ok(vec![false]));
    let mut original_late = test();
    assert_eq!(original_late.push(&again()), Ok(vec![true]));
    assert_eq!(original_late.push(&first), Err(Void::Repeated));
}

#[test]
fn an_entry_of_another_hub_is_void_and_makes_no_claims() {
    let mut test = test();
    let other = Entry { hub: HubId([5; 16]), ..entry(1, one(keyed("k"))) };
    assert_eq!(test.push(&other), Err(Void::OtherHub));
    assert_eq!(test.push(&entry(1, one(keyed("k")))), Ok(vec![true]));
}

#[test]
fn an_entry_that_has_seen_a_later_position_is_void() {
    let mut test = test();
    let ahead = Entry { seen: Position::FIRST, ..entry(1, one(record("a"))) };
    assert_eq!(test.push(&ahead), Err(Void::SeenAhead));
}

#[test]
fn bytes_that_are_not_an_entry_are_void_and_change_the_mark() {
    let mut test = test();
    let error = DecodeError::Malformed;
    let time = Timestamp::from_millis(test.now);
    let verdict = test.window.push(b"x", Err(&error), time);
    assert_eq!(verdict.groups, Err(Void::Undecodable(error)));
    assert_ne!(verdict.mark, Mark::ORIGIN);
    assert_eq!(test.window.last(), Position::FIRST);
}

#[test]
fn an_entry_expires_after_its_lifetime() {
    for (second, expected) in [(7_000, Ok(vec![true])), (7_001, Err(Void::Expired))] {
        let mut test = test();
        test.push(&entry(1, Vec::new())).unwrap();
        let late = test.seen(1, entry(9, one(record("a"))));
        test.push_after(8_000, &entry(2, Vec::new())).unwrap();
        assert_eq!(test.push_after(second, &late), expected, "{second}");
    }
}

#[test]
fn heartbeats_do_not_expire() {
    let mut test = test();
    test.push(&entry(1, Vec::new())).unwrap();
    let heartbeat = Heartbeat {
        applied: Position::FIRST,
        version_max: 1,
        retention: 0,
        has_cache: true,
        node: "a".into(),
    };
    let controls = vec![Control::Heartbeat(heartbeat)];
    let late = test.seen(1, Entry { controls, ..entry(9, Vec::new()) });
    test.push_after(10_000, &entry(2, Vec::new())).unwrap();
    assert_eq!(test.push_after(10_000, &late), Ok(vec![]));
}

#[test]
fn a_clock_that_is_an_hour_ahead_expires_nothing() {
    let mut test = test();
    test.push(&entry(1, Vec::new())).unwrap();
    let late = test.seen(1, entry(9, one(record("a"))));
    test.push_after(3_600_000, &entry(2, Vec::new())).unwrap();
    test.now -= 3_600_000;
    assert_eq!(test.push_after(4_000, &late), Ok(vec![true]));
}

#[test]
fn an_entry_that_was_planned_too_many_positions_ago_is_void() {
    let mut rules = Rules::default();
    rules.positions_max = 4;
    for (between, expected) in [(3, Ok(vec![true])), (4, Ok(vec![true])), (5, Err(Void::TooOld))] {
        let mut test = Test::new(rules);
        for counter in 0..between {
            test.push(&entry(counter, Vec::new())).unwrap();
        }
        assert_eq!(test.push(&entry(99, one(record("a")))), expected, "{between}");
    }
}

/// Each entry claims its name, and one key.
#[test]
fn too_many_claims_since_an_entry_was_planned_make_it_void() {
    let mut rules = Rules::default();
    rules.claims_max = 6;
    for (between, expected) in
        [(2, Ok(vec![true])), (3, Ok(vec![true])), (4, Err(Void::TooCrowded))]
    {
        let mut test = Test::new(rules);
        for counter in 0..between {
            test.push(&entry(counter, one(keyed(&counter.to_string())))).unwrap();
        }
        assert_eq!(test.push(&entry(99, one(record("a")))), expected, "{between}");
    }
}

#[test]
fn an_entry_with_too_many_claims_is_void() {
    let topics = |count: usize| {
        let to = (0..count).map(|n| Address::Topic(Topic::new(&n.to_string()).unwrap()));
        one(Record { to: to.collect(), ..finish("a") })
    };
    // The name of the entry is a claim, too.
    let max = downlink_cluster::ENTRY_CLAIMS_MAX;
    assert_eq!(test().push(&entry(1, topics(max - 1))), Ok(vec![true]));
    assert_eq!(test().push(&entry(1, topics(max))), Err(Void::TooManyClaims));
}

/// Two windows that begin at different positions decide alike once a lifetime has passed.
#[test]
fn a_window_that_begins_in_the_middle_decides_alike_after_a_lifetime() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut test = test();
    let mut pushed = Vec::new();
    for counter in 0..2_000 {
        let delay = random.u64(0..1_500);
        let seen = random.usize(test.marks.len().saturating_sub(30)..test.marks.len());
        let text = random.u8(0..40).to_string();
        let records = one(if random.bool() { keyed(&text) } else { finish(&text) });
        let entry = test.seen(seen, entry(counter, records));
        let groups = test.push_after(delay, &entry);
        pushed.push((entry, test.now, groups));
    }
    for begin in [1, 100, 1_500] {
        let (mark, time) = (test.marks[begin], Timestamp::from_millis(pushed[begin - 1].1));
        let anchor = Anchor { position: Position::new(begin as u64), mark, time: Some(time) };
        let mut window = Window::new(Rules::default(), HUB, KEY, anchor);
        let lifetime = Rules::default().lifetime + Duration::from_millis(1);
        let shown = time.after(lifetime).as_millis();
        for (at, (entry, now, groups)) in pushed.iter().enumerate().skip(begin) {
            let bytes = entry.encode(ENTRY_BYTES_MAX).unwrap();
            let verdict = window.push(&bytes, Ok(entry), Timestamp::from_millis(*now));
            assert_eq!(verdict.mark, test.marks[at + 1]);
            if *now >= shown {
                let applied = verdict.groups.unwrap_or_default();
                assert_eq!(applied, groups.clone().unwrap_or_default(), "{begin} {at}");
            }
        }
    }
}

#[test]
fn a_full_window_takes_less_than_eight_mebibytes() {
    let (test, bytes, most) = measure(|| {
        let mut test = test();
        let rules = Rules::default();
        // Each entry claims its name and 16 keys.
        for counter in 0..rules.positions_max + 100 {
            let keys = (0..16).map(|n| keyed(&(counter * 16 + n).to_string())).collect();
            let entry = test.seen(test.marks.len() - 1, entry(counter, vec![group(keys)]));
            test.push(&entry).unwrap();
        }
        assert!(rules.positions_max * 17 > rules.claims_max as u64);
        test.marks = Vec::new();
        test
    });
    assert_eq!(test.window.last(), Position::new(Rules::default().positions_max + 100));
    println!("a full window takes {bytes} bytes, and {most} bytes while it is filled");
    assert!(bytes < 8 << 20, "{bytes} bytes");
    assert!(most < 8 << 20, "{most} bytes while the window was filled");
}
