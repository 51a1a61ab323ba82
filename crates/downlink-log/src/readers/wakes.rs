//! Wake-ups that are due: whom an append concerns, apart from when they are told.
//!
//! What was appended is visible already. Whoever holds the wake-ups back delays them; whatever
//! becomes of the holder, none is lost.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

use crate::{install::Assigned, topic::TopicLog, watcher::wake_all};

/// The readers that an append concerns. Wakes them when it is dropped.
#[must_use = "the readers wait until it is dropped"]
pub struct Wakes<P> {
    /// Each once.
    pub(crate) topics: SmallVec<[Arc<TopicLog<P>>; 1]>,
}

impl<P> Wakes<P> {
    /// Those of a batch that is visible and has no more need of its topics.
    pub(crate) fn of(batch: &mut Assigned<P>) -> Self {
        let mut topics = batch.take_topics();
        topics.sort_unstable_by_key(|topic| topic.identity());
        topics.dedup_by_key(|topic| topic.identity());
        Self { topics }
    }

    /// Nobody's.
    pub(crate) fn none() -> Self {
        Self { topics: SmallVec::new() }
    }

    /// Wakes them now, with no lock held.
    pub fn wake(self) {
        drop(self);
    }
}

impl<P> Drop for Wakes<P> {
    fn drop(&mut self) {
        self.topics.iter().for_each(|topic| wake_all(&topic.watchers));
    }
}

impl<P> fmt::Debug for Wakes<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.topics.iter().map(|topic| &topic.address);
        f.debug_list().entries(addresses).finish()
    }
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::{Wake, Waker},
    };

    use super::*;
    use crate::{
        Address, ClientId, Draft, Epoch, Fingerprint, Limits, Log, LogOptions, Offset, Reader,
        Selection, Start, Timestamp, Topic, sync::locks_taken,
    };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn log() -> Log<&'static str> {
        let mut options = LogOptions::new(Epoch::from_random(7));
        options.limits = Limits { topics_max: 1_000_000, ..Limits::default() };
        Log::new(options)
    }

    fn open(log: &Log<&'static str>, topic: &str, woken: &Arc<Count>) -> Reader<&'static str> {
        let selectors = vec![Topic::new(topic).expect("a valid topic").into()];
        let client = Some(ClientId::new(topic).expect("a valid id"));
        let wanted = Selection { selectors, client };
        let reader =
            log.open(Timestamp::default(), &wanted, &Start::Live).expect("room for a reader");
        reader.register(&Waker::from(Arc::clone(woken)));
        reader
    }

    fn append(log: &Log<&'static str>, topic: &str) -> Wakes<&'static str> {
        let stamp: fn(Offset, Timestamp) -> &'static str = |_, _| "hello";
        let draft = Draft {
            to: [Address::Topic(Topic::new(topic).expect("a valid topic"))].into_iter().collect(),
            id: None,
            key: None,
            fingerprint: Fingerprint::default(),
            finish: false,
            body: None,
            stamp: Some(stamp),
        };
        log.append(Timestamp::default(), [draft].into_iter().collect()).expect("an open topic").1
    }

    /// Locks taken and readers woken by one append beside so many topics of one reader each.
    fn cost_beside(topics: usize) -> (usize, usize) {
        let (log, woken) = (log(), Arc::default());
        let others: Vec<_> =
            (0..topics).map(|number| open(&log, &format!("other/{number}"), &woken)).collect();
        let readers: Vec<_> = (0..3).map(|_| open(&log, "news", &woken)).collect();
        let before = locks_taken();
        append(&log, "news").wake();
        let cost = (locks_taken() - before, woken.0.load(Ordering::Relaxed));
        drop((others, readers));
        cost
    }

    #[test]
    fn an_append_costs_the_same_beside_few_and_many_topics() {
        let (locks, woken) = cost_beside(100);
        assert_eq!(woken, 3);
        assert!(locks > 0);
        assert_eq!(cost_beside(20_000), (locks, woken));
    }

    #[test]
    fn readers_are_woken_when_it_is_dropped_and_not_before() {
        let (log, woken) = (log(), Arc::default());
        let mut reader = open(&log, "news", &woken);
        let wakes = append(&log, "news");
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        let read = reader.read_next(Timestamp::default);
        assert!(matches!(read, crate::Next::Event(_)), "visible before: {read:?}");
        drop(wakes);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }
}
