//! Coming and going of readers.
//!
//! A reader is on the lists of all its topics before its cursor is taken, so whatever is published
//! after `open` has returned reaches it.

use std::{fmt, sync::Arc};

use crate::{
    address::{Address, Topic},
    collect::collect_one,
    log::{Log, Payload, Shared},
    offset::Timestamp,
    reader::Reader,
    registry::{Registry, attach, attach_all},
    selector::{Selection, TopicSelector},
    start::Start,
    watcher::{Seat, Watcher},
};

/// Topics looked at under one hold of the registry when a pattern comes: publishers that look up a
/// topic wait some tens of microseconds, not for all of a hundred thousand.
const ATTACH_BATCH: usize = 1_024;

/// A reader was refused; nothing changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OpenError {
    /// The log is closed.
    Closed,
    /// There are as many readers as there may be.
    Full {
        /// The limit.
        subscribers_max: usize,
    },
    /// The client has as many readers as it may have.
    ClientFull {
        /// The limit.
        subscribers_per_client_max: usize,
    },
    /// The selection names too many topics and patterns.
    TooManySelectors {
        /// How many.
        selectors: usize,
        /// The limit.
        selectors_max: usize,
    },
    /// There is no room for another topic.
    TooManyTopics {
        /// The limit.
        topics_max: usize,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the log is closed"),
            Self::Full { subscribers_max } => {
                write!(f, "there are {subscribers_max} subscriptions, which is the limit")
            }
            Self::ClientFull { subscribers_per_client_max } => write!(
                f,
                "the client has {subscribers_per_client_max} subscriptions, which is the limit"
            ),
            Self::TooManySelectors { selectors, selectors_max } => {
                write!(f, "{selectors} topics and patterns, at most {selectors_max} are allowed")
            }
            Self::TooManyTopics { topics_max } => {
                write!(f, "there are {topics_max} topics, which is the limit")
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl<P: Payload> Log<P> {
    /// Opens a reader. What is appended after this returns is read by it.
    ///
    /// In a log with a store, where it begins may have to be asked there: see
    /// [`poll_begun`](Reader::poll_begun).
    ///
    /// # Errors
    ///
    /// [`OpenError`]; then nothing was changed.
    pub fn open(
        &self,
        now: Timestamp,
        selection: &Selection,
        start: &Start,
    ) -> Result<Reader<P>, OpenError> {
        let shared = &self.0;
        shared.expire(now);
        let watcher = shared.attach(selection)?;
        if let Some(beginning) = shared.begin_known(start, &watcher) {
            return Ok(Reader::new(Arc::clone(shared), watcher, beginning));
        }
        let start = start.clone();
        let slot =
            shared.ask(&watcher, move |shared, watcher| shared.begin_stored(&start, watcher));
        Ok(Reader::to_begin(Arc::clone(shared), watcher, slot))
    }
}

impl<P: Payload> Shared<P> {
    /// Puts a new reader on the lists of all its topics.
    fn attach(&self, selection: &Selection) -> Result<Arc<Watcher<P>>, OpenError> {
        let watcher = self.enter(selection)?;
        for pattern in watcher.patterns() {
            self.attach_matching(&watcher, pattern);
        }
        Ok(watcher)
    }

    /// Registers a new reader: with the topics it names, and with its patterns for topics to come.
    fn enter(&self, selection: &Selection) -> Result<Arc<Watcher<P>>, OpenError> {
        let (exact, patterns) = split(selection);
        let mut registry = self.registry.write();
        self.check(&registry, selection)?;
        let number = registry.next_reader_number();
        let full = |_| OpenError::TooManyTopics { topics_max: self.options.limits.topics_max };
        let inbox = inbox(selection).map(|inbox| registry.find_or_create(&inbox, &self.options));
        let inbox = inbox.transpose().map_err(full)?;
        let watcher = Arc::new(Watcher::new(number, inbox.clone(), patterns));
        inbox.iter().chain([&self.everyone]).for_each(|topic| attach(&watcher, topic, true));
        for address in &exact {
            match registry.find_or_create(address, &self.options) {
                Ok(topic) => attach(&watcher, &topic, true),
                Err(refused) => {
                    leave_topics(&mut registry, &watcher);
                    return Err(full(refused));
                }
            }
        }
        for pattern in watcher.patterns() {
            registry.patterns.insert(pattern, &watcher);
        }
        registry.readers += 1;
        Ok(watcher)
    }

    /// Attaches a reader to the topics that one of its patterns matches already, and then notes what
    /// it matched once: a topic that is collected between the two is in the second.
    fn attach_matching(&self, watcher: &Arc<Watcher<P>>, pattern: &TopicSelector) {
        let prefix = pattern.literal_prefix();
        let matches = |topic: &Topic| pattern.matches(topic);
        let mut after: Option<Topic> = None;
        loop {
            let registry = self.registry.read();
            let topics = registry.topics_with_prefix(prefix, after.as_ref());
            let topics: Vec<_> = topics.take(ATTACH_BATCH).collect();
            let wanted = topics.iter().filter(|t| t.address.topic().is_some_and(matches));
            attach_all(watcher, wanted.copied());
            match topics.last() {
                Some(last) if topics.len() == ATTACH_BATCH => after = last.address.topic().cloned(),
                _ => break,
            }
        }
        let highest = self.registry.read().forgotten.highest(prefix, matches);
        watcher.attached.lock().note_detached(highest);
    }

    fn check(&self, registry: &Registry<P>, selection: &Selection) -> Result<(), OpenError> {
        let limits = self.options.limits;
        if registry.closed {
            return Err(OpenError::Closed);
        }
        let selectors = selection.selectors.len();
        if selectors > limits.selectors_max {
            let selectors_max = limits.selectors_max;
            return Err(OpenError::TooManySelectors { selectors, selectors_max });
        }
        if registry.readers >= limits.subscribers_max {
            return Err(OpenError::Full { subscribers_max: limits.subscribers_max });
        }
        let of_client = inbox(selection).and_then(|inbox| registry.find(&inbox));
        let of_client = of_client.map_or(0, |inbox| inbox.watchers.lock().len());
        if of_client >= limits.subscribers_per_client_max {
            let subscribers_per_client_max = limits.subscribers_per_client_max;
            return Err(OpenError::ClientFull { subscribers_per_client_max });
        }
        Ok(())
    }

    /// Takes a reader off every list, and collects what it alone kept alive.
    pub(crate) fn detach(&self, watcher: &Arc<Watcher<P>>) {
        let by_pattern = {
            let mut registry = self.registry.write();
            registry.readers -= 1;
            for pattern in watcher.patterns() {
                registry.patterns.remove(pattern, watcher.number);
            }
            leave_topics(&mut registry, watcher)
        };
        // They may be as many as there are topics, and leaving them collects none.
        for seat in by_pattern {
            seat.leave();
        }
    }
}

/// Takes a reader off the lists of the topics that it named. Gives the seats that it had by patterns.
fn leave_topics<P: Payload>(registry: &mut Registry<P>, watcher: &Watcher<P>) -> Vec<Seat<P>> {
    let seats = watcher.attached.lock().take_all();
    let mut by_pattern = Vec::new();
    for seat in seats {
        if seat.exact {
            seat.leave();
            collect_one(registry, &seat.topic);
        } else {
            by_pattern.push(seat);
        }
    }
    by_pattern
}

/// The exact topics as addresses, and the patterns, each once.
fn split(selection: &Selection) -> (Vec<Address>, Box<[TopicSelector]>) {
    let mut exact = Vec::new();
    let mut patterns = Vec::new();
    for selector in &selection.selectors {
        match selector.exact() {
            Some(topic) => exact.push(Address::Topic(topic.clone())),
            None => patterns.push(selector.clone()),
        }
    }
    exact.sort_unstable();
    exact.dedup();
    patterns.sort_unstable();
    patterns.dedup();
    (exact, patterns.into())
}

fn inbox(selection: &Selection) -> Option<Address> {
    selection.client.clone().map(Address::Client)
}
