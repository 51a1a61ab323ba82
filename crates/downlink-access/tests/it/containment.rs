//! Tests whether one selector contains another, and whether two selectors overlap. The expected
//! answers are written in the tests, or come from a check of every topic.

use downlink_access::{contains, overlaps};
use downlink_log::{Topic, TopicSelector};
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::selector;

fn check(granted: &str, asked: &str, expected: bool) {
    assert_eq!(contains(&selector(granted), &selector(asked)), expected, "{granted} ⊇ {asked}");
}

#[test]
fn a_granted_star_contains_all_longer_topics() {
    check("orders/*", "orders/{id}/status", true);
    check("orders/*", "orders/*", true);
    check("orders/*", "orders", false);
    check("orders/*", "*", false);
    check("*", "{a}/{b}", true);
}

#[test]
fn a_granted_placeholder_contains_exactly_one_segment() {
    check("orders/{id}", "orders/{x}", true);
    check("orders/{id}", "orders/*", false);
    check("orders/{id}/*", "orders/*", false);
    check("{a}", "*", false);
    check("{a}/*", "*", false);
    check("{a}/*", "a/b/c", true);
}

#[test]
fn a_granted_literal_contains_itself() {
    check("orders/7", "orders/7", true);
    check("orders/7", "orders/{id}", false);
    check("orders/7", "orders", false);
    check("orders", "orders/7", false);
}

#[test]
fn names_are_compared_byte_by_byte() {
    check("orders/*", "orders/../admin", true);
    check("orders/*", "orders%2F7", false);
    check("caf\u{e9}", "cafe\u{301}", false);
    check("Orders", "orders", false);
}

/// All topics of one to four segments, made of `a`, `b` and `c`. No selector names `c`, so only a
/// placeholder or `*` matches it.
fn topics() -> Vec<Topic> {
    let letters = ["a", "b", "c"];
    let mut names: Vec<String> = letters.map(str::to_owned).to_vec();
    for depth in 1..4 {
        let longest = names.iter().filter(|name| name.split('/').count() == depth);
        let longer = longest.flat_map(|name| letters.map(|letter| format!("{name}/{letter}")));
        let longer: Vec<String> = longer.collect();
        names.extend(longer);
    }
    names.iter().map(|name| Topic::new(name).unwrap()).collect()
}

/// Selectors of up to three segments. The topics have up to four segments, because a final `*` also
/// matches topics that are longer than the selector.
fn selectors() -> impl Strategy<Value = TopicSelector> {
    let segments = prop::collection::vec(select(vec!["a", "b", "{x}", "{y}"]), 0..=3);
    let texts = (segments, any::<bool>()).prop_map(|(mut segments, star)| {
        segments.extend((star || segments.is_empty()).then_some("*"));
        segments.truncate(3);
        segments.join("/")
    });
    texts.prop_filter_map("no selector", |text| TopicSelector::parse(&text).ok())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn containment_agrees_with_a_check_of_each_topic(granted in selectors(), asked in selectors()) {
        let topics = topics();
        let expected = { topics.iter().filter(|topic| asked.matches(topic)) }
            .all(|topic| granted.matches(topic));
        prop_assert_eq!(contains(&granted, &asked), expected, "{} {}", granted, asked);
    }

    #[test]
    fn overlap_agrees_with_a_check_of_each_topic(one in selectors(), other in selectors()) {
        let expected = topics().iter().any(|topic| one.matches(topic) && other.matches(topic));
        prop_assert_eq!(overlaps(&one, &other), expected, "{} {}", one, other);
    }
}

/// The tests above compare random pairs of selectors. This test compares every pair of selectors of
/// up to three segments.
#[test]
fn containment_and_overlap_are_right_for_every_pair_of_selectors() {
    let topics = topics();
    let selectors = every_selector();
    assert_eq!(selectors.len(), 52);
    for granted in &selectors {
        for asked in &selectors {
            let (mut all, mut any) = (true, false);
            for topic in topics.iter().filter(|topic| asked.matches(topic)) {
                all &= granted.matches(topic);
                any |= granted.matches(topic);
            }
            assert_eq!(contains(granted, asked), all, "{granted} ⊇ {asked}");
            assert_eq!(overlaps(granted, asked), any, "{granted} ∩ {asked}");
        }
    }
}

/// All selectors of one to three segments, made of `a`, `b`, a placeholder and a final `*`.
fn every_selector() -> Vec<TopicSelector> {
    let mut stems = vec![String::new()];
    let mut texts = Vec::new();
    for _ in 0..3 {
        texts.extend(stems.iter().map(|stem| format!("{stem}*")));
        let longer = |stem: &String| ["a", "b", "{x}"].map(|segment| format!("{stem}{segment}"));
        let names: Vec<String> = stems.iter().flat_map(longer).collect();
        stems = names.iter().map(|name| format!("{name}/")).collect();
        texts.extend(names);
    }
    texts.iter().map(|text| selector(text)).collect()
}

#[test]
fn the_last_segments_of_the_longest_names_are_compared_too() {
    let long = |last: &str| format!("{}{last}", "a/".repeat(127));
    check(&long("b"), &long("b"), true);
    check(&long("b"), &long("c"), false);
    check("a/*", &long("b"), true);
    check("b/*", &long("b"), false);
    let pattern = |last: &str| format!("{}{last}", "a/".repeat(15));
    check(&pattern("*"), &pattern("{x}"), true);
    check(&pattern("{x}"), &pattern("*"), false);
    check(&pattern("*"), &long("b"), true);
}
