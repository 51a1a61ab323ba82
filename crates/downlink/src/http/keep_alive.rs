//! What is sent on a silent connection, and how long a silence is.
//!
//! A proxy cuts a connection on which nothing happens, and only a write finds out that a peer has
//! vanished. Not here: the timer (see `clock`).

use std::time::Duration;

use downlink_proto::{Event, Frame};

use super::Spread;

/// The default silence before a keep-alive, as the standard's authoring notes advise.
///
/// The shortest idle limits met in practice are 30 s and 60 s: twice this would ride on the edge
/// of the first, half would wake sleeping phones for nothing.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The shortest silence that can be set; less would be traffic of its own.
pub const KEEP_ALIVE_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Percent of the interval within which each silence falls, so that connections that were opened
/// together do not stay in step.
const SPREAD_PERCENT: (u32, u32) = (80, 120);

/// How a response keeps its connection alive: a comment after 15 seconds of silence, by default.
///
/// # Examples
///
/// A page's script cannot see comments. An event it can:
///
/// ```
/// use std::time::Duration;
/// use downlink::http::KeepAlive;
/// use downlink::{Event, EventType};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let alive = Event::new("").with_type(EventType::new("alive")?);
/// let keep_alive = KeepAlive::every(Duration::from_secs(20)).event(alive);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct KeepAlive {
    pace: Pace,
    /// What is sent; `None` is the default comment, which nearly every connection sends.
    frame: Option<Box<Frame>>,
}

/// How long a silence is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Pace {
    /// Milliseconds; 0 if keep-alives are off.
    interval: u32,
}

impl KeepAlive {
    /// Sends after every silence of this length, in whole milliseconds, spread by 20 % either way; at
    /// least [`KEEP_ALIVE_INTERVAL_MIN`] and at most 49 days.
    pub fn every(interval: Duration) -> Self {
        let millis = interval.max(KEEP_ALIVE_INTERVAL_MIN).as_millis();
        let interval = u32::try_from(millis).unwrap_or(u32::MAX);
        Self { pace: Pace { interval }, frame: None }
    }

    /// Never sends. A peer that has vanished is then noticed at the next event only.
    pub fn off() -> Self {
        Self { pace: Pace { interval: 0 }, frame: None }
    }

    /// Sends a comment with this text.
    pub fn comment(mut self, text: &str) -> Self {
        self.frame = Some(Box::new(Frame::comment(text)));
        self
    }

    /// Sends an event, which a page can listen to.
    pub fn event(mut self, event: Event) -> Self {
        self.frame = Some(Box::new(event.into()));
        self
    }

    /// The silence that is waited for, before the spread; `None` if off.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        self.pace.interval()
    }

    pub(super) fn into_parts(self) -> (Pace, Option<Box<Frame>>) {
        (self.pace, self.frame)
    }
}

impl Pace {
    /// The silence that is waited for, before the spread; `None` if off.
    pub(super) fn interval(self) -> Option<Duration> {
        (self.interval > 0).then(|| Duration::from_millis(self.interval.into()))
    }

    /// How long each silence may be.
    pub(super) fn silence(self) -> Option<Spread> {
        let (shortest, longest) = SPREAD_PERCENT;
        self.interval().map(|interval| Spread::percent_of(interval, shortest, longest))
    }
}

/// What is sent after a silence if nothing else is said.
pub(super) fn comment() -> Frame {
    Frame::comment("keep-alive")
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self::every(KEEP_ALIVE_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(keep_alive: &KeepAlive) -> Vec<u8> {
        let (_, frame) = keep_alive.clone().into_parts();
        frame.map_or_else(comment, |frame| *frame).as_bytes().to_vec()
    }

    #[test]
    fn default_is_a_comment_every_fifteen_seconds() {
        let keep_alive = KeepAlive::default();
        assert_eq!(keep_alive.interval(), Some(Duration::from_secs(15)));
        assert_eq!(sent(&keep_alive), b": keep-alive\n\n");
        let spread = Spread::between(Duration::from_secs(12), Duration::from_secs(18));
        assert_eq!(keep_alive.pace.silence(), Some(spread));
    }

    #[test]
    fn interval_is_kept_from_below_its_minimum() {
        for (set, kept) in [(0, 100), (99, 100), (100, 100), (101, 101)] {
            let interval = KeepAlive::every(Duration::from_millis(set)).interval();
            assert_eq!(interval, Some(Duration::from_millis(kept)));
        }
    }

    #[test]
    fn off_has_no_interval() {
        assert_eq!(KeepAlive::off().interval(), None);
        assert_eq!(KeepAlive::off().pace.silence(), None);
    }

    #[test]
    fn text_is_any_text() {
        let keep_alive = KeepAlive::default().comment("a\r\nb");
        assert_eq!(sent(&keep_alive), b": a\n: b\n\n");
    }
}
