//! Coming and going of readers.
//!
//! A reader is on the lists of all its topics before its cursor is taken, so whatever is published
//! after `open` has returned reaches it.

use std::{fmt, sync::Arc};

use crate::{
    address::Address,
    collect::collect_one,
    log::{Log, Payload, Shared},
    offset::Timestamp,
    reader::Reader,
    registry::{Registry, attach},
    selector::{Selection, TopicSelector},
    start::Start,
    sync::Ordering,
    watcher::Watcher,
};

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
        let beginning = shared.begin(start, &watcher);
        Ok(Reader::new(self.clone(), watcher, beginning))
    }
}

impl<P: Payload> Shared<P> {
    fn attach(&self, selection: &Selection) -> Result<Arc<Watcher<P>>, OpenError> {
        let (exact, patterns) = split(selection);
        let mut registry = self.registry.write();
        self.check(&registry, selection)?;
        let number = registry.next_reader_number();
        let watcher = Arc::new(Watcher::new(number, selection.client.clone(), patterns));
        for address in exact.iter().chain(inbox(selection).as_ref()) {
            match registry.find_or_create(address, &self.options) {
                Ok(topic) => attach(&watcher, &topic, true),
                Err(_) => {
                    self.leave(&mut registry, &watcher);
                    let topics_max = self.options.limits.topics_max;
                    return Err(OpenError::TooManyTopics { topics_max });
                }
            }
        }
        attach(&watcher, &self.everyone, true);
        attach_patterns(&mut registry, &watcher);
        registry.readers += 1;
        Ok(watcher)
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
        let mut registry = self.registry.write();
        registry.readers -= 1;
        self.leave(&mut registry, watcher);
    }

    fn leave(&self, registry: &mut Registry<P>, watcher: &Arc<Watcher<P>>) {
        for pattern in &watcher.patterns {
            registry.patterns.remove(pattern, watcher.number);
        }
        let seats = std::mem::take(&mut watcher.attached.lock().topics);
        for seat in seats {
            seat.topic.watchers.lock().remove(seat.key);
            collect_one(registry, &seat.topic);
        }
        watcher.next.store(u64::MAX, Ordering::Relaxed);
    }
}

/// Attaches a reader to what its patterns match now and later, and notes what they matched once.
fn attach_patterns<P: Payload>(registry: &mut Registry<P>, watcher: &Arc<Watcher<P>>) {
    if watcher.patterns.is_empty() {
        return;
    }
    for pattern in &watcher.patterns {
        registry.patterns.insert(pattern, watcher);
        registry.matching(pattern).for_each(|topic| attach(watcher, topic, false));
    }
    let wanted = |address: &Address| {
        let topic = address.topic();
        topic.is_some_and(|topic| watcher.patterns.iter().any(|pattern| pattern.matches(topic)))
    };
    watcher.attached.lock().detached = registry.forgotten.highest(wanted);
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
