//! Wake-ups that wait for others: a topic's readers are woken at most once in a linger.
//!
//! A topic that has had its pause is woken at once, so a quiet log waits for nothing. What follows
//! within the linger is gathered, and somebody with a timer wakes it at the linger's end. Time comes
//! from the caller, whose timer it is too. A topic that nothing gathers for costs one small number.
//!
//! Gathering loses no wake-up: events are visible before they are gathered, the mark that a topic is
//! gathered is set and taken away under the lock of its list, and its readers are woken after that.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use smallvec::SmallVec;

use crate::{sync::Mutex, topic::TopicLog, wakes::Wakes};

/// Wake-ups that wait for the end of a linger.
///
/// Each publish [`add`](Self::add)s its own. Whoever is told to start a timer calls
/// [`wake_due`](Self::wake_due) at the times that it answers, and at last, also if it is to end
/// early, [`wake_all`](Self::wake_all).
///
/// All times are since a beginning of the caller's choice, in whole milliseconds rounded down.
///
/// # Limits
///
/// Each topic is gathered once: it holds no more than topics that had two appends within a linger.
pub struct Gathered<P> {
    linger_ms: u32,
    waiting: Mutex<Waiting<P>>,
}

/// Locked alone.
struct Waiting<P> {
    /// By the end of their linger in milliseconds, and by their identity.
    topics: BTreeMap<(u64, usize), Arc<TopicLog<P>>>,
    /// What the timer is set to; `None` if there is none.
    timer: Option<u64>,
}

/// What is to become of the caller's timer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timer {
    /// It stays as it is.
    Keep,
    /// There is none: start one that is due at once.
    Start,
    /// It is set too late: it is due at once.
    Hurry,
}

/// When a topic's readers may be woken again, and whether that is settled.
///
/// The end of its last linger in milliseconds modulo 2^31, and `GATHERED`. After 24 days without an
/// event it may look like one to come; then it is waited for once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace(u32);

/// Somebody will wake the topic at the end of its linger.
const GATHERED: u32 = 1 << 31;

/// What to do with a wake-up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Due {
    Now,
    /// Somebody does it at the end of the linger, in so many milliseconds at most.
    Settled,
    /// Somebody should have done it a linger ago.
    Overdue,
    /// In so many milliseconds.
    In(u32),
}

impl Pace {
    /// Decides, and takes the decision for done.
    fn decide(&mut self, now: u64, linger: u32) -> Due {
        let left = self.left(now);
        let is_ahead = (1..=linger).contains(&left);
        if self.0 & GATHERED != 0 {
            let late = left.wrapping_neg() & !GATHERED;
            return if is_ahead || late <= linger { Due::Settled } else { Due::Overdue };
        }
        if is_ahead {
            self.0 |= GATHERED;
            return Due::In(left);
        }
        self.begin(now, linger);
        Due::Now
    }

    /// Begins a linger: the readers are woken now.
    fn begin(&mut self, now: u64, linger: u32) {
        self.0 = (now as u32).wrapping_add(linger) & !GATHERED;
    }

    /// Milliseconds to the end of the linger, modulo 2^31.
    fn left(self, now: u64) -> u32 {
        self.0.wrapping_sub(now as u32) & !GATHERED
    }
}

impl<P> Gathered<P> {
    /// Nothing yet. The linger is rounded up to whole milliseconds and at least one, at most a day.
    pub fn new(linger: Duration) -> Self {
        const DAY_MS: u128 = 24 * 60 * 60 * 1_000;
        let linger_ms = linger.as_micros().div_ceil(1_000).clamp(1, DAY_MS) as u32;
        Self { linger_ms, waiting: Mutex::new(Waiting { topics: BTreeMap::new(), timer: None }) }
    }

    /// Gathers what has to wait, and gives back what does not. The caller sees to its timer first.
    pub fn add(&self, now: Duration, mut wakes: Wakes<P>) -> (Timer, Wakes<P>) {
        let now_ms = millis(now);
        let mut gathered = SmallVec::<[_; 1]>::new();
        let mut is_overdue = false;
        wakes.topics.retain(|topic| {
            let mut watchers = topic.watchers.lock();
            // Who comes later looks at the log by itself.
            if watchers.len() == 0 {
                return false;
            }
            let due = watchers.pace.decide(now_ms, self.linger_ms);
            if let Due::In(left) = due {
                gathered.push((now_ms + u64::from(left), Arc::clone(topic)));
            }
            is_overdue |= due == Due::Overdue;
            due == Due::Now
        });
        if is_overdue {
            self.wake_due(now);
        }
        let timer = if gathered.is_empty() { Timer::Keep } else { self.wait(gathered) };
        (timer, wakes)
    }

    /// Wakes what is due, and says when to call again; `None`: the timer is to end.
    pub fn wake_due(&self, now: Duration) -> Option<Duration> {
        let now_ms = millis(now);
        let (due, next) = {
            let mut waiting = self.waiting.lock();
            let later = waiting.topics.split_off(&(now_ms.saturating_add(1), 0));
            let due = std::mem::replace(&mut waiting.topics, later);
            waiting.timer = waiting.topics.keys().next().map(|(due, _)| *due);
            (due, waiting.timer)
        };
        self.wake(now_ms, due);
        next.map(Duration::from_millis)
    }

    /// Wakes all, due or not: there is no timer any more.
    pub fn wake_all(&self, now: Duration) {
        let all = {
            let mut waiting = self.waiting.lock();
            waiting.timer = None;
            std::mem::take(&mut waiting.topics)
        };
        self.wake(millis(now), all);
    }

    fn wait(&self, gathered: impl IntoIterator<Item = (u64, Arc<TopicLog<P>>)>) -> Timer {
        let mut waiting = self.waiting.lock();
        let keyed = gathered.into_iter().map(|(due, topic)| ((due, topic.identity()), topic));
        waiting.topics.extend(keyed);
        let first = waiting.topics.keys().next().map(|(due, _)| *due);
        match (std::mem::replace(&mut waiting.timer, first), first) {
            (None, _) => Timer::Start,
            (Some(set), Some(first)) if first < set => Timer::Hurry,
            _ => Timer::Keep,
        }
    }

    fn wake(&self, now_ms: u64, topics: BTreeMap<(u64, usize), Arc<TopicLog<P>>>) {
        let topics: SmallVec<[Arc<TopicLog<P>>; 1]> = topics.into_values().collect();
        for topic in &topics {
            // An append that found it gathered is seen by the readers that are woken after this.
            topic.watchers.lock().pace.begin(now_ms, self.linger_ms);
        }
        Wakes { topics }.wake();
    }
}

impl<P> fmt::Debug for Gathered<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathered").field("linger_ms", &self.linger_ms).finish_non_exhaustive()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(downlink_loom)))]
mod tests {
    use super::*;

    const LINGER: u32 = 10;

    #[test]
    fn what_follows_within_the_linger_waits_for_its_end() {
        let mut pace = Pace::default();
        assert_eq!(pace.decide(1_000, LINGER), Due::Now);
        assert_eq!(pace.decide(1_001, LINGER), Due::In(9));
        assert_eq!(pace.decide(1_002, LINGER), Due::Settled);
        assert_eq!(pace.decide(1_010, LINGER), Due::Settled, "about to be woken");
        pace.begin(1_010, LINGER);
        assert_eq!(pace.decide(1_019, LINGER), Due::In(1));
        pace.begin(1_020, LINGER);
        assert_eq!(pace.decide(1_030, LINGER), Due::Now, "after a pause");
    }

    #[test]
    fn who_should_have_woken_is_not_waited_for() {
        let mut pace = Pace::default();
        assert_eq!(pace.decide(1_000, LINGER), Due::Now);
        assert_eq!(pace.decide(1_000, LINGER), Due::In(10));
        assert_eq!(pace.decide(1_020, LINGER), Due::Settled);
        assert_eq!(pace.decide(1_021, LINGER), Due::Overdue);
    }

    #[test]
    fn the_number_begins_again_after_24_days() {
        let end = u64::from(GATHERED);
        for start in [end - 5, end, end + 5, 2 * end - 1, 2 * end] {
            let mut pace = Pace::default();
            pace.begin(start, LINGER);
            assert_eq!(pace.decide(start + 3, LINGER), Due::In(7), "{start}");
            assert_eq!(pace.decide(start + 9, LINGER), Due::Settled);
            pace.begin(start + 10, LINGER);
            assert_eq!(pace.decide(start + 20, LINGER), Due::Now);
        }
    }
}
