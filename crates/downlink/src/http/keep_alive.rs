//! The keep-alive of a silent connection, and the length of a silence.
//!
//! A proxy cuts a silent connection, and only a write shows that a peer has vanished. Not here: the
//! timer (see `clock`).

use std::time::Duration;

use downlink_proto::{Event, Frame};

use super::spread::Spread;

/// The default silence before a keep-alive, as the standard's authoring notes advise.
///
/// The shortest idle limits met in practice are 30 s and 60 s: double would be on the edge of the
/// first, half would wake sleeping phones for nothing.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The shortest silence that can be set; less would be traffic of its own.
pub const KEEP_ALIVE_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The range of a silence in percent of the interval, so that connections that were opened together
/// do not stay in step.
const SPREAD_PERCENT: (u32, u32) = (80, 120);

/// How a response keeps its connection alive: a comment after 15 seconds of silence, by default.
///
/// # Examples
///
/// A page's script cannot see comments, but it can see an event:
///
/// ```
/// use std::time::Duration;
/// use downlink::http::KeepAlive;
/// use downlink::{Event, EventType};
///
/// let alive = Event::new("").event(EventType::from_static("alive"));
/// let keep_alive = KeepAlive::new().interval(Duration::from_secs(20)).event(alive);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct KeepAlive {
    pub(super) interval: Interval,
    /// The frame to send; `None` is the default comment, which nearly every connection sends.
    pub(super) frame: Option<Box<Frame>>,
}

/// The length of a silence in milliseconds; 0 turns keep-alives off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Interval(u32);

impl KeepAlive {
    /// Sends a comment after every silence of [`KEEP_ALIVE_INTERVAL`].
    pub fn new() -> Self {
        Self::off().interval(KEEP_ALIVE_INTERVAL)
    }

    /// Sends no keep-alives. The server then notices a vanished peer only at the next event.
    pub fn off() -> Self {
        Self { interval: Interval(0), frame: None }
    }

    /// Sends after every silence of this length, in whole milliseconds, spread by 20 % either way;
    /// at least [`KEEP_ALIVE_INTERVAL_MIN`] and at most 49 days.
    pub fn interval(mut self, interval: Duration) -> Self {
        let millis = interval.max(KEEP_ALIVE_INTERVAL_MIN).as_millis();
        self.interval = Interval(u32::try_from(millis).unwrap_or(u32::MAX));
        self
    }

    /// Sends a comment with this text, in place of `keep-alive`. Any text is possible: each of its
    /// lines becomes a comment.
    pub fn text(mut self, text: impl AsRef<str>) -> Self {
        self.frame = Some(Box::new(Frame::comment_line(text.as_ref())));
        self
    }

    /// Sends an event in place of a comment, which a page can listen to.
    pub fn event(mut self, event: Event) -> Self {
        self.frame = Some(Box::new(event.into()));
        self
    }
}

impl Interval {
    /// The silence before a keep-alive, without the spread; `None` if off.
    pub(super) fn get(self) -> Option<Duration> {
        (self.0 > 0).then(|| Duration::from_millis(self.0.into()))
    }

    /// The range from which each silence is drawn.
    pub(super) fn silence(self) -> Option<Spread> {
        self.get().map(|interval| Spread::percent_of(interval, SPREAD_PERCENT))
    }
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(keep_alive: &KeepAlive) -> Vec<u8> {
        keep_alive
            .frame
            .clone()
            .map_or_else(|| Frame::comment_line("keep-alive"), |frame| *frame)
            .as_bytes()
            .to_vec()
    }

    #[test]
    fn default_is_a_comment_every_fifteen_seconds() {
        let keep_alive = KeepAlive::default();
        assert_eq!(keep_alive.interval.get(), Some(Duration::from_secs(15)));
        assert_eq!(sent(&keep_alive), b": keep-alive\n");
        let spread = Spread::between(Duration::from_secs(12), Duration::from_secs(18));
        assert_eq!(keep_alive.interval.silence(), Some(spread));
    }

    #[test]
    fn interval_is_kept_from_below_its_minimum() {
        for (set, kept) in [(0, 100), (99, 100), (100, 100), (101, 101)] {
            let interval = KeepAlive::new().interval(Duration::from_millis(set)).interval;
            assert_eq!(interval.get(), Some(Duration::from_millis(kept)));
        }
    }

    #[test]
    fn off_has_no_interval() {
        assert_eq!(KeepAlive::off().interval.get(), None);
        assert_eq!(KeepAlive::off().interval.silence(), None);
    }

    #[test]
    fn text_is_any_text() {
        let keep_alive = KeepAlive::new().text("a\r\nb");
        assert_eq!(sent(&keep_alive), b": a\n: b\n");
    }
}
