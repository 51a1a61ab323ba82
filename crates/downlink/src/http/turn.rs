//! What a body and a server that polls it without hyper between them tell each other.
//!
//! The server takes one body after the other; while it polls one, that body may ask to be polled
//! again at a time, which spares it a timer of its own, say which bodies it belongs with, ask what
//! time it is, which the server looks at once for many, and have itself woken by its key. A body finds
//! out by the waker that it is polled with: inside something that has wakers of its own, such as a
//! select over several streams, it keeps its own timer and leaves that waker, as in any other server.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Waker};

use downlink_log::WakeMany;

use super::moment::{Moment, Now};

/// What a body asked for while it was polled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Asked {
    /// Poll it again at this time, if nothing wakes it before.
    #[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "only `serve` gives turns"))]
    pub(crate) wake_at: Moment,
    /// Bodies of one lane take turns with those of others.
    pub(crate) lane: Option<u32>,
}

impl Asked {
    /// What a body asks for that asks for nothing.
    pub(crate) const NOTHING: Self = Self { wake_at: Moment::NEVER, lane: None };
}

/// The turns on this thread, and the body that has one.
struct Turn {
    /// The waker that the body was given; `None` while none is polled.
    waker: Cell<Option<Identity>>,
    /// The key of the body.
    key: Cell<u32>,
    /// When the turns began that are given together.
    now: Cell<Option<Now>>,
    /// The time of day then in milliseconds, once a body has asked for it.
    time_of_day: Cell<Option<u64>>,
    asked: Cell<Asked>,
}

thread_local! {
    static TURN: Turn = const {
        Turn {
            waker: Cell::new(None),
            key: Cell::new(0),
            now: Cell::new(None),
            time_of_day: Cell::new(None),
            asked: Cell::new(Asked::NOTHING),
        }
    };
}

thread_local! {
    /// Who wakes bodies by their keys, while turns are given. Apart, since it has to be dropped.
    static MANY: Cell<Option<Arc<dyn WakeMany>>> = const { Cell::new(None) };
}

/// Ends the turn also where polling panics.
#[cfg(feature = "serve")]
struct Ending;

#[cfg(feature = "serve")]
impl Drop for Ending {
    fn drop(&mut self) {
        TURN.with(|turn| turn.waker.set(None));
    }
}

/// The turns that are given together on this thread, until it is dropped.
#[cfg(feature = "serve")]
#[derive(Debug)]
#[must_use = "the turns end when it is dropped"]
pub(crate) struct Turns(());

#[cfg(feature = "serve")]
impl Drop for Turns {
    fn drop(&mut self) {
        drop(MANY.take());
    }
}

/// Has the turns that follow on this thread be at one time, which is looked at once for all of them,
/// and their bodies be woken by their keys.
#[cfg(feature = "serve")]
pub(crate) fn begin_turns(now: Now, many: Arc<dyn WakeMany>) -> Turns {
    TURN.with(|turn| {
        turn.now.set(Some(now));
        turn.time_of_day.set(None);
    });
    MANY.set(Some(many));
    Turns(())
}

/// Polls the body of this key by a server of this kind, and says what it asked for.
#[cfg(feature = "serve")]
pub(crate) fn in_turn<T>(
    key: u32,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> T,
) -> (T, Asked) {
    TURN.with(|turn| {
        turn.waker.set(Some(identity(cx.waker())));
        turn.key.set(key);
        turn.asked.set(Asked::NOTHING);
    });
    let ending = Ending;
    let polled = poll(cx);
    drop(ending);
    (polled, TURN.with(|turn| turn.asked.get()))
}

/// Whether the body is polled by such a server, which writes several frames at once without a
/// copy.
pub(super) fn is_direct(cx: &Context<'_>) -> bool {
    TURN.with(|turn| is_its(turn, cx))
}

/// The time, as this turn has it.
pub(super) fn now(cx: &Context<'_>) -> Now {
    let now = TURN.with(|turn| turn.now.get().filter(|_| is_its(turn, cx)));
    now.unwrap_or_else(Now::look)
}

/// The time of day in milliseconds, as this turn has it, or as it is looked at.
pub(crate) fn time_of_day(look: impl FnOnce() -> u64) -> u64 {
    TURN.with(|turn| {
        if turn.waker.get().is_none() {
            return look();
        }
        let time = turn.time_of_day.get().unwrap_or_else(look);
        turn.time_of_day.set(Some(time));
        time
    })
}

/// Asks to be polled again at a time; false if the body has to see to that itself.
pub(crate) fn wake_at(cx: &Context<'_>, at: Moment) -> bool {
    TURN.with(|turn| {
        let is_its = is_its(turn, cx);
        if is_its {
            let asked = turn.asked.get();
            turn.asked.set(Asked { wake_at: asked.wake_at.min(at), ..asked });
        }
        is_its
    })
}

/// Offers whoever is polled to be woken by the key of its body; false if that is not possible, or was not
/// taken.
#[must_use = "whoever is not woken by its key has to leave a waker"]
pub(crate) fn be_woken(
    cx: &Context<'_>,
    register: impl FnOnce(&Arc<dyn WakeMany>, u32) -> bool,
) -> bool {
    let Some(key) = TURN.with(|turn| is_its(turn, cx).then(|| turn.key.get())) else {
        return false;
    };
    MANY.with(|turns| {
        // Who is asked to register meanwhile leaves a waker.
        let Some(many) = turns.take() else { return false };
        let registered = register(&many, key);
        turns.set(Some(many));
        registered
    })
}

/// Says which bodies this one takes turns with: those of the same lane.
pub(crate) fn take_lane(lane: u32) {
    TURN.with(|turn| {
        if turn.waker.get().is_some() {
            turn.asked.set(Asked { lane: Some(lane), ..turn.asked.get() });
        }
    });
}

/// Whether the turn is that of the body that was given this context.
fn is_its(turn: &Turn, cx: &Context<'_>) -> bool {
    turn.waker.get() == Some(identity(cx.waker()))
}

/// What tells wakers apart.
type Identity = (usize, usize);

fn identity(waker: &Waker) -> Identity {
    (waker.data().addr(), std::ptr::from_ref(waker.vtable()).addr())
}

#[cfg(all(test, feature = "serve"))]
mod tests {
    use std::task::Wake;

    use parking_lot::Mutex;

    use super::*;

    /// Notes which keys were told.
    #[derive(Default)]
    struct Told(Mutex<Vec<u32>>);

    impl WakeMany for Told {
        fn wake_many(&self, keys: &[u32]) {
            self.0.lock().extend_from_slice(keys);
        }
    }

    struct Ignored;

    impl Wake for Ignored {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn earliest_time_counts() {
        let waker = Waker::from(Arc::new(Ignored));
        let mut cx = Context::from_waker(&waker);
        let now = Now::look();
        let ((), asked) = in_turn(7, &mut cx, |cx| {
            for after in [3_000, 1_000, 2_000] {
                assert!(wake_at(cx, now.moment().after(after)));
            }
            take_lane(7);
        });
        assert_eq!(asked, Asked { wake_at: now.moment().after(1_000), lane: Some(7) });
        assert!(!wake_at(&cx, now.moment()), "the turn is over");
    }

    #[test]
    fn body_behind_another_waker_is_on_its_own() {
        let (ours, other) = (Waker::from(Arc::new(Ignored)), Waker::from(Arc::new(Ignored)));
        let now = Now::look();
        let (direct, asked) = in_turn(7, &mut Context::from_waker(&ours), |_| {
            let cx = Context::from_waker(&other);
            assert!(!wake_at(&cx, now.moment()));
            is_direct(&cx)
        });
        assert!(!direct);
        assert_eq!(asked, Asked::NOTHING);
    }

    #[test]
    fn time_of_day_is_looked_at_once_for_the_turns_that_are_given_together() {
        let waker = Waker::from(Arc::new(Ignored));
        let mut cx = Context::from_waker(&waker);
        let mut turn = |at| in_turn(7, &mut cx, |_| time_of_day(|| at)).0;
        let begin = || begin_turns(Now::look(), Arc::new(Told::default()));
        let _turns = begin();
        assert_eq!([turn(1), turn(2)], [1, 1]);
        let _turns = begin();
        assert_eq!([turn(3), turn(4)], [3, 3]);
        assert_eq!([time_of_day(|| 5), time_of_day(|| 6)], [5, 6], "nobody's turn");
    }

    #[test]
    fn whoever_is_polled_by_a_server_is_woken_by_its_key() {
        let (ours, other) = (Waker::from(Arc::new(Ignored)), Waker::from(Arc::new(Ignored)));
        let mut cx = Context::from_waker(&ours);
        let told = Arc::new(Told::default());
        let wake = |many: &Arc<dyn WakeMany>, key| {
            many.wake_many(&[key]);
            true
        };
        let many: Arc<dyn WakeMany> = told.clone();
        let turns = begin_turns(Now::look(), many);
        assert!(!be_woken(&cx, wake), "nobody's turn");
        in_turn(7, &mut cx, |cx| {
            assert!(be_woken(cx, wake) && !be_woken(cx, |_, _| false));
            assert!(!be_woken(&Context::from_waker(&other), wake), "by its own waker");
        });
        drop(turns);
        in_turn(8, &mut cx, |cx| assert!(!be_woken(cx, wake), "no turns are given"));
        assert_eq!(*told.0.lock(), [7]);
        assert_eq!(Arc::strong_count(&told), 1, "nothing is kept");
    }

    #[test]
    fn turn_ends_with_a_panic() {
        let waker = Waker::from(Arc::new(Ignored));
        let mut cx = Context::from_waker(&waker);
        let panicking = std::panic::AssertUnwindSafe(|| {
            in_turn(7, &mut cx, |_| panic!("as a user's body may"))
        });
        assert!(std::panic::catch_unwind(panicking).is_err());
        assert!(!is_direct(&cx));
    }
}
