//! Selectors: a selector says which topics a subscription reads. It is the name of one topic, or a
//! pattern.
//!
//! `orders/*` matches every topic below `orders`, at any depth. In `orders/{id}/status`, `{id}` is
//! a placeholder and matches any one segment. The name of a placeholder does not affect the match.

use std::fmt;

use crate::types::address::Topic;
use crate::types::{ClientId, InvalidName, check_segments};

/// The maximum number of placeholders of one pattern. Each further placeholder doubles the work to
/// find the patterns that match a topic, and applications do not need more than four.
pub const PLACEHOLDERS_MAX: usize = 4;

/// The maximum number of segments of one pattern. Together with [`PLACEHOLDERS_MAX`], it limits the
/// work to find the patterns that match one topic.
pub const PATTERN_SEGMENTS_MAX: usize = 16;

/// An exact topic, or a pattern.
///
/// ```
/// use downlink_log::{Topic, TopicSelector};
/// let selector = TopicSelector::parse("orders/{id}/*")?;
/// assert!(selector.matches(&Topic::new("orders/17/status")?));
/// assert!(!selector.matches(&Topic::new("orders/17")?));
/// # Ok::<(), downlink_log::InvalidName>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TopicSelector(SelectorKind);

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum SelectorKind {
    Exact(Topic),
    Pattern(Box<str>),
}

impl TopicSelector {
    /// Parses a selector. A text with `*` or braces is a pattern; any other text is an exact topic.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] if the text is neither a pattern nor a topic.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        check_segments(text)?;
        if !text.contains(['*', '{', '}']) {
            return Topic::new(text).map(Self::from);
        }
        check_pattern(text)?;
        Ok(Self(SelectorKind::Pattern(text.into())))
    }

    /// Whether the selector matches the topic.
    pub fn matches(&self, topic: &Topic) -> bool {
        match &self.0 {
            SelectorKind::Exact(exact) => exact == topic,
            SelectorKind::Pattern(pattern) => matches_pattern(pattern, topic.as_str()),
        }
    }

    /// The topic, if the selector is exact.
    pub fn exact(&self) -> Option<&Topic> {
        match &self.0 {
            SelectorKind::Exact(topic) => Some(topic),
            SelectorKind::Pattern(_) => None,
        }
    }

    /// The text of the selector.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            SelectorKind::Exact(topic) => topic.as_str(),
            SelectorKind::Pattern(pattern) => pattern,
        }
    }

    /// The text with which every matching name begins. It is empty, or consists of whole segments,
    /// each with the `/` after it.
    pub fn literal_prefix(&self) -> &str {
        let text = self.as_str();
        let literal = text.find(['*', '{']).map_or(text, |at| &text[..at]);
        literal.rfind('/').map_or("", |at| &literal[..=at])
    }
}

impl From<Topic> for TopicSelector {
    fn from(topic: Topic) -> Self {
        Self(SelectorKind::Exact(topic))
    }
}

impl fmt::Display for TopicSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The topics, patterns and inbox that one subscription reads. Each subscription also gets the
/// events for everyone.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The topics and patterns.
    pub selectors: Vec<TopicSelector>,
    /// The client whose inbox the subscription also reads.
    pub client: Option<ClientId>,
}

fn check_pattern(text: &str) -> Result<(), InvalidName> {
    let (mut at, mut placeholders) = (0, 0);
    for segment in text.split('/') {
        let last = at + segment.len() == text.len();
        let fits = (segment == "*" && last) || is_placeholder(segment);
        if !fits && let Some(found) = segment.find(['*', '{', '}']) {
            return Err(InvalidName::Reserved { at: at + found });
        }
        placeholders += usize::from(is_placeholder(segment));
        at += segment.len() + 1;
    }
    let segments = text.split('/').count();
    if segments > PATTERN_SEGMENTS_MAX {
        let segments_max = PATTERN_SEGMENTS_MAX;
        return Err(InvalidName::TooManySegments { segments, segments_max });
    }
    if placeholders > PLACEHOLDERS_MAX {
        let placeholders_max = PLACEHOLDERS_MAX;
        return Err(InvalidName::TooManyPlaceholders { placeholders, placeholders_max });
    }
    Ok(())
}

pub(crate) fn is_placeholder(segment: &str) -> bool {
    let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| !name.is_empty() && !name.contains(['*', '{', '}']))
}

fn matches_pattern(pattern: &str, topic: &str) -> bool {
    let mut segments = topic.split('/');
    for wanted in pattern.split('/') {
        let Some(segment) = segments.next() else { return false };
        if wanted == "*" {
            return true;
        }
        if wanted != segment && !wanted.starts_with('{') {
            return false;
        }
    }
    segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: &str, matching: &[&str], other: &[&str]) {
        let selector = TopicSelector::parse(selector).unwrap();
        for topic in matching {
            assert!(selector.matches(&Topic::new(topic).unwrap()), "{selector} must match {topic}");
        }
        for topic in other {
            assert!(
                !selector.matches(&Topic::new(topic).unwrap()),
                "{selector} must not match {topic}"
            );
        }
    }

    #[test]
    fn an_exact_selector_matches_only_its_own_topic() {
        check("orders/1", &["orders/1"], &["orders", "orders/1/a", "orders/2"]);
    }

    #[test]
    fn a_final_star_matches_one_or_more_segments() {
        check("orders/*", &["orders/1", "orders/1/a"], &["orders", "order/1", "xorders/1"]);
        check("*", &["a", "a/b"], &[]);
    }

    #[test]
    fn a_placeholder_matches_one_segment() {
        check("orders/{id}/status", &["orders/1/status"], &["orders/status", "orders/1/2/status"]);
        check("{a}/{b}", &["x/y"], &["x", "x/y/z"]);
    }

    #[test]
    fn the_error_of_a_broken_pattern_gives_the_position() {
        let at = |text| TopicSelector::parse(text).unwrap_err();
        assert_eq!(at("a/*/b"), InvalidName::Reserved { at: 2 });
        assert_eq!(at("a*"), InvalidName::Reserved { at: 1 });
        assert_eq!(at("a/{}"), InvalidName::Reserved { at: 2 });
        assert_eq!(at("a/x{b}"), InvalidName::Reserved { at: 3 });
        assert_eq!(at("a/b}"), InvalidName::Reserved { at: 3 });
        assert_eq!(at(""), InvalidName::Empty);
        assert_eq!(at("a//*"), InvalidName::EmptySegment { at: 2 });
    }

    #[test]
    fn the_literal_prefix_ends_with_a_whole_segment() {
        let prefix = |text| TopicSelector::parse(text).unwrap().literal_prefix().to_owned();
        assert_eq!(prefix("orders/*"), "orders/");
        assert_eq!(prefix("orders/{id}/status"), "orders/");
        assert_eq!(prefix("a/b/{id}"), "a/b/");
        assert_eq!(prefix("*"), "");
        assert_eq!(prefix("{a}/b"), "");
    }
}
