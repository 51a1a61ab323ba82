//! The keep-alive of a silent connection, and the length of the silence before it.
//!
//! Without keep-alives, a proxy would cut a silent connection. The server would also not notice
//! that a peer has vanished, because only a write shows this. The timer is in the module `clock`.

use std::time::Duration;

use downlink_proto::{Event, Frame};

use super::spread::Spread;

/// The default silence before a keep-alive. The authoring notes of the standard advise this value.
///
/// The proxies with the shortest timeouts cut a connection after 30 s of silence. Others wait for
/// 60 s or longer. A keep-alive after 15 s of silence comes well before that. A shorter silence
/// would only wake sleeping phones more often.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The shortest silence that can be set. With a shorter silence, the keep-alives themselves would
/// cause noticeable traffic.
pub const KEEP_ALIVE_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The range of a silence in percent of the interval. Each silence is picked at random, so that
/// connections that were opened together do not send their keep-alives together.
const SPREAD_PERCENT: (u32, u32) = (80, 120);

/// The keep-alive of a response. By default it is a comment after 15 seconds of silence.
///
/// # Examples
///
/// The script of a page cannot see comments, but it can see an event:
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
    /// The frame to send. `None` means the default comment, which nearly every connection sends.
    pub(super) frame: Option<Box<Frame>>,
}

/// The length of a silence in milliseconds. 0 turns keep-alives off.
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

    /// Sets the length of the silence, in whole milliseconds. The minimum is
    /// [`KEEP_ALIVE_INTERVAL_MIN`], and the maximum is 49 days. Each silence is picked at random
    /// between 80 and 120 % of this length.
    pub fn interval(mut self, interval: Duration) -> Self {
        let millis = interval.max(KEEP_ALIVE_INTERVAL_MIN).as_millis();
        self.interval = Interval(u32::try_from(millis).unwrap_or(u32::MAX));
        self
    }

    /// Sends a comment with this text instead of `keep-alive`. Any text is possible: each line
    /// becomes a comment.
    pub fn text(mut self, text: impl AsRef<str>) -> Self {
        self.frame = Some(Box::new(Frame::comment_line(text.as_ref())));
        self
    }

    /// Sends an event instead of a comment. A page can listen to the event.
    pub fn event(mut self, event: Event) -> Self {
        self.frame = Some(Box::new(event.into()));
        self
    }
}

impl Interval {
    /// The interval, or `None` if keep-alives are off.
    pub(super) fn get(self) -> Option<Duration> {
        (self.0 > 0).then(|| Duration::from_millis(self.0.into()))
    }

    /// The range from which each silence is picked. `None` if keep-alives are off.
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
    fn the_default_is_a_comment_after_fifteen_seconds() {
        let keep_alive = KeepAlive::default();
        assert_eq!(keep_alive.interval.get(), Some(Duration::from_secs(15)));
        assert_eq!(sent(&keep_alive), b": keep-alive\n");
        let spread = Spread::between(Duration::from_secs(12), Duration::from_secs(18));
        assert_eq!(keep_alive.interval.silence(), Some(spread));
    }

    #[test]
    fn the_interval_is_at_least_its_minimum() {
        for (set, kept) in [(0, 100), (99, 100), (100, 100), (101, 101)] {
            let interval = KeepAlive::new().interval(Duration::from_millis(set)).interval;
            assert_eq!(interval.get(), Some(Duration::from_millis(kept)));
        }
    }

    #[test]
    fn keep_alive_off_has_no_interval() {
        assert_eq!(KeepAlive::off().interval.get(), None);
        assert_eq!(KeepAlive::off().interval.silence(), None);
    }

    #[test]
    fn each_line_of_the_text_becomes_a_comment() {
        let keep_alive = KeepAlive::new().text("a\r\nb");
        assert_eq!(sent(&keep_alive), b": a\n: b\n");
    }
}
