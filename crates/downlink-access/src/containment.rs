//! Comparison of two selectors: whether one contains the other, and whether they overlap.
//!
//! A granted selector has to contain the requested selector: it has to match every topic that the
//! request can match. For example, a request for `orders/*` also asks for `orders/7/status`. A
//! grant for `orders/{id}` does not match this topic, so the grant does not cover the request.
//!
//! Both functions read each segment once and allocate nothing. They compare bytes. They do not fold
//! case, decode or normalise.

use downlink_log::TopicSelector;

/// Whether every topic that `asked` can match is also matched by `granted`.
///
/// One granted selector alone must contain the request. For example, `{a}` and `{a}/*` together
/// match every topic that `*` matches, but neither of the two contains `*`.
///
/// ```
/// use downlink_access::contains;
/// use downlink_log::TopicSelector;
/// let selector = |text| TopicSelector::parse(text);
/// assert!(contains(&selector("orders/*")?, &selector("orders/{id}/status")?));
/// assert!(!contains(&selector("orders/{id}")?, &selector("orders/*")?));
/// # Ok::<(), downlink_log::InvalidName>(())
/// ```
pub fn contains(granted: &TopicSelector, asked: &TopicSelector) -> bool {
    let (mut granted, mut asked) = (granted.as_str().split('/'), asked.as_str().split('/'));
    loop {
        // The first arm that matches decides, so the order of the arms matters.
        match (granted.next(), asked.next()) {
            (Some("*"), asked) => return asked.is_some(),
            (None, None) => return true,
            (None, Some(_)) | (Some(_), None | Some("*")) => return false,
            (Some(granted), Some(asked)) if is_placeholder(granted) || granted == asked => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

/// Whether at least one topic is matched by both selectors.
///
/// A revocation of `rooms/7` also ends a subscription to `rooms/*`, because the two selectors
/// overlap.
///
/// ```
/// use downlink_access::overlaps;
/// use downlink_log::TopicSelector;
/// let selector = |text| TopicSelector::parse(text);
/// assert!(overlaps(&selector("rooms/*")?, &selector("rooms/7")?));
/// assert!(!overlaps(&selector("rooms/*")?, &selector("rooms")?));
/// # Ok::<(), downlink_log::InvalidName>(())
/// ```
pub fn overlaps(one: &TopicSelector, other: &TopicSelector) -> bool {
    let (mut one, mut other) = (one.as_str().split('/'), other.as_str().split('/'));
    loop {
        match (one.next(), other.next()) {
            (Some("*"), rest) | (rest, Some("*")) => return rest.is_some(),
            (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(a), Some(b)) if is_placeholder(a) || is_placeholder(b) || a == b => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

/// In a valid selector, a segment that begins with a brace is a placeholder.
fn is_placeholder(segment: &str) -> bool {
    segment.starts_with('{')
}
