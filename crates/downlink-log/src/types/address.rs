//! The recipients of an event: everyone, one client, or the readers of a topic.
//!
//! The three kinds of recipients are variants of one type. So the log never takes a topic for a
//! client, even if the topic's name equals the client's id.

use std::{fmt, sync::Arc};

use thiserror::Error;

/// The maximum length of a topic in bytes. Topics are kept in memory and appear in URLs, so they
/// must be short. A longer topic is most likely a mistake.
pub const TOPIC_BYTES_MAX: usize = 256;

/// The maximum length of a client id in bytes. There is room for a UUID, an e-mail address or a
/// token's subject.
pub const CLIENT_BYTES_MAX: usize = 256;

/// The name to which events are published. It consists of non-empty segments separated by `/`, and
/// has 1 to 256 bytes of UTF-8.
///
/// A topic has no control characters. It also has no `*`, `{` or `}`, because these have a meaning
/// in patterns.
///
/// ```
/// use downlink_log::Topic;
/// assert!(Topic::new("orders/17/status").is_ok());
/// assert!(Topic::new("orders/*").is_err());
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Topic(Arc<str>);

impl Topic {
    /// Makes a topic from its name.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says which rule of the grammar the name breaks.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        check_segments(name)?;
        match name.find(['*', '{', '}']) {
            Some(at) => Err(InvalidName::Reserved { at }),
            None => Ok(Self(name.into())),
        }
    }

    /// Makes a topic from its segments.
    ///
    /// Use this for topics that contain text from a request. With plain concatenation, a `/` in
    /// such a text would select another topic.
    ///
    /// ```
    /// use downlink_log::Topic;
    ///
    /// assert_eq!(Topic::from_segments(["rooms", "lobby"])?.as_str(), "rooms/lobby");
    /// assert!(Topic::from_segments(["rooms", "lobby/typing"]).is_err());
    /// # Ok::<(), downlink_log::InvalidName>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidName::Slash`] if a segment contains `/`, and the errors of [`new`](Self::new). The
    /// position in an error counts the bytes of the whole name.
    pub fn from_segments<S: AsRef<str>>(
        segments: impl IntoIterator<Item = S>,
    ) -> Result<Self, InvalidName> {
        let mut name = String::new();
        for segment in segments {
            if let Some(at) = segment.as_ref().find('/') {
                return Err(InvalidName::Slash { at: name.len() + at });
            }
            name.push_str(segment.as_ref());
            name.push('/');
        }
        name.pop();
        Self::new(&name)
    }

    /// The lowest name that begins with `prefix`. It is only the start of a range of names; no
    /// event is published to it.
    pub(crate) fn bound(prefix: &str) -> Self {
        Self(prefix.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a client, which owns subscriptions. It has 1 to 256 bytes of UTF-8 without control
/// characters.
///
/// One client may have several subscriptions, for example one in each browser tab. Each of them
/// gets the events that are addressed to the client.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// Makes a client id from text.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if the text is empty, too long, or contains a control character.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        check_text(text, CLIENT_BYTES_MAX)?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A recipient of an event.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Address {
    /// Every subscription.
    Everyone,
    /// Every subscription of one client.
    Client(ClientId),
    /// Every subscription whose selectors match the topic.
    Topic(Topic),
}

impl Address {
    /// The topic of the address, or `None` if the address is everyone or a client.
    pub fn topic(&self) -> Option<&Topic> {
        match self {
            Self::Topic(topic) => Some(topic),
            Self::Everyone | Self::Client(_) => None,
        }
    }
}

/// A topic, selector or client id breaks the grammar.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum InvalidName {
    /// The name is empty.
    #[error("the name is empty")]
    Empty,
    /// The name is longer than the limit.
    #[error("the name has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLong {
        /// The length of the name in bytes.
        bytes: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// The name contains a control character.
    #[error("the name has a control character at byte {at}: remove it")]
    Control {
        /// The position in bytes.
        at: usize,
    },
    /// A segment is empty: there is nothing between two `/`, before the first `/`, or after the
    /// last `/`.
    #[error("the name has an empty segment at byte {at}: write a/b, not /a, a//b or a/")]
    EmptySegment {
        /// The position in bytes.
        at: usize,
    },
    /// A text that must be one segment contains `/`.
    #[error("the text is one segment, so it must not have a `/` (byte {at})")]
    Slash {
        /// The position in bytes.
        at: usize,
    },
    /// `*`, `{` or `}` is at a place where the grammar does not allow it.
    #[error(
        "the name has a reserved character at byte {at}: `*` may only be the last segment of a \
         pattern, and `{{name}}` only a whole segment"
    )]
    Reserved {
        /// The position in bytes.
        at: usize,
    },
    /// A pattern has more segments than the limit. Topics have no such limit.
    #[error("the pattern has {segments} segments, at most {segments_max} are allowed")]
    TooManySegments {
        /// The number of segments of the pattern.
        segments: usize,
        /// The limit.
        segments_max: usize,
    },
    /// A pattern has more placeholders than the limit.
    #[error("the pattern has {placeholders} placeholders, at most {placeholders_max} are allowed")]
    TooManyPlaceholders {
        /// The number of placeholders of the pattern.
        placeholders: usize,
        /// The limit.
        placeholders_max: usize,
    },
}

/// Checks the rules that topics and selectors share: length, characters, non-empty segments.
pub(crate) fn check_segments(name: &str) -> Result<(), InvalidName> {
    check_text(name, TOPIC_BYTES_MAX)?;
    if name.starts_with('/') {
        return Err(InvalidName::EmptySegment { at: 0 });
    }
    if name.ends_with('/') {
        return Err(InvalidName::EmptySegment { at: name.len() });
    }
    match name.find("//") {
        Some(at) => Err(InvalidName::EmptySegment { at: at + 1 }),
        None => Ok(()),
    }
}

fn check_text(text: &str, bytes_max: usize) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty);
    }
    if text.len() > bytes_max {
        return Err(InvalidName::TooLong { bytes: text.len(), bytes_max });
    }
    match text.find(char::is_control) {
        Some(at) => Err(InvalidName::Control { at }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_must_follow_the_grammar() {
        assert!(Topic::new("a").is_ok());
        assert!(Topic::new("räume/grün").is_ok());
        assert_eq!(Topic::new(""), Err(InvalidName::Empty));
        assert_eq!(Topic::new("/a"), Err(InvalidName::EmptySegment { at: 0 }));
        assert_eq!(Topic::new("a/"), Err(InvalidName::EmptySegment { at: 2 }));
        assert_eq!(Topic::new("a//b"), Err(InvalidName::EmptySegment { at: 2 }));
        assert_eq!(Topic::new("a\nb"), Err(InvalidName::Control { at: 1 }));
        assert_eq!(Topic::new("a/*"), Err(InvalidName::Reserved { at: 2 }));
        assert_eq!(Topic::new("{a}"), Err(InvalidName::Reserved { at: 0 }));
    }

    #[test]
    fn from_segments_makes_one_segment_of_each_text_or_fails() {
        let of = |segments: &[&str]| Topic::from_segments(segments);
        assert_eq!(of(&["rooms", "a b"]), Topic::new("rooms/a b"));
        assert_eq!(of(&["rooms", "a/typing"]), Err(InvalidName::Slash { at: 7 }));
        assert_eq!(of(&["/"]), Err(InvalidName::Slash { at: 0 }));
        assert_eq!(of(&["rooms", ""]), Err(InvalidName::EmptySegment { at: 6 }));
        assert_eq!(of(&["", "a"]), Err(InvalidName::EmptySegment { at: 0 }));
        assert_eq!(of(&["a", "", "b"]), Err(InvalidName::EmptySegment { at: 2 }));
        assert_eq!(of(&["rooms", "*"]), Err(InvalidName::Reserved { at: 6 }));
        assert_eq!(of(&["rooms", "{a}"]), Err(InvalidName::Reserved { at: 6 }));
        assert_eq!(of(&["rooms", "a\nb"]), Err(InvalidName::Control { at: 7 }));
        assert_eq!(of(&[]), Err(InvalidName::Empty));
        let rest = TOPIC_BYTES_MAX - "rooms/".len();
        assert!(of(&["rooms", &"a".repeat(rest)]).is_ok());
        let (bytes, bytes_max) = (TOPIC_BYTES_MAX + 1, TOPIC_BYTES_MAX);
        let long = of(&["rooms", &"a".repeat(rest + 1)]);
        assert_eq!(long, Err(InvalidName::TooLong { bytes, bytes_max }));
    }

    #[test]
    fn names_up_to_the_length_limit_are_accepted_and_longer_names_are_refused() {
        assert!(Topic::new(&"a".repeat(TOPIC_BYTES_MAX - 1)).is_ok());
        assert!(Topic::new(&"a".repeat(TOPIC_BYTES_MAX)).is_ok());
        assert_eq!(
            Topic::new(&"a".repeat(TOPIC_BYTES_MAX + 1)),
            Err(InvalidName::TooLong { bytes: 257, bytes_max: 256 })
        );
        assert!(ClientId::new(&"a".repeat(CLIENT_BYTES_MAX)).is_ok());
        assert!(ClientId::new(&"a".repeat(CLIENT_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn client_ids_may_look_like_patterns() {
        assert!(ClientId::new("a*{b}//").is_ok());
        assert!(ClientId::new("a\0").is_err());
    }
}
