//! The protocol between a driver and the bodies that it polls.
//!
//! A driver (see `serve::direct`) is a task that polls the bodies of many streams. Such a body is
//! *driven*. A driven body needs no timer and no clock of its own, and registers no waker with
//! publishers. Instead, its driver provides the time and wakes it. Drivers and bodies do not know
//! each other's types: any `http_body::Body` can be driven, and middleware may wrap a body. So a
//! driver and its bodies communicate through a thread-local, which is set during each poll.
//!
//! # What the driver calls, in order
//!
//! 1. [`PollRound::begin`], with the time and an object that wakes the driver's streams by their
//!    keys. The key of a stream is its number at the driver.
//! 2. [`PollRound::prefetch`], once for all bodies that the driver is about to poll. During this
//!    call, the driver calls `is_end_stream` of each body. The body then reads the memory that its
//!    poll will need, and changes nothing. The driver uses `is_end_stream` because middleware that
//!    wraps a body passes this call on.
//! 3. [`PollRound::poll`], once for each body. In this call, the driver polls the body while the
//!    body is ready. The call returns the [`Schedule`] of the body (the time and the queue of its
//!    next poll).
//! 4. The driver drops the round before it waits for anything.
//!
//! # Functions that a body may call while it is polled
//!
//! | call | effect |
//! |---|---|
//! | [`is_driven`] | if true, the driver joins frames itself, so the body yields them one by one |
//! | [`now`], [`time_of_day`] | the time of the round, read once for all its bodies |
//! | [`wake_at`] | the driver polls the body again at that time, so the body needs no timer |
//! | [`register_key`] | a publisher wakes the body by its key, so the body registers no waker |
//! | [`set_lane`] | the body waits for its polls in this lane (a queue of the driver) |
//!
//! If the body is not driven, these calls return the real time, or return `false` to tell the body
//! that it needs its own timer or waker.
//!
//! # How bodies are woken
//!
//! A publisher wakes bodies by their keys, through the round's `WakeMany`, which puts the keys into
//! the driver's mailbox (the list of the streams that it must poll). The wakers of the bodies also
//! put the keys into this mailbox. If a body has passed a time to `wake_at`, the driver polls the
//! body at this time without a wake-up.
//!
//! A body recognizes its driver by the waker in its context. If a combinator, such as a `select`
//! over streams, polls the body with another waker, the body counts as not driven, and uses its own
//! timer and waker.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Waker};

use downlink_log::WakeMany;

use super::moment::{Moment, Now};

/// When a body is polled next, and in which lane (a queue of the driver) it waits for this poll.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Schedule {
    /// The body is polled at this time at the latest.
    pub(crate) wake_at: Moment,
    /// The new lane of the body, if it has set one.
    pub(crate) lane: Option<u32>,
}

impl Schedule {
    /// The schedule of a body that has called neither `wake_at` nor `set_lane`.
    pub(crate) const NONE: Self = Self { wake_at: Moment::NEVER, lane: None };
}

/// The current round of this thread, and the body that is being polled in it.
struct Polling {
    /// The waker with which the body is polled. `None` between polls.
    waker: Cell<Option<WakerIdentity>>,
    key: Cell<u32>,
    schedule: Cell<Schedule>,
    /// The time at which the round began.
    now: Cell<Option<Now>>,
    /// The time of day of the round in milliseconds. `None` until a body requests it.
    time_of_day: Cell<Option<u64>>,
    is_prefetching: Cell<bool>,
}

thread_local! {
    static POLLING: Polling = const {
        Polling {
            waker: Cell::new(None),
            key: Cell::new(0),
            schedule: Cell::new(Schedule::NONE),
            now: Cell::new(None),
            time_of_day: Cell::new(None),
            is_prefetching: Cell::new(false),
        }
    };
    /// Wakes bodies by their keys. This is not a part of `POLLING`, because an `Arc` has a
    /// destructor. A thread-local without a destructor, such as `POLLING`, is cheaper to use.
    static WAKE_MANY: Cell<Option<Arc<dyn WakeMany>>> = const { Cell::new(None) };
}

/// A round: a driver polls several bodies on this thread, and gives all of them the same time.
/// Dropping this value ends the round.
#[derive(Debug)]
#[must_use = "the round ends when it is dropped"]
pub(crate) struct PollRound(());

impl PollRound {
    /// Begins a round. The bodies that are polled in it get their time from the round, and register
    /// their keys with `wake_many`.
    pub(crate) fn begin(now: Now, wake_many: Arc<dyn WakeMany>) -> Self {
        POLLING.with(|polling| {
            polling.now.set(Some(now));
            polling.time_of_day.set(None);
        });
        WAKE_MANY.set(Some(wake_many));
        Self(())
    }

    /// Runs code that calls `is_end_stream` of the bodies that are polled next. A body then reads
    /// the memory that its poll will need.
    pub(crate) fn prefetch(&self, bodies: impl FnOnce()) {
        let ending = OnDrop(|polling| polling.is_prefetching.set(false));
        POLLING.with(|polling| polling.is_prefetching.set(true));
        bodies();
        drop(ending);
    }

    /// Polls the body that has this key.
    pub(crate) fn poll<T>(
        &self,
        key: u32,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> T,
    ) -> (T, Schedule) {
        POLLING.with(|polling| {
            polling.waker.set(Some(identity(cx.waker())));
            polling.key.set(key);
            polling.schedule.set(Schedule::NONE);
        });
        let ending = OnDrop(|polling| polling.waker.set(None));
        let polled = poll(cx);
        drop(ending);
        (polled, POLLING.with(|polling| polling.schedule.get()))
    }
}

impl Drop for PollRound {
    fn drop(&mut self) {
        drop(WAKE_MANY.take());
    }
}

/// Restores the thread's state, even if a body panics.
struct OnDrop(fn(&Polling));

impl Drop for OnDrop {
    fn drop(&mut self) {
        POLLING.with(self.0);
    }
}

/// Whether a driver is prefetching. The driver then calls `is_end_stream` of each body that it is
/// about to poll, so that the body reads the memory that its poll will need.
pub(super) fn is_prefetching() -> bool {
    POLLING.with(|polling| polling.is_prefetching.get())
}

/// Whether a driver polls the body with this context.
pub(super) fn is_driven(cx: &Context<'_>) -> bool {
    POLLING.with(|polling| polling.is_of(cx))
}

/// The time of the round, or the real time if the body is not driven.
pub(super) fn now(cx: &Context<'_>) -> Now {
    let now = POLLING.with(|polling| polling.now.get().filter(|_| polling.is_of(cx)));
    now.unwrap_or_else(Now::look)
}

/// The time of day of the round in milliseconds, or the result of `look` if no driver polls a body.
pub(crate) fn time_of_day(look: impl FnOnce() -> u64) -> u64 {
    POLLING.with(|polling| {
        if polling.waker.get().is_none() {
            return look();
        }
        let time = polling.time_of_day.get().unwrap_or_else(look);
        polling.time_of_day.set(Some(time));
        time
    })
}

/// Requests a poll at the time `at`. Returns false if the body is not driven and needs its own
/// timer.
pub(crate) fn wake_at(cx: &Context<'_>, at: Moment) -> bool {
    POLLING.with(|polling| {
        let is_driven = polling.is_of(cx);
        if is_driven {
            let schedule = polling.schedule.get();
            polling.schedule.set(Schedule { wake_at: schedule.wake_at.min(at), ..schedule });
        }
        is_driven
    })
}

/// Registers the key of the body with the function `register`. Returns false if the body is not
/// driven or if `register` returned false. The body must then register a waker instead.
#[must_use = "if this returns `false`, register a waker"]
pub(crate) fn register_key(
    cx: &Context<'_>,
    register: impl FnOnce(&Arc<dyn WakeMany>, u32) -> bool,
) -> bool {
    let Some(key) = POLLING.with(|polling| polling.is_of(cx).then(|| polling.key.get())) else {
        return false;
    };
    WAKE_MANY.with(|round| {
        // If `register` itself causes another registration, this inner registration returns false
        // here, and its body must register a waker.
        let Some(wake_many) = round.take() else { return false };
        let registered = register(&wake_many, key);
        round.set(Some(wake_many));
        registered
    })
}

/// Puts the polled body into a lane.
pub(crate) fn set_lane(lane: u32) {
    POLLING.with(|polling| {
        if polling.waker.get().is_some() {
            polling.schedule.set(Schedule { lane: Some(lane), ..polling.schedule.get() });
        }
    });
}

impl Polling {
    /// Whether the context has the waker with which the driver polls the body.
    fn is_of(&self, cx: &Context<'_>) -> bool {
        self.waker.get() == Some(identity(cx.waker()))
    }
}

/// The data and the functions of a waker, which distinguish it from other wakers.
type WakerIdentity = (usize, usize);

fn identity(waker: &Waker) -> WakerIdentity {
    (waker.data().addr(), std::ptr::from_ref(waker.vtable()).addr())
}

#[cfg(all(test, feature = "serve"))]
mod tests {
    use std::task::Wake;

    use parking_lot::Mutex;

    use super::*;

    /// Records the keys that were woken.
    #[derive(Default)]
    struct WokenKeys(Mutex<Vec<u32>>);

    impl WakeMany for WokenKeys {
        fn wake_many(&self, keys: &[u32]) {
            self.0.lock().extend_from_slice(keys);
        }
    }

    struct Ignored;

    impl Wake for Ignored {
        fn wake(self: Arc<Self>) {}
    }

    fn begin() -> PollRound {
        PollRound::begin(Now::look(), Arc::new(WokenKeys::default()))
    }

    #[test]
    fn the_earliest_requested_time_counts() {
        let waker = Waker::from(Arc::new(Ignored));
        let mut cx = Context::from_waker(&waker);
        let now = Now::look();
        let ((), schedule) = begin().poll(7, &mut cx, |cx| {
            for after in [3_000, 1_000, 2_000] {
                assert!(wake_at(cx, now.moment().after(after)));
            }
            set_lane(7);
        });
        assert_eq!(schedule, Schedule { wake_at: now.moment().after(1_000), lane: Some(7) });
        assert!(!wake_at(&cx, now.moment()), "the poll is over");
    }

    #[test]
    fn a_body_with_another_waker_is_not_driven() {
        let (ours, other) = (Waker::from(Arc::new(Ignored)), Waker::from(Arc::new(Ignored)));
        let now = Now::look();
        let (driven, schedule) = begin().poll(7, &mut Context::from_waker(&ours), |_| {
            let cx = Context::from_waker(&other);
            assert!(!wake_at(&cx, now.moment()));
            is_driven(&cx)
        });
        assert!(!driven);
        assert_eq!(schedule, Schedule::NONE);
    }

    #[test]
    fn the_time_of_day_is_read_once_for_a_round() {
        let waker = Waker::from(Arc::new(Ignored));
        let mut cx = Context::from_waker(&waker);
        let mut poll = |round: &PollRound, at| round.poll(7, &mut cx, |_| time_of_day(|| at)).0;
        let round = begin();
        assert_eq!([poll(&round, 1), poll(&round, 2)], [1, 1]);
        let round = begin();
        assert_eq!([poll(&round, 3), poll(&round, 4)], [3, 3]);
        assert_eq!([time_of_day(|| 5), time_of_day(|| 6)], [5, 6], "no body is polled");
    }

    #[test]
    fn a_driven_body_is_woken_by_its_key() {
        let (ours, other) = (Waker::from(Arc::new(Ignored)), Waker::from(Arc::new(Ignored)));
        let mut cx = Context::from_waker(&ours);
        let woken = Arc::new(WokenKeys::default());
        let wake = |many: &Arc<dyn WakeMany>, key| {
            many.wake_many(&[key]);
            true
        };
        let many: Arc<dyn WakeMany> = woken.clone();
        let round = PollRound::begin(Now::look(), many);
        assert!(!register_key(&cx, wake), "no body is polled");
        round.poll(7, &mut cx, |cx| {
            assert!(register_key(cx, wake) && !register_key(cx, |_, _| false));
            assert!(!register_key(&Context::from_waker(&other), wake), "another waker is used");
        });
        drop(round);
        assert!(!register_key(&cx, wake), "the round is over");
        assert_eq!(*woken.0.lock(), [7]);
        assert_eq!(Arc::strong_count(&woken), 1, "the round has dropped its reference");
    }

    #[test]
    fn a_panic_ends_the_poll() {
        let waker = Waker::from(Arc::new(Ignored));
        let mut cx = Context::from_waker(&waker);
        let panicking = std::panic::AssertUnwindSafe(|| {
            begin().poll(7, &mut cx, |_| panic!("a user's body may panic here"))
        });
        assert!(std::panic::catch_unwind(panicking).is_err());
        assert!(!is_driven(&cx));
    }

    #[test]
    fn a_panic_ends_the_prefetch() {
        let round = begin();
        round.prefetch(|| assert!(is_prefetching()));
        assert!(!is_prefetching());
        let panicking =
            std::panic::AssertUnwindSafe(|| round.prefetch(|| panic!("a body may panic here")));
        assert!(std::panic::catch_unwind(panicking).is_err());
        assert!(!is_prefetching());
    }
}
