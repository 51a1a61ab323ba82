//! The one timer of a response body.
//!
//! The timer waits for the earliest of three times:
//!
//! - the end of a silence, which is a period in which the body sends nothing;
//! - the time for the notice of the expiry (the event `downlink.expiring`);
//! - the end of the connection.
//!
//! When the body sends something, it only records the time. The timer is set again only when it
//! fires, so sending an event needs no timer operation. The first wait creates the timer. A body
//! that never waits has no timer. A body that a driver polls has no timer either. A driver is a
//! task that polls many bodies, and it has one timer for all of them (see `driven`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use pin_project_lite::pin_project;
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

impl Expiry {
    /// The earlier of the two expiries.
    pub(super) fn min(self, other: Self) -> Self {
        let both = self.0.zip(other.0).map(|(one, other)| one.min(other));
        Self(both.or(self.0).or(other.0))
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
        let left = at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
        Self(Instant::now().checked_add(left))
    }
}

/// The reason why a wait of the clock has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tick {
    /// The silence has lasted so long that a keep-alive is due.
    Silence,
    /// The notice of the expiry is due.
    Notice,
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
/// a timer. But if an app uses credentials that expire, every stream of the app has an end. So this
/// type is kept small (16 bytes).
#[derive(Debug)]
enum EndAndTimer {
    WithoutTimer(Times),
    WithTimer(Pin<Box<Timed>>),
}

#[derive(Clone, Copy, Debug)]
struct Times {
    /// When the response ends.
    end: Moment,
    notice: Notice,
}

/// The notice of the expiry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Notice {
    /// The response announces no expiry.
    Off,
    /// The notice is due this many milliseconds before the end (at most 49 days).
    Before(u32),
    /// The notice was sent.
    Announced,
}

pin_project! {
    #[derive(Debug)]
    struct Timed {
        times: Times,
        #[pin]
        timer: Sleep,
    }
}

impl Times {
    const ENDLESS: Self = Self { end: Moment::NEVER, notice: Notice::Off };

    /// When the notice of the expiry is due.
    fn notice(self) -> Moment {
        match self.notice {
            Notice::Before(millis) => self.end.before(millis),
            Notice::Off | Notice::Announced => Moment::NEVER,
        }
    }
}

impl EndAndTimer {
    fn times(&self) -> Times {
        match self {
            Self::WithoutTimer(times) => *times,
            Self::WithTimer(timed) => timed.times,
        }
    }

    fn announce(&mut self) {
        let times = match self {
            Self::WithoutTimer(times) => times,
            Self::WithTimer(timed) => timed.as_mut().project().times,
        };
        times.notice = Notice::Announced;
    }

    /// Waits until `until`. The wait may end earlier.
    fn poll_timer(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::WithTimer(timed) => timed.as_mut().poll_timer(until, cx),
            Self::WithoutTimer(times) => {
                let mut timed = Box::pin(Timed { times: *times, timer: sleep_until(until) });
                let polled = timed.as_mut().poll_timer(until, cx);
                *self = Self::WithTimer(timed);
                polled
            }
        }
    }
}

impl Timed {
    /// Waits until `until`. The wait may end earlier, because a running timer is not set again.
    fn poll_timer(self: Pin<&mut Self>, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.project().timer;
        if timer.is_elapsed() {
            timer.as_mut().reset(until);
        }
        timer.poll(cx)
    }
}

impl BodyClock {
    pub(super) fn new(interval: Interval, end: Option<End>) -> Self {
        let uncommon = end.map(|End { at, notice }| {
            let notice = notice.map_or(Notice::Off, |before| {
                Notice::Before(u32::try_from(before.as_millis()).unwrap_or(u32::MAX))
            });
            Box::new(EndAndTimer::WithoutTimer(Times { end: Moment::at(at), notice }))
        });
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

    /// Whether the response has reached its end. The call does not request a wake-up at the end of
    /// the response.
    pub(super) fn has_ended(&self, cx: &Context<'_>) -> bool {
        self.uncommon.as_ref().is_some_and(|it| driven::now(cx).has_nearly_reached(it.times().end))
    }

    /// Whether the response announces its expiry to the client.
    pub(super) fn announces_expiry(&self) -> bool {
        self.uncommon.as_ref().is_some_and(|uncommon| uncommon.times().notice != Notice::Off)
    }

    /// How long the response still lasts, if the notice of its expiry is due now. The notice is
    /// sent once, so every later call returns `None`.
    pub(super) fn take_notice(&mut self, cx: &Context<'_>) -> Option<Duration> {
        let uncommon = self.uncommon.as_mut()?;
        let (times, now) = (uncommon.times(), driven::now(cx));
        if !now.has_reached(times.notice()) {
            return None;
        }
        uncommon.announce();
        let left = times.end.as_millis().saturating_sub(now.moment().as_millis());
        Some(Duration::from_millis(left))
    }

    fn times(&self) -> Times {
        self.uncommon.as_ref().map_or(Times::ENDLESS, |uncommon| uncommon.times())
    }

    /// Waits for the next tick. If the response has neither keep-alives nor an end, the wait never
    /// ends.
    pub(super) fn poll_tick(&mut self, cx: &mut Context<'_>) -> Poll<Tick> {
        loop {
            let times = self.times();
            let (end, notice, silence_ends) = (times.end, times.notice(), self.silence_ends());
            let next = silence_ends.min(end).min(notice);
            let now = driven::now(cx);
            if now.has_nearly_reached(end) {
                return Poll::Ready(Tick::End);
            }
            if now.has_reached(notice) {
                return Poll::Ready(Tick::Notice);
            }
            if now.has_reached(silence_ends) {
                self.silence_max = draw(self.interval);
                self.last_traffic = now.moment();
                return Poll::Ready(Tick::Silence);
            }
            ready!(self.poll_wait(next, cx));
        }
    }

    /// Waits for the time `until`. If a driver polls the body, the driver wakes it. If there is no
    /// driver, the timer wakes it. The timer may fire before `until`, because a running timer is
    /// not set again.
    fn poll_wait(&mut self, until: Moment, cx: &mut Context<'_>) -> Poll<()> {
        if driven::wake_at(cx, until) {
            return Poll::Pending;
        }
        let Some(until) = until.instant() else { return Poll::Pending };
        let endless = || Box::new(EndAndTimer::WithoutTimer(Times::ENDLESS));
        self.uncommon.get_or_insert_with(endless).poll_timer(until, cx)
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

/// The end of a response.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    at: Instant,
    /// The time between the notice of the expiry and the end. `None` if the response announces no
    /// expiry.
    notice: Option<Duration>,
}

/// When the response ends: at its expiry, or when it reaches its maximum age, whichever comes
/// first. `notice` is the time between the notice and the expiry. A response that ends because of
/// its age announces no expiry.
pub(super) fn end_of(
    expiry: Option<Expiry>,
    notice: Option<Duration>,
    age: Option<Spread>,
) -> Option<End> {
    // If the sum overflows, the response does not end because of its age.
    let aged = age.and_then(|age| Instant::now().checked_add(age.pick()));
    let expired = expiry.and_then(|expiry| expiry.0);
    match (expired, aged) {
        (Some(at), aged) if aged.is_none_or(|aged| at <= aged) => Some(End { at, notice }),
        (_, aged) => aged.map(|at| End { at, notice: None }),
    }
}
