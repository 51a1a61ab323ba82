//! Templates for the grants of tokens without the claim `downlink`, such as `users/$client/*`.
//!
//! Some identity providers cannot add a claim to their tokens. For their tokens, the server
//! replaces `$client` in the templates by the client id, and grants the resulting topics.

use downlink_log::{ClientId, InvalidName, TopicSelector};
use thiserror::Error;

/// The segment that stands for the client id.
const CLIENT: &str = "$client";

/// A template breaks its grammar.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum InvalidTemplate {
    /// The template is no selector.
    #[error("the template is no selector")]
    Selector(#[from] InvalidName),
    /// `$client` is only a part of a segment.
    #[error("`$client` must be a whole segment, as in `users/$client/*`")]
    PartOfSegment,
}

/// A selector in which the segment `$client` stands for the client id of a token.
///
/// ```
/// use downlink_access::TokenGrant;
/// use downlink_log::ClientId;
/// let template = TokenGrant::parse("users/$client/*")?;
/// let selector = template.selector(&ClientId::new("ada")?);
/// assert_eq!(selector.unwrap().as_str(), "users/ada/*");
/// assert_eq!(template.selector(&ClientId::new("*")?), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenGrant(Box<str>);

impl TokenGrant {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// [`InvalidTemplate`] if the text is no selector, or if `$client` is only a part of a segment.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        TopicSelector::parse(text)?;
        let is_part = |segment: &str| segment != CLIENT && segment.contains(CLIENT);
        match text.split('/').any(is_part) {
            true => Err(InvalidTemplate::PartOfSegment),
            false => Ok(Self(text.into())),
        }
    }

    /// The selector for a client.
    ///
    /// `None` if the id contains `/`, `*` or a brace, because such an id would select the topics of
    /// other clients. `None` also if the selector would be too long.
    pub fn selector(&self, client: &ClientId) -> Option<TopicSelector> {
        let client = client.as_str();
        if client.contains(['/', '*', '{', '}']) {
            return None;
        }
        let segment = |segment| if segment == CLIENT { client } else { segment };
        let segments: Vec<&str> = self.0.split('/').map(segment).collect();
        TopicSelector::parse(&segments.join("/")).ok()
    }
}
