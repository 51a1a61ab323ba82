//! Grants for tokens that carry none: `users/$client/*`.
//!
//! Some identity providers cannot add the claim `downlink` to their tokens. The server then gives
//! each token the topics of its templates, with the client id in place of `$client`.

use downlink_log::{ClientId, InvalidName, TopicSelector};
use thiserror::Error;

/// The segment that stands for the client id.
const CLIENT: &str = "$client";

/// A template breaks its grammar.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum InvalidTemplate {
    /// It is no selector.
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
    /// [`InvalidTemplate`] if it is no selector, or if `$client` is no whole segment.
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
    /// `None` if the id is not one plain segment, since an id with `/`, `*` or braces would give
    /// other topics, or if the selector would be too long.
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
