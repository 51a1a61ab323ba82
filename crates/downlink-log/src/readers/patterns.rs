//! The patterns of all subscriptions, found by the topics that they match.
//!
//! Patterns are grouped by their text and filed under their literal prefix, so a new topic asks only
//! the prefixes of its own name, and ten thousand subscriptions of one pattern match it once.

use std::{collections::BTreeMap, sync::Arc};

use crate::{address::Topic, selector::TopicSelector, watcher::Watcher};

#[derive(Debug)]
pub(crate) struct Patterns<P> {
    by_prefix: BTreeMap<Box<str>, BTreeMap<TopicSelector, Readers<P>>>,
}

/// By reader number.
type Readers<P> = BTreeMap<u64, Arc<Watcher<P>>>;

impl<P> Patterns<P> {
    pub(crate) fn new() -> Self {
        Self { by_prefix: BTreeMap::new() }
    }

    pub(crate) fn insert(&mut self, pattern: &TopicSelector, watcher: &Arc<Watcher<P>>) {
        let patterns = self.by_prefix.entry(pattern.literal_prefix().into()).or_default();
        let readers = patterns.entry(pattern.clone()).or_default();
        readers.insert(watcher.number, Arc::clone(watcher));
    }

    pub(crate) fn remove(&mut self, pattern: &TopicSelector, number: u64) {
        let prefix = pattern.literal_prefix();
        let Some(patterns) = self.by_prefix.get_mut(prefix) else { return };
        let Some(readers) = patterns.get_mut(pattern) else { return };
        readers.remove(&number);
        if readers.is_empty() {
            patterns.remove(pattern);
        }
        if patterns.is_empty() {
            self.by_prefix.remove(prefix);
        }
    }

    /// The readers with a pattern that matches; one that has several matching patterns comes as
    /// often.
    pub(crate) fn matching<'a>(
        &'a self,
        topic: &'a Topic,
    ) -> impl Iterator<Item = &'a Arc<Watcher<P>>> {
        let name = topic.as_str();
        let ends = name.match_indices('/').map(|(at, slash)| at + slash.len());
        std::iter::once(0)
            .chain(ends)
            .filter_map(|end| self.by_prefix.get(name.get(..end)?))
            .flatten()
            .filter(|(pattern, _)| pattern.matches(topic))
            .flat_map(|(_, readers)| readers.values())
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;

    #[test]
    fn readers_are_found_by_every_prefix_of_a_topic() {
        let mut patterns = Patterns::<&'static str>::new();
        let selectors = ["*", "a/*", "a/{x}/c", "a/b/*", "b/*"];
        for (number, text) in (0..).zip(selectors) {
            let watcher = Arc::new(Watcher::new(number, None, Box::default()));
            patterns.insert(&TopicSelector::parse(text).unwrap(), &watcher);
        }
        let found = |patterns: &Patterns<_>, name| {
            let topic = Topic::new(name).unwrap();
            patterns.matching(&topic).map(|watcher| watcher.number).collect::<Vec<_>>()
        };
        assert_eq!(found(&patterns, "a/b/c"), [0, 1, 2, 3]);
        assert_eq!(found(&patterns, "a"), [0]);
        assert_eq!(found(&patterns, "b/x"), [0, 4]);
        patterns.remove(&TopicSelector::parse("a/*").unwrap(), 1);
        assert_eq!(found(&patterns, "a/b/c"), [0, 2, 3]);
        for (number, text) in (0..).zip(selectors) {
            patterns.remove(&TopicSelector::parse(text).unwrap(), number);
        }
        assert!(patterns.by_prefix.is_empty());
    }
}
