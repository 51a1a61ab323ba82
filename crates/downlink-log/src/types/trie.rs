//! A trie of patterns. It finds the patterns that match the name of a topic. Each level of the trie
//! stands for one segment of a name.
//!
//! The names of placeholders make no difference: `a/{x}` and `a/{y}` are the same pattern in the
//! trie.
//!
//! The work for one name is bounded, however many patterns the trie has. A pattern has at most
//! [`PATTERN_SEGMENTS_MAX`] segments and [`PLACEHOLDERS_MAX`](super::selector::PLACEHOLDERS_MAX)
//! placeholders, so the search for one name visits at most a few thousand nodes.
//!
//! [`PATTERN_SEGMENTS_MAX`]: super::selector::PATTERN_SEGMENTS_MAX

use std::collections::HashMap;

use foldhash::quality::RandomState;

use crate::types::{TopicSelector, is_placeholder};

/// The trie, with a value for each pattern.
#[derive(Debug)]
pub(crate) struct PatternTrie<V> {
    root: Node<V>,
    len: usize,
}

#[derive(Debug)]
struct Node<V> {
    literals: HashMap<Box<str>, Node<V>, RandomState>,
    placeholder: Option<Box<Node<V>>>,
    /// The value of the pattern that ends here with `*`, which matches any further segments.
    rest: Option<V>,
    /// The value of the pattern that ends here.
    end: Option<V>,
}

impl<V> Node<V> {
    fn new() -> Self {
        Self { literals: HashMap::default(), placeholder: None, rest: None, end: None }
    }

    fn is_empty(&self) -> bool {
        self.literals.is_empty()
            && self.placeholder.is_none()
            && self.rest.is_none()
            && self.end.is_none()
    }

    fn place(&mut self, mut segments: std::str::Split<'_, char>) -> &mut Option<V> {
        match segments.next() {
            None => &mut self.end,
            Some("*") => &mut self.rest,
            Some(segment) if is_placeholder(segment) => {
                self.placeholder.get_or_insert_with(|| Box::new(Self::new())).place(segments)
            }
            Some(segment) => {
                // Usually the node exists already. The map's `entry` method would need a copy of
                // the segment even if the node exists.
                if !self.literals.contains_key(segment) {
                    self.literals.insert(segment.into(), Self::new());
                }
                let node = self.literals.get_mut(segment);
                node.expect("the segment was inserted if it was missing").place(segments)
            }
        }
    }

    fn remove(&mut self, mut segments: std::str::Split<'_, char>) -> Option<V> {
        match segments.next() {
            None => self.end.take(),
            Some("*") => self.rest.take(),
            Some(segment) if is_placeholder(segment) => {
                let node = self.placeholder.as_mut()?;
                let removed = node.remove(segments);
                if node.is_empty() {
                    self.placeholder = None;
                }
                removed
            }
            Some(segment) => {
                let node = self.literals.get_mut(segment)?;
                let removed = node.remove(segments);
                if node.is_empty() {
                    self.literals.remove(segment);
                    // A map keeps its capacity when entries are removed, so it must be shrunk.
                    // Otherwise it would still use 80 MB after a million patterns were added and
                    // removed.
                    if self.literals.len() < self.literals.capacity() / 4 {
                        self.literals.shrink_to(2 * self.literals.len());
                    }
                }
                removed
            }
        }
    }

    /// Visits all patterns. The nodes below this node form at most as many levels as a pattern has
    /// segments.
    fn each<'a>(&'a self, visit: &mut impl FnMut(&'a V)) {
        self.rest.iter().chain(&self.end).for_each(&mut *visit);
        self.literals.values().for_each(|node| node.each(visit));
        self.placeholder.iter().for_each(|node| node.each(visit));
    }

    /// Visits the matching patterns until `visit` returns `false`, and counts the visited nodes.
    /// Returns `false` if `visit` has returned `false`.
    fn each_match<'a>(
        &'a self,
        rest: Option<&str>,
        nodes: &mut usize,
        visit: &mut impl FnMut(&'a V) -> bool,
    ) -> bool {
        *nodes += 1;
        let Some(rest) = rest else { return self.end.as_ref().is_none_or(&mut *visit) };
        let (segment, after) = split(rest);
        self.rest.as_ref().is_none_or(&mut *visit)
            && self.literals.get(segment).is_none_or(|node| node.each_match(after, nodes, visit))
            && self.placeholder.as_ref().is_none_or(|node| node.each_match(after, nodes, visit))
    }
}

/// The first segment of a name, and the text after its `/`. A plain loop is used because segments
/// are short. For short segments, the vectorised search of `split_once` takes three times as long.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.bytes().position(|byte| byte == b'/') {
        Some(at) => (&name[..at], Some(&name[at + 1..])),
        None => (name, None),
    }
}

impl<V> PatternTrie<V> {
    pub(crate) fn new() -> Self {
        Self { root: Node::new(), len: 0 }
    }

    /// Visits all patterns.
    pub(crate) fn each<'a>(&'a self, mut visit: impl FnMut(&'a V)) {
        self.root.each(&mut visit);
    }

    /// The number of patterns.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The value of a pattern. If the pattern is not in the trie yet, it is added with the value
    /// that `make` returns.
    pub(crate) fn get_or_insert_with(
        &mut self,
        pattern: &TopicSelector,
        make: impl FnOnce() -> V,
    ) -> &mut V {
        let place = self.root.place(pattern.as_str().split('/'));
        self.len += usize::from(place.is_none());
        place.get_or_insert_with(make)
    }

    /// Removes a pattern, and returns its value.
    pub(crate) fn remove(&mut self, pattern: &TopicSelector) -> Option<V> {
        let removed = self.root.remove(pattern.as_str().split('/'));
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Visits the values of the patterns that match a name, until `visit` returns `false`.
    pub(crate) fn each_match<'a>(&'a self, name: &str, mut visit: impl FnMut(&'a V) -> bool) {
        self.root.each_match(Some(name), &mut 0, &mut visit);
    }
}

/// The patterns of one reader.
#[derive(Debug)]
pub struct PatternSet {
    trie: PatternTrie<()>,
    patterns: Box<[TopicSelector]>,
}

impl PatternSet {
    /// Makes the set of these selectors. An exact topic is treated as a pattern that matches one
    /// name.
    pub fn new(patterns: impl IntoIterator<Item = TopicSelector>) -> Self {
        let mut trie = PatternTrie::new();
        let mut distinct = Vec::new();
        for pattern in patterns {
            let before = trie.len();
            trie.get_or_insert_with(&pattern, || ());
            if trie.len() > before {
                distinct.push(pattern);
            }
        }
        Self { trie, patterns: distinct.into() }
    }

    /// The patterns, each once. Patterns that differ only in the names of their placeholders count
    /// as one.
    pub fn patterns(&self) -> &[TopicSelector] {
        &self.patterns
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a pattern matches a topic of this name.
    pub fn matches(&self, name: &str) -> bool {
        self.matches_counting(name, &mut 0)
    }

    /// Like [`matches`](Self::matches), and adds the number of visited nodes to `nodes`. A visit to
    /// a node takes about ten nanoseconds.
    pub(crate) fn matches_counting(&self, name: &str, nodes: &mut usize) -> bool {
        !self.trie.root.each_match(Some(name), nodes, &mut |()| false)
    }

    /// The literal prefixes of the patterns, sorted. A prefix that begins with another prefix of
    /// the list is left out.
    pub fn prefixes(&self) -> Vec<&str> {
        let mut prefixes: Vec<&str> =
            self.patterns.iter().map(TopicSelector::literal_prefix).collect();
        prefixes.sort_unstable();
        prefixes.dedup_by(|next, kept| next.starts_with(*kept));
        prefixes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::address::Topic;

    fn selector(text: &str) -> TopicSelector {
        TopicSelector::parse(text).unwrap()
    }

    fn found<'a>(trie: &PatternTrie<&'a str>, name: &str) -> Vec<&'a str> {
        let mut found = Vec::new();
        trie.each_match(name, |text| {
            found.push(*text);
            true
        });
        found.sort_unstable();
        found
    }

    const PATTERNS: [&str; 9] =
        ["*", "a/*", "a/{x}/c", "a/b/*", "b/*", "{x}", "{x}/b", "a/{x}/{y}/*", "a/b"];

    #[test]
    fn a_search_finds_the_patterns_that_match_a_name() {
        let mut trie = PatternTrie::new();
        for text in PATTERNS {
            trie.get_or_insert_with(&selector(text), || text);
        }
        for name in ["a", "b", "a/b", "a/b/c", "a/b/c/d", "b/b", "c/b", "c", "x/y/z"] {
            let topic = Topic::new(name).unwrap();
            let mut expected: Vec<&str> =
                PATTERNS.into_iter().filter(|text| selector(text).matches(&topic)).collect();
            expected.sort_unstable();
            assert_eq!(found(&trie, name), expected, "{name}");
        }
    }

    #[test]
    fn placeholder_names_make_no_difference() {
        let mut trie = PatternTrie::new();
        trie.get_or_insert_with(&selector("a/{x}/*"), || "first");
        assert_eq!(*trie.get_or_insert_with(&selector("a/{y}/*"), || "second"), "first");
        assert_eq!(trie.len(), 1);
        assert_eq!(PatternSet::new([selector("{x}"), selector("{y}")]).patterns().len(), 1);
    }

    #[test]
    fn removing_all_patterns_leaves_an_empty_trie() {
        let mut trie = PatternTrie::new();
        for text in PATTERNS {
            trie.get_or_insert_with(&selector(text), || text);
        }
        for text in PATTERNS {
            assert_eq!(trie.remove(&selector(text)), Some(text));
            assert_eq!(trie.remove(&selector(text)), None);
        }
        assert!(trie.root.is_empty() && trie.len() == 0);
    }

    #[test]
    fn removed_patterns_free_their_memory() {
        let mut trie = PatternTrie::new();
        let pattern = |n: usize| selector(&format!("a/{n}/*"));
        (0..10_000).for_each(|n| _ = trie.get_or_insert_with(&pattern(n), || n));
        (1..10_000).for_each(|n| assert_eq!(trie.remove(&pattern(n)), Some(n)));
        let room = trie.root.literals["a"].literals.capacity();
        assert!(room < 64, "{room}");
        assert_eq!(*trie.get_or_insert_with(&pattern(0), || 1), 0);
    }

    #[test]
    fn a_set_matches_a_name_if_one_of_its_patterns_matches() {
        let set = PatternSet::new(PATTERNS.map(selector));
        assert!(set.matches("x/y"));
        assert!(!PatternSet::new([selector("a/{x}")]).matches("a"));
        assert!(PatternSet::new([]).is_empty());
    }
}
