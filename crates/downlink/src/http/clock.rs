//! The one timer of a response body.
//!
//! It waits for whichever comes first: the end of a silence, or the end of the connection. Traffic
//! only notes the time; the timer is set again when it fires, so an event costs no timer
//! operation. The timer is made at the first wait and a body that never waits has none; nor has
//! one whose server keeps the time for it (see `turn`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep, sleep_until};

use super::Spread;
use super::keep_alive::Pace;
use super::moment::{Moment, Now};
use super::turn;

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
    last_traffic: Moment,
    pace: Pace,
    /// The silence now waited for, in milliseconds; drawn anew after each keep-alive; 0 if none is.
    silence_max: u32,
    /// `None` where the response has no end and the server keeps the time.
    rest: Option<Box<Rest>>,
}

/// What few clocks have.
#[derive(Debug)]
struct Rest {
    /// When the response ends.
    end: Moment,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clock {
    pub(super) fn new(pace: Pace, end: Option<Instant>) -> Self {
        let rest = end.map(|end| Box::new(Rest { end: Moment::at(end), timer: None }));
        Self { last_traffic: Now::look().moment(), pace, silence_max: draw(pace), rest }
    }

    /// The silence after which a keep-alive is due, before the spread; `None` if none is.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.pace.interval()
    }

    /// Notes that something was sent now.
    pub(super) fn saw_traffic(&mut self, cx: &Context<'_>) {
        if self.silence_max > 0 {
            self.last_traffic = turn::now(cx).moment();
        }
    }

    /// True once the end is reached, without waiting for it.
    pub(super) fn has_ended(&self, cx: &Context<'_>) -> bool {
        self.rest.as_ref().is_some_and(|rest| turn::now(cx).leaves_nothing_until(rest.end))
    }

    /// When the response ends.
    fn end(&self) -> Moment {
        self.rest.as_ref().map_or(Moment::NEVER, |rest| rest.end)
    }

    /// Waits for the next tick; for ever if nothing is to come.
    pub(super) fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Tick> {
        loop {
            let (end, silence_ends) = (self.end(), self.silence_ends());
            let next = silence_ends.min(end);
            let now = turn::now(cx);
            if now.leaves_nothing_until(end) {
                return Poll::Ready(Tick::End);
            }
            if now.has_reached(silence_ends) {
                self.silence_max = draw(self.pace);
                self.last_traffic = now.moment();
                return Poll::Ready(Tick::Silence);
            }
            ready!(self.poll_wait(next, cx));
        }
    }

    /// Waits for a time, by the server if that polls the body itself, else by a timer. The timer may
    /// complete at the earlier time that it was last set for.
    fn poll_wait(&mut self, until: Moment, cx: &mut Context<'_>) -> Poll<()> {
        if turn::wake_at(cx, until) {
            return Poll::Pending;
        }
        let Some(until) = until.instant() else { return Poll::Pending };
        let none = || Box::new(Rest { end: Moment::NEVER, timer: None });
        let rest = self.rest.get_or_insert_with(none);
        let timer = rest.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.is_elapsed() {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }

    fn silence_ends(&self) -> Moment {
        match self.silence_max {
            0 => Moment::NEVER,
            silence_max => self.last_traffic.after(silence_max),
        }
    }
}

/// How long the next silence may be, in milliseconds; one of 49 days is the longest.
fn draw(pace: Pace) -> u32 {
    let silence = pace.silence().map_or(Duration::ZERO, |spread| spread.pick());
    u32::try_from(silence.as_millis()).unwrap_or(u32::MAX)
}

/// The earlier of an expiry and the end of an age that starts now.
pub(super) fn end_of(expiry: Option<Expiry>, age: Option<Spread>) -> Option<Instant> {
    let aged = age.and_then(|age| Expiry::after(age.pick()).0);
    expiry.and_then(|expiry| expiry.0).into_iter().chain(aged).min()
}
