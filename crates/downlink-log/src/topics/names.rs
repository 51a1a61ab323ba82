//! The topics that exist, by name, and the number of readers.
//!
//! A topic is created when a publisher or a reader first names it. A finish mark says that a topic
//! gets no more events. A topic that has no events, no finish mark and no readers is collected,
//! which means that it is removed from memory. The table in `collected` then stores the topic's
//! losses, which say up to which offset its events were evicted.
//!
//! One limit applies to the topics that readers name, and another to the topics that have events.
//! So readers never use up the limit that publishers need.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use smallvec::SmallVec;

use crate::readers::ReaderState;
use crate::store::Finished;
use crate::sync::RwLock;
use crate::topics::{COLLECTED_MAX, Collected, Lost, Topic};
use crate::types::{
    Address, EvictionNumber, Floor, Limits, LogOptions, OpenError, Payload, Selection, Timestamp,
    address,
};

/// The maximum number of topics to collect before the lock of the names is released for a moment.
/// So publishers wait only briefly when a hundred thousand topics must be collected at the same
/// time.
const COLLECT_BATCH: usize = 256;

/// All topics of a log.
#[derive(Debug)]
pub(crate) struct Topics<P> {
    /// The topic with the address [`Address::Everyone`]. Every reader reads this topic, and it is
    /// never collected.
    pub(crate) everyone: Arc<Topic<P>>,
    options: Arc<LogOptions>,
    /// Locked while topics are looked up, and while readers or topics are added or removed. While
    /// this lock is held, the locks of one topic may be taken. The locks of the table of patterns
    /// and of single patterns may also be taken, because a topic's losses are noted in the patterns
    /// that match it.
    names: RwLock<NamedTopics<P>>,
}

#[derive(Debug)]
struct NamedTopics<P> {
    /// All topics except everyone's.
    topics: BTreeMap<Address, Arc<Topic<P>>>,
    collected: Collected,
    readers: usize,
    /// The number of topics and inboxes that at least one open reader names. An inbox is the topic
    /// of one client.
    subscribed: usize,
    closed: bool,
    /// The number of the next reader.
    reader_number: u64,
}

/// A seat: one reader's place in the list of readers of one topic. `key` identifies the reader in
/// this list.
#[derive(Debug)]
pub(crate) struct TopicSeat<P> {
    pub(crate) topic: Arc<Topic<P>>,
    key: u32,
    /// Whether the topic is the reader's inbox. The seat keeps a copy of this fact, so that the
    /// reader need not load the topic from memory.
    pub(crate) is_inbox: bool,
}

/// The seats of one reader: in the topics that it named, in its client's inbox, and in everyone's
/// topic. Most readers name one topic, so three seats are usual.
pub(crate) type TopicSeats<P> = SmallVec<[TopicSeat<P>; 3]>;

/// The losses of one topic, and whether it is finished.
#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) address: Address,
    pub(crate) lost: Lost,
    pub(crate) finish: Option<Finished>,
}

impl TopicState {
    pub(crate) fn of<P: Payload>(topic: &Topic<P>) -> Self {
        let ring = topic.ring.read();
        Self { address: topic.address.clone(), lost: ring.lost(), finish: ring.finish() }
    }
}

/// The topics or losses that one call has found in a range of names. `next` is where the next call
/// begins; `None` at the end of the range.
pub(crate) struct Listed<T> {
    pub(crate) found: Vec<T>,
    pub(crate) next: Option<Bound<Address>>,
}

impl<P: Payload> Topics<P> {
    /// No topics. The first reader gets the number `reader_number`.
    pub(crate) fn new(options: Arc<LogOptions>, reader_number: u64) -> Self {
        let everyone = Topic::new(Address::Everyone, Lost::NOTHING);
        let names = NamedTopics {
            topics: BTreeMap::new(),
            collected: Collected::new(options.collected_max.unwrap_or(COLLECTED_MAX)),
            readers: 0,
            subscribed: 0,
            closed: false,
            reader_number,
        };
        Self { everyone, options, names: RwLock::new(names) }
    }

    pub(crate) fn find(&self, address: &Address) -> Option<Arc<Topic<P>>> {
        match address {
            Address::Everyone => Some(Arc::clone(&self.everyone)),
            _ => self.names.read().topics.get(address).cloned(),
        }
    }

    /// The topic of an address. If the topic does not exist, it is created. If an earlier topic of
    /// the same name had losses, `on_lost` is then called while the lock of the names is held.
    pub(crate) fn find_or_create(
        &self,
        address: &Address,
        on_lost: impl FnOnce(&Address, Lost),
    ) -> Arc<Topic<P>> {
        match self.find(address) {
            Some(topic) => topic,
            None => self.names.write().find_or_create(address, on_lost),
        }
    }

    /// The number of topics and inboxes that exist, and the number of readers.
    pub(crate) fn len(&self) -> (usize, usize) {
        let names = self.names.read();
        (names.topics.len(), names.readers)
    }

    /// The number of the next reader.
    pub(crate) fn next_reader_number(&self) -> u64 {
        self.names.read().reader_number
    }

    /// Gives the next reader at least this number.
    pub(crate) fn continue_numbers(&self, reader_number: u64) {
        let mut names = self.names.write();
        names.reader_number = names.reader_number.max(reader_number);
    }

    /// Refuses readers from now on.
    pub(crate) fn close(&self) {
        self.names.write().closed = true;
    }

    /// Registers a new reader with the topics that its selection names.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. Nothing is changed then.
    pub(crate) fn enter(
        &self,
        now: Timestamp,
        selection: &Selection,
        on_lost: impl Fn(&Address, Lost),
    ) -> Result<(Arc<ReaderState>, TopicSeats<P>), OpenError> {
        let named = named(selection);
        let mut names = self.names.write();
        names.check(selection, &self.options.limits)?;
        let number = names.reader_number;
        let (client, selectors) = (selection.client.clone(), selection.selectors.len());
        let reader = Arc::new(ReaderState::new(number, client, selectors, now));
        let mut seats = TopicSeats::new();
        seats.push(TopicSeat::take(&self.everyone, &reader));
        for address in &named {
            let topic = names.find_or_create(address, &on_lost);
            let is_new = topic.readers.lock().is_empty();
            if is_new && names.subscribed >= self.options.limits.subscribed_names_max {
                names.collect(&topic, &on_lost);
                names.leave(seats, &on_lost);
                let subscribed_names_max = self.options.limits.subscribed_names_max;
                return Err(OpenError::TooManyNames { subscribed_names_max });
            }
            names.subscribed += usize::from(is_new);
            seats.push(TopicSeat::take(&topic, &reader));
        }
        names.reader_number += 1;
        names.readers += 1;
        Ok((reader, seats))
    }

    /// Removes a reader from the lists of its topics, and collects the topics that nothing else
    /// uses.
    pub(crate) fn leave(&self, seats: TopicSeats<P>, on_lost: impl Fn(&Address, Lost)) {
        let mut names = self.names.write();
        names.readers -= 1;
        names.leave(seats, &on_lost);
    }

    /// Collects each of these topics that nothing uses. For each collected topic that has losses,
    /// `on_lost` is called while the lock of the names is held.
    pub(crate) fn collect(&self, topics: &[Arc<Topic<P>>], on_lost: impl Fn(&Address, Lost)) {
        for batch in topics.chunks(COLLECT_BATCH) {
            if !batch.iter().any(|topic| topic.ring.read().is_idle()) {
                continue;
            }
            let mut names = self.names.write();
            batch.iter().for_each(|topic| names.collect(topic, &on_lost));
        }
    }

    /// Notes this loss for all names that have no topic and no entry in the table of collected
    /// topics. These names share one floor, which is raised.
    pub(crate) fn raise_unknown(&self, lost: Lost) {
        self.names.write().collected.raise(lost);
    }

    /// Notes that events of an address without a topic may be missing below a floor. `number` makes
    /// the number of the loss, and `note` is called with the losses of the address, while the lock
    /// of the names is held. Returns `false` and does nothing if the address has a topic.
    pub(crate) fn lose_absent(
        &self,
        address: &Address,
        floor: Floor,
        number: impl FnOnce() -> EvictionNumber,
        note: impl FnOnce(Lost),
    ) -> bool {
        let mut names = self.names.write();
        if *address == Address::Everyone || names.topics.contains_key(address) {
            return false;
        }
        if let Some(lost) = names.collected.lose(address, floor, number) {
            note(lost);
        }
        true
    }

    /// Notes this loss for all names without a topic, except the names in `known`.
    pub(crate) fn lose_unknown(&self, lost: Lost, known: &HashSet<Address>) {
        let NamedTopics { topics, collected, .. } = &mut *self.names.write();
        collected.lose_all(lost, known, |address| topics.contains_key(address));
    }

    /// The losses that a name may have if it has no topic and no entry in the table of collected
    /// topics.
    pub(crate) fn lost_of_others(&self) -> Lost {
        self.names.read().collected.others()
    }

    /// Lists at most `count` topics and inboxes, in the order of their addresses, after the address
    /// `after`. The list never has everyone's topic.
    pub(crate) fn list_after(&self, after: &Address, count: usize) -> Vec<Arc<Topic<P>>> {
        let names = self.names.read();
        let range = names.topics.range((Bound::Excluded(after), Bound::Unbounded));
        range.take(count).map(|(_, topic)| Arc::clone(topic)).collect()
    }

    /// Lists at most `count` addresses after the address `after`, in their order: topics and
    /// inboxes that exist, and those that were collected. The list never has everyone's topic. A
    /// caller can list all addresses in several calls, each of which begins after the last address
    /// of the previous list. These calls return each address once, even if topics are created or
    /// collected in between.
    pub(crate) fn list_states(&self, after: &Address, count: usize) -> Vec<TopicState> {
        let names = self.names.read();
        let mut existing =
            names.topics.range((Bound::Excluded(after), Bound::Unbounded)).peekable();
        let mut collected = names.collected.range(Bound::Excluded(after.clone())).peekable();
        let mut states = Vec::new();
        while states.len() < count {
            let is_collected = match (existing.peek(), collected.peek()) {
                (Some((topic, _)), Some((name, _))) => name < topic,
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (None, None) => break,
            };
            states.extend(if is_collected {
                let found = collected.next();
                found.map(|(name, lost)| TopicState { address: name.clone(), lost, finish: None })
            } else {
                existing.next().map(|(_, topic)| TopicState::of(topic))
            });
        }
        states
    }

    /// Lists at most `count` topics whose names begin with `prefix`, from the name `from` on.
    pub(crate) fn list(
        &self,
        prefix: &str,
        from: &Bound<Address>,
        count: usize,
    ) -> Listed<Arc<Topic<P>>> {
        let names = self.names.read();
        let range = names.topics.range((from.clone(), Bound::Unbounded));
        listed(prefix, count, range.map(|(address, topic)| (address, Arc::clone(topic))))
    }

    /// Like [`list`](Self::list), but returns the names and losses of topics. If `collected` is
    /// true, it lists the topics that were collected instead of those that exist.
    pub(crate) fn list_lost(
        &self,
        prefix: &str,
        from: &Bound<Address>,
        count: usize,
        collected: bool,
    ) -> Listed<(Address, Lost)> {
        let names = self.names.read();
        if collected {
            let range = names.collected.range(from.clone());
            return listed(prefix, count, range.map(|(name, lost)| (name, (name.clone(), lost))));
        }
        let range = names.topics.range((from.clone(), Bound::Unbounded));
        let lost = |topic: &Topic<P>| topic.ring.read().lost();
        listed(prefix, count, range.map(|(name, topic)| (name, (name.clone(), lost(topic)))))
    }
}

/// The start of the range of names that begin with a prefix.
pub(crate) fn start_of(prefix: &str) -> Bound<Address> {
    Bound::Included(Address::Topic(address::Topic::bound(prefix)))
}

fn listed<'a, T>(
    prefix: &str,
    count: usize,
    range: impl Iterator<Item = (&'a Address, T)>,
) -> Listed<T> {
    let mut found = Vec::new();
    let mut last: Option<&Address> = None;
    for (address, item) in range {
        let begins = |name: &address::Topic| name.as_str().starts_with(prefix);
        if !address.topic().is_some_and(begins) {
            return Listed { found, next: None };
        }
        if found.len() == count {
            return Listed { found, next: last.cloned().map(Bound::Excluded) };
        }
        last = Some(address);
        found.push(item);
    }
    Listed { found, next: None }
}

impl<P: Payload> NamedTopics<P> {
    fn find_or_create(
        &mut self,
        address: &Address,
        on_lost: impl FnOnce(&Address, Lost),
    ) -> Arc<Topic<P>> {
        if let Some(topic) = self.topics.get(address) {
            return Arc::clone(topic);
        }
        let lost = self.collected.recall(address);
        if lost != Lost::NOTHING {
            on_lost(address, lost);
        }
        let topic = Topic::new(address.clone(), lost);
        self.topics.insert(address.clone(), Arc::clone(&topic));
        topic
    }

    fn check(&self, selection: &Selection, limits: &Limits) -> Result<(), OpenError> {
        if self.closed {
            return Err(OpenError::Closed);
        }
        let selectors = selection.selectors.len();
        if selectors > limits.selectors_max {
            let selectors_max = limits.selectors_max;
            return Err(OpenError::TooManySelectors { selectors, selectors_max });
        }
        if self.readers >= limits.subscribers_max {
            return Err(OpenError::Full { subscribers_max: limits.subscribers_max });
        }
        let inbox = selection.client.clone().map(Address::Client);
        let inbox = inbox.and_then(|inbox| self.topics.get(&inbox));
        let of_client = inbox.map_or(0, |inbox| inbox.readers.lock().len());
        if of_client >= limits.subscribers_per_client_max {
            let subscribers_per_client_max = limits.subscribers_per_client_max;
            return Err(OpenError::ClientFull { subscribers_per_client_max });
        }
        Ok(())
    }

    fn leave(&mut self, seats: TopicSeats<P>, on_lost: &impl Fn(&Address, Lost)) {
        for seat in seats {
            let is_last = {
                let mut readers = seat.topic.readers.lock();
                readers.remove(seat.key);
                readers.is_empty()
            };
            if is_last && seat.topic.address != Address::Everyone {
                self.subscribed -= 1;
                self.collect(&seat.topic, on_lost);
            }
        }
    }

    /// Collects a topic if nothing uses it any more.
    fn collect(&mut self, topic: &Arc<Topic<P>>, on_lost: impl FnOnce(&Address, Lost)) {
        if topic.address == Address::Everyone || !topic.readers.lock().is_empty() {
            return;
        }
        let lost = {
            let mut ring = topic.ring.write();
            if ring.is_dead() || !ring.bury() {
                return;
            }
            ring.lost()
        };
        let current = self.topics.get(&topic.address);
        if current.is_some_and(|current| Arc::ptr_eq(current, topic)) {
            self.topics.remove(&topic.address);
            if lost != Lost::NOTHING {
                on_lost(&topic.address, lost);
                self.collected.remember(topic.address.clone(), lost);
            }
        }
    }
}

impl<P> TopicSeat<P> {
    /// Adds a reader to the list of a topic.
    fn take(topic: &Arc<Topic<P>>, reader: &Arc<ReaderState>) -> Self {
        let key = topic.readers.lock().insert(Arc::clone(reader));
        Self { topic: Arc::clone(topic), key, is_inbox: topic.is_inbox() }
    }
}

/// The topics and the inbox that a selection names, each once.
fn named(selection: &Selection) -> Vec<Address> {
    let topics = selection.selectors.iter().filter_map(|selector| selector.exact());
    let inbox = selection.client.iter().cloned().map(Address::Client);
    let mut named: Vec<Address> = topics.cloned().map(Address::Topic).chain(inbox).collect();
    named.sort_unstable();
    named.dedup();
    named
}
