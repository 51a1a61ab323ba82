//! Two questions about selectors: whether one contains another, and whether two overlap. The
//! answers are compared with a table, and with a check of every topic.

use downlink_access::{contains, overlaps};
use downlink_log::{Topic, TopicSelector};
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::selector;

fn check(granted: &str, asked: &str, expected: bool) {
    assert_eq!(contains(&selector(granted), &selector(asked)), expected, "{granted} ⊇ {asked}");
}

#[test]
fn a_granted_star_contains_everything_below() {
    check("orders/*", "orders/{id}/status", true);
    check("orders/*", "orders/*", true);
    check("orders/*", "orders", false);
    check("orders/*", "*", false);
    check("*", "{a}/{b}", true);
}

#[test]
fn a_granted_placeholder_contains_one_segment() {
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
fn names_are_bytes_without_normalisation() {
    check("orders/*", "orders/../admin", true);
    check("orders/*", "orders%2F7", false);
    check("caf\u{e9}", "cafe\u{301}", false);
    check("Orders", "orders", false);
}

/// All topics of one to four segments, made of `a`, `b` and `c`. No selector of these tests names
/// `c`.
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

/// Selectors of up to three segments. The topics have up to four, so a selector that ends with `*`
/// also matches longer topics.
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
    fn containment_agrees_with_brute_force(granted in selectors(), asked in selectors()) {
        let topics = topics();
        let expected = { topics.iter().filter(|topic| asked.matches(topic)) }
            .all(|topic| granted.matches(topic));
        prop_assert_eq!(contains(&granted, &asked), expected, "{} {}", granted, asked);
    }

    #[test]
    fn overlap_agrees_with_brute_force(one in selectors(), other in selectors()) {
        let expected = topics().iter().any(|topic| one.matches(topic) && other.matches(topic));
        prop_assert_eq!(overlaps(&one, &other), expected, "{} {}", one, other);
    }
}
