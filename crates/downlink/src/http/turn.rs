//! What a body and a server that polls it without hyper between them tell each other.
//!
//! The server takes one body after the other; while it polls one, that body may ask to be polled
//! again at a time, which spares it a timer of its own, and say which bodies it belongs with. A
//! body finds out by the waker that it is polled with: inside something that has wakers of its
//! own, such as a select over several streams, it keeps its own timer, as in any other server.

use std::cell::Cell;
use std::task::{Context, Waker};

use tokio::time::Instant;

/// What a body asked for while it was polled.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Asked {
    /// Poll it again at this time, if nothing wakes it before.
    #[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "only `serve` gives turns"))]
    pub(crate) wake_at: Option<Instant>,
    /// Bodies of one lane take turns with those of others.
    pub(crate) lane: Option<u32>,
}

#[derive(Clone, Copy)]
struct Turn {
    /// The data of the waker that the body was given.
    waker: usize,
    now: Instant,
    asked: Asked,
}

thread_local! {
    /// The body that is polled on this thread.
    static TURN: Cell<Option<Turn>> = const { Cell::new(None) };
}

/// Ends the turn also where polling panics.
#[cfg(feature = "serve")]
struct Ending;

#[cfg(feature = "serve")]
impl Drop for Ending {
    fn drop(&mut self) {
        TURN.set(None);
    }
}

/// Polls a body by a server of this kind, and says what it asked for.
#[cfg(feature = "serve")]
pub(crate) fn in_turn<T>(
    cx: &mut Context<'_>,
    now: Instant,
    poll: impl FnOnce(&mut Context<'_>) -> T,
) -> (T, Asked) {
    TURN.set(Some(Turn { waker: identity(cx.waker()), now, asked: Asked::default() }));
    let ending = Ending;
    let polled = poll(cx);
    let asked = TURN.get().map_or(Asked::default(), |turn| turn.asked);
    drop(ending);
    (polled, asked)
}

/// Whether the body is polled by such a server, which writes several frames at once without a
/// copy.
pub(super) fn is_direct(cx: &Context<'_>) -> bool {
    current(cx).is_some()
}

/// The time, as this turn has it.
pub(super) fn now(cx: &Context<'_>) -> Instant {
    current(cx).map_or_else(Instant::now, |turn| turn.now)
}

/// Asks to be polled again at a time; false if the body has to see to that itself.
pub(crate) fn wake_at(cx: &Context<'_>, at: Instant) -> bool {
    let Some(mut turn) = current(cx) else { return false };
    turn.asked.wake_at = Some(turn.asked.wake_at.map_or(at, |other| other.min(at)));
    TURN.set(Some(turn));
    true
}

/// Says which bodies this one takes turns with: those of the same lane.
pub(crate) fn take_lane(lane: u32) {
    if let Some(mut turn) = TURN.get() {
        turn.asked.lane = Some(lane);
        TURN.set(Some(turn));
    }
}

fn current(cx: &Context<'_>) -> Option<Turn> {
    TURN.get().filter(|turn| turn.waker == identity(cx.waker()))
}

fn identity(waker: &Waker) -> usize {
    waker.data().addr()
}

#[cfg(all(test, feature = "serve"))]
mod tests {
    use std::sync::Arc;
    use std::task::Wake;
    use std::time::Duration;

    use super::*;

    struct Ignored;

    impl Wake for Ignored {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn earliest_time_counts() {
        let waker = Waker::from(Arc::new(Ignored));
        let mut cx = Context::from_waker(&waker);
        let now = Instant::now();
        let ((), asked) = in_turn(&mut cx, now, |cx| {
            for after in [3, 1, 2] {
                assert!(wake_at(cx, now + Duration::from_secs(after)));
            }
            take_lane(7);
        });
        let second = now + Duration::from_secs(1);
        assert_eq!(asked, Asked { wake_at: Some(second), lane: Some(7) });
        assert!(!wake_at(&cx, now), "the turn is over");
    }

    #[test]
    fn body_behind_another_waker_is_on_its_own() {
        let (ours, other) = (Waker::from(Arc::new(Ignored)), Waker::from(Arc::new(Ignored)));
        let now = Instant::now();
        let (direct, asked) = in_turn(&mut Context::from_waker(&ours), now, |_| {
            let cx = Context::from_waker(&other);
            assert!(!wake_at(&cx, now));
            is_direct(&cx)
        });
        assert!(!direct);
        assert_eq!(asked, Asked::default());
    }

    #[test]
    fn turn_ends_with_a_panic() {
        let waker = Waker::from(Arc::new(Ignored));
        let mut cx = Context::from_waker(&waker);
        let panicking = std::panic::AssertUnwindSafe(|| {
            in_turn(&mut cx, Instant::now(), |_| panic!("as a user's body may"))
        });
        assert!(std::panic::catch_unwind(panicking).is_err());
        assert!(!is_direct(&cx));
    }
}
