//! Which topics exist, and which readers have patterns for those that will.
//!
//! A new topic is attached to the readers whose patterns match it before anything is appended to it,
//! so a reader never has to look for topics.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use crate::{
    address::{Address, Topic},
    forgotten::{Floor, Forgotten},
    log::{LogOptions, Payload},
    patterns::Patterns,
    topic::TopicLog,
    watcher::{Seat, Watcher},
};

/// There is no room for another topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TooManyTopics;

#[derive(Debug)]
pub(crate) struct Registry<P> {
    topics: BTreeMap<Address, Arc<TopicLog<P>>>,
    pub(crate) patterns: Patterns<P>,
    pub(crate) forgotten: Forgotten,
    /// Readers there are.
    pub(crate) readers: usize,
    pub(crate) closed: bool,
    /// The number of the next reader.
    reader_number: u64,
}

impl<P: Payload> Registry<P> {
    pub(crate) fn new(everyone: Arc<TopicLog<P>>, forgotten_max: usize) -> Self {
        Self {
            topics: BTreeMap::from([(Address::Everyone, everyone)]),
            patterns: Patterns::new(),
            forgotten: Forgotten::new(forgotten_max),
            readers: 0,
            closed: false,
            reader_number: 1,
        }
    }

    pub(crate) fn find(&self, address: &Address) -> Option<Arc<TopicLog<P>>> {
        self.topics.get(address).cloned()
    }

    /// Topics there are, everyone's not counted.
    pub(crate) fn topics_len(&self) -> usize {
        self.topics.len() - 1
    }

    pub(crate) fn next_reader_number(&mut self) -> u64 {
        self.reader_number += 1;
        self.reader_number - 1
    }

    /// The topic of this address, made and attached to its readers if there is none.
    pub(crate) fn find_or_create(
        &mut self,
        address: &Address,
        options: &LogOptions,
    ) -> Result<Arc<TopicLog<P>>, TooManyTopics> {
        if let Some(topic) = self.find(address) {
            return Ok(topic);
        }
        if self.topics_len() >= options.limits.topics_max {
            return Err(TooManyTopics);
        }
        let floor = self.forgotten.recall(address);
        let topic = TopicLog::new(address.clone(), options, floor);
        self.topics.insert(address.clone(), Arc::clone(&topic));
        if let Address::Topic(name) = address {
            self.attach_patterns(name, &topic);
        }
        Ok(topic)
    }

    fn attach_patterns(&self, name: &Topic, topic: &Arc<TopicLog<P>>) {
        for watcher in self.patterns.matching(name) {
            attach(watcher, topic, false);
        }
    }

    /// Takes a topic out if it is still the one of its name.
    pub(crate) fn remove(&mut self, topic: &Arc<TopicLog<P>>, floor: Floor) {
        let current = self.topics.get(&topic.address);
        if current.is_some_and(|current| Arc::ptr_eq(current, topic)) {
            self.topics.remove(&topic.address);
            self.forgotten.remember(topic.address.clone(), floor);
        }
    }

    /// The topics whose name begins with `prefix` and comes after `after`, by name.
    pub(crate) fn topics_with_prefix<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&Topic>,
    ) -> impl Iterator<Item = &'a Arc<TopicLog<P>>> {
        let first = Topic::bound(prefix);
        let start = match after {
            Some(after) if *after >= first => Bound::Excluded(Address::Topic(after.clone())),
            _ => Bound::Included(Address::Topic(first)),
        };
        self.topics
            .range((start, Bound::Unbounded))
            .filter_map(|(address, topic)| Some((address.topic()?, topic)))
            .take_while(move |(name, _)| name.as_str().starts_with(prefix))
            .map(|(_, topic)| topic)
    }
}

/// Puts a reader and a topic on each other's lists, once.
///
/// The caller holds the registry, so neither is collected or leaves meanwhile.
pub(crate) fn attach<P>(watcher: &Arc<Watcher<P>>, topic: &Arc<TopicLog<P>>, exact: bool) {
    let mut attached = watcher.attached.lock();
    if !attached.contains(topic) {
        attached.insert(Seat::take(topic, watcher, exact));
    }
}

/// Puts a reader with patterns and some topics, each named once, on each other's lists.
pub(crate) fn attach_all<'a, P: 'a>(
    watcher: &Arc<Watcher<P>>,
    topics: impl Iterator<Item = &'a Arc<TopicLog<P>>>,
) {
    let mut attached = watcher.attached.lock();
    let new = topics.filter(|topic| !attached.contains(topic));
    let seats: Vec<_> = new.map(|topic| Seat::take(topic, watcher, false)).collect();
    attached.extend(seats);
}
