//! The one timer of a response body.
//!
//! The timer waits for the end of a silence (the time after the last bytes of the body) or for the
//! end of the connection, whichever comes first. When the body sends something, it only records the
//! time. The timer is set again only when it fires, so sending an event needs no timer operation.
//! The first wait creates the timer. A body that never waits has no timer. A body that a driver
//! polls has no timer either, because the driver keeps the time (see `driven`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep, sleep_until};

use super::driven;
use super::keep_alive::Interval;
use super::moment::{Moment, Now};
use super::spread::Spread;

/// When a response must end: an instant, or a time of day.
///
/// A time of day is converted to an instant at once, so later changes of the system's clock have no
/// effect.
#[derive(Clone, Copy, Debug)]
pub struct Expiry(Option<Instant>);

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
        let left = at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
        Self(Instant::now().checked_add(left))
    }
}

/// The event that a clock has waited for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tick {
    /// The silence has lasted so long that a keep-alive is due.
    Silence,
    /// The connection has reached its end.
    End,
}

/// The clock of one response body.
#[derive(Debug)]
pub(super) struct BodyClock {
    last_traffic: Moment,
    interval: Interval,
    /// How long the connection may be silent before the next keep-alive, in milliseconds. The value
    /// is picked at random again after each keep-alive. 0 if keep-alives are off.
    silence_max: u32,
    /// `None` if the response has no end and has not needed a timer yet.
    uncommon: Option<Box<EndAndTimer>>,
}

/// The end of a response, and the timer of a body without a driver. Few bodies have an end or need
/// a timer.
#[derive(Debug)]
struct EndAndTimer {
    /// When the response ends.
    end: Moment,
    timer: Option<Pin<Box<Sleep>>>,
}

impl BodyClock {
    pub(super) fn new(interval: Interval, end: Option<Instant>) -> Self {
        let uncommon = end.map(|end| Box::new(EndAndTimer { end: Moment::at(end), timer: None }));
        Self { last_traffic: Now::look().moment(), interval, silence_max: draw(interval), uncommon }
    }

    /// The configured silence before a keep-alive, without the random part. `None` if keep-alives
    /// are off.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.interval.get()
    }

    /// Records that the body has sent something now.
    pub(super) fn note_traffic(&mut self, cx: &Context<'_>) {
        if self.silence_max > 0 {
            self.last_traffic = driven::now(cx).moment();
        }
    }

    /// Whether the response has reached its end. Does not wait for the end.
    pub(super) fn has_ended(&self, cx: &Context<'_>) -> bool {
        self.uncommon.as_ref().is_some_and(|it| driven::now(cx).has_nearly_reached(it.end))
    }

    /// When the response ends.
    fn end(&self) -> Moment {
        self.uncommon.as_ref().map_or(Moment::NEVER, |uncommon| uncommon.end)
    }

    /// Waits for the next tick. Waits for ever if the response has neither keep-alives nor an end.
    pub(super) fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Tick> {
        loop {
            let (end, silence_ends) = (self.end(), self.silence_ends());
            let next = silence_ends.min(end);
            let now = driven::now(cx);
            if now.has_nearly_reached(end) {
                return Poll::Ready(Tick::End);
            }
            if now.has_reached(silence_ends) {
                self.silence_max = draw(self.interval);
                self.last_traffic = now.moment();
                return Poll::Ready(Tick::Silence);
            }
            ready!(self.poll_wait(next, cx));
        }
    }

    /// Waits until `until`. If a driver polls the body, the driver wakes it. If there is no driver,
    /// the timer wakes it. The timer may fire before `until`, because a running timer is not set
    /// again.
    fn poll_wait(&mut self, until: Moment, cx: &mut Context<'_>) -> Poll<()> {
        if driven::wake_at(cx, until) {
            return Poll::Pending;
        }
        let Some(until) = until.instant() else { return Poll::Pending };
        let endless = || Box::new(EndAndTimer { end: Moment::NEVER, timer: None });
        let uncommon = self.uncommon.get_or_insert_with(endless);
        let timer = uncommon.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
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

/// Picks the length of the next silence at random, in milliseconds. It is at most 49 days.
fn draw(interval: Interval) -> u32 {
    let silence = interval.silence().map_or(Duration::ZERO, |spread| spread.pick());
    u32::try_from(silence.as_millis()).unwrap_or(u32::MAX)
}

/// The earlier of two moments: the expiry, and the end of a maximum age that starts now.
pub(super) fn end_of(expiry: Option<Expiry>, age: Option<Spread>) -> Option<Instant> {
    // A sum that overflows means never.
    let aged = age.and_then(|age| Instant::now().checked_add(age.pick()));
    expiry.and_then(|expiry| expiry.0).into_iter().chain(aged).min()
}
