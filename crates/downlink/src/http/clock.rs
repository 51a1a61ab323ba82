//! The one timer of a response body.
//!
//! It waits for whichever comes first: the end of a silence, or the end of the connection. Traffic
//! only notes the time; the timer is set again when it fires, so an event costs no timer
//! operation. The timer is made at the first wait and a body that never waits has none.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{KeepAlive, Spread};

/// When a response must end: an instant, or a time of day.
///
/// A time of day is converted once, when it is given; a later change of the system's clock moves
/// nothing.
#[derive(Clone, Copy, Debug)]
pub struct Expiry(Option<Instant>);

impl Expiry {
    /// After a duration; one beyond all reckoning is never.
    fn after(duration: Duration) -> Self {
        Self(Instant::now().checked_add(duration))
    }
}

impl From<std::time::Instant> for Expiry {
    fn from(at: std::time::Instant) -> Self {
        Self(Some(at.into()))
    }
}

impl From<Instant> for Expiry {
    fn from(at: Instant) -> Self {
        Self(Some(at))
    }
}

impl From<SystemTime> for Expiry {
    fn from(at: SystemTime) -> Self {
        Self::after(at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO))
    }
}

/// What the clock has to say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tick {
    /// Nothing was sent for so long that a keep-alive is due.
    Silence,
    /// The connection has reached its end.
    End,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Clock {
    silence: Option<Spread>,
    last_traffic: Instant,
    /// The silence now waited for; drawn anew after each keep-alive.
    silence_max: Duration,
    end: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    pub(super) fn new(keep_alive: &KeepAlive, end: Option<Instant>) -> Self {
        let silence = keep_alive.silence();
        let silence_max = silence.map_or(Duration::ZERO, |spread| spread.pick());
        Self { silence, last_traffic: Instant::now(), silence_max, end, timer: None }
    }

    /// Notes that something was sent now.
    pub(super) fn saw_traffic(&mut self) {
        if self.silence.is_some() {
            self.last_traffic = Instant::now();
        }
    }

    /// True once the end is reached, without waiting for it.
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some_and(|end| end <= Instant::now())
    }

    /// Waits for the next tick; for ever if nothing is to come.
    pub(super) fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Tick> {
        loop {
            let Some(next) = self.next() else { return Poll::Pending };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next)));
            ready!(timer.as_mut().poll(cx));
            if self.has_ended() {
                return Poll::Ready(Tick::End);
            }
            if self.silence_ends().is_some_and(|end| end <= Instant::now()) {
                self.silence_max = self.silence.map_or(Duration::ZERO, |spread| spread.pick());
                self.last_traffic = Instant::now();
                self.set_timer();
                return Poll::Ready(Tick::Silence);
            }
            self.set_timer();
        }
    }

    fn set_timer(&mut self) {
        if let (Some(next), Some(timer)) = (self.next(), &mut self.timer) {
            timer.as_mut().reset(next);
        }
    }

    fn next(&self) -> Option<Instant> {
        self.silence_ends().into_iter().chain(self.end).min()
    }

    fn silence_ends(&self) -> Option<Instant> {
        self.silence.and_then(|_| self.last_traffic.checked_add(self.silence_max))
    }
}

/// The earlier of an expiry and the end of an age that starts now.
pub(super) fn end_of(expiry: Option<Expiry>, age: Option<Spread>) -> Option<Instant> {
    let aged = age.and_then(|age| Expiry::after(age.pick()).0);
    expiry.and_then(|expiry| expiry.0).into_iter().chain(aged).min()
}
