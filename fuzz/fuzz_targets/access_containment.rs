//! Compares two selectors. Containment and overlap have to agree with a check of every short topic.
//!
//! Each byte of the input is one segment of a selector: `a`, `b`, a placeholder, a final `*`, or
//! the break between the two selectors. The topics also have a segment `c`, which no selector
//! names.

#![no_main]

use std::sync::LazyLock;

use downlink_access::{contains, overlaps};
use downlink_log::{Topic, TopicSelector};
use libfuzzer_sys::fuzz_target;

/// The most segments of a selector. The topics have one more, so that a final `*` matches some
/// topics that no other selector matches.
const SEGMENTS_MAX: usize = 4;

static TOPICS: LazyLock<Vec<Topic>> = LazyLock::new(topics);

fuzz_target!(|input: &[u8]| {
    let Some(split) = input.iter().position(|byte| byte % 5 == 4) else { return };
    let Some(granted) = selector(&input[..split]) else { return };
    let Some(asked) = selector(&input[split + 1..]) else { return };
    let (mut all, mut any) = (true, false);
    for topic in TOPICS.iter().filter(|topic| asked.matches(topic)) {
        all &= granted.matches(topic);
        any |= granted.matches(topic);
    }
    assert_eq!(contains(&granted, &asked), all, "{granted} contains {asked}");
    assert_eq!(overlaps(&granted, &asked), any, "{granted} overlaps {asked}");
    assert_eq!(overlaps(&asked, &granted), any, "{asked} overlaps {granted}");
});

fn selector(bytes: &[u8]) -> Option<TopicSelector> {
    let segments: Vec<&str> = bytes
        .iter()
        .map(|byte| match byte % 5 {
            0 => "a",
            1 => "b",
            2 => "{x}",
            _ => "*",
        })
        .collect();
    let is_short = segments.len() <= SEGMENTS_MAX;
    TopicSelector::parse(&segments.join("/")).ok().filter(|_| is_short)
}

/// All topics of up to five segments, made of `a`, `b` and `c`.
fn topics() -> Vec<Topic> {
    let mut names = Vec::new();
    let mut longest = vec![String::new()];
    for _ in 0..=SEGMENTS_MAX {
        longest = longest
            .iter()
            .flat_map(|stem| ["a", "b", "c"].map(|segment| format!("{stem}/{segment}")))
            .collect();
        names.extend(longest.iter().map(|name| name.trim_start_matches('/').to_owned()));
    }
    names.iter().map(|name| Topic::new(name).unwrap()).collect()
}
