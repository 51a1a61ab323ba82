//! Grants as JSON. Such a grant is the claim `downlink` of a token. A server can also ask the app
//! for the rights of a request, and the app answers with such a grant.
//!
//! An unknown member is an error. If it were ignored, a restriction with a misspelt name would have
//! no effect.

use downlink_log::{ClientId, Timestamp, TopicSelector};
use serde_json::{Map, Value};

use crate::error::InvalidGrant;
use crate::grant::Grant;
use crate::json;

/// The maximum number of selectors in one list. A grant for more topics should use patterns.
pub const GRANT_SELECTORS_MAX: usize = 256;

/// The maximum length of a document in bytes. It is enough for two full lists in which each
/// selector has 100 bytes.
pub const GRANT_BYTES_MAX: usize = 64 * 1024;

const LISTS: &str = "a list of selectors";
const FLAG: &str = "true or false";

impl Grant {
    /// Reads a grant from JSON.
    ///
    /// Each member has the name of a method of `Grant`, and every member may be left out.
    /// `subscribe` and `publish` are lists of selectors, `client` is a client id, `until` is a
    /// number of seconds since the Unix epoch, and all other members are true or false.
    ///
    /// # Errors
    ///
    /// [`InvalidGrant`] if the bytes are not a grant.
    ///
    /// # Limits
    ///
    /// [`GRANT_BYTES_MAX`], and [`GRANT_SELECTORS_MAX`] for each list.
    ///
    /// ```
    /// use downlink_access::Grant;
    /// let grant = Grant::from_json(br#"{"subscribe": ["orders/*"], "client": "ada"}"#)?;
    /// assert_eq!(grant.subscribe()[0].as_str(), "orders/*");
    /// # Ok::<(), downlink_access::InvalidGrant>(())
    /// ```
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidGrant> {
        if bytes.len() > GRANT_BYTES_MAX {
            let bytes_max = GRANT_BYTES_MAX;
            return Err(InvalidGrant::TooLong { bytes: bytes.len(), bytes_max });
        }
        Self::from_members(&json::object(bytes).ok_or(InvalidGrant::NoObject)?)
    }

    /// Reads a grant from the members of an object. The caller has checked that no member is
    /// repeated.
    pub(crate) fn from_members(members: &Map<String, Value>) -> Result<Self, InvalidGrant> {
        let mut grant = Self::none();
        for (member, value) in members {
            grant = grant.with_member(member, value)?;
        }
        Ok(grant)
    }

    fn with_member(self, member: &str, value: &Value) -> Result<Self, InvalidGrant> {
        Ok(match member {
            "subscribe" => {
                selectors("subscribe", value)?.into_iter().fold(self, Self::with_subscribe)
            }
            "publish" => selectors("publish", value)?.into_iter().fold(self, Self::with_publish),
            "publish_clients" => self.with_publish_clients(flag("publish_clients", value)?),
            "hear_everyone" => self.with_hear_everyone(flag("hear_everyone", value)?),
            "everyone" => self.with_everyone(flag("everyone", value)?),
            "client" => self.with_client(client("client", value)?),
            "issue" => self.with_issue(flag("issue", value)?),
            "follow" => self.with_follow(flag("follow", value)?),
            "admin" => self.with_admin(flag("admin", value)?),
            "until" => self.with_until(seconds(value).ok_or(InvalidGrant::WrongType {
                member: "until",
                expected: "a number of seconds",
            })?),
            _ => return Err(InvalidGrant::UnknownMember { member: member.to_owned() }),
        })
    }

    /// The members of the claim `downlink` for this grant, without `client` and `until`.
    pub(crate) fn to_members(&self) -> Map<String, Value> {
        let list = |selectors: &[TopicSelector]| {
            Value::from_iter(selectors.iter().map(|selector| Value::from(selector.as_str())))
        };
        let mut members = Map::new();
        let mut add = |name: &str, value: Value, is_given: bool| {
            if is_given {
                members.insert(name.to_owned(), value);
            }
        };
        add("subscribe", list(self.subscribe()), !self.subscribe().is_empty());
        add("publish", list(self.publish()), !self.publish().is_empty());
        add("publish_clients", true.into(), self.publish_clients());
        add("hear_everyone", false.into(), !self.hear_everyone());
        add("everyone", true.into(), self.everyone());
        add("issue", true.into(), self.issue());
        add("follow", true.into(), self.follow());
        add("admin", true.into(), self.admin());
        members
    }
}

/// Reads a client id.
pub(crate) fn client(member: &'static str, value: &Value) -> Result<ClientId, InvalidGrant> {
    let expected = "a client id";
    let text = value.as_str().ok_or(InvalidGrant::WrongType { member, expected })?;
    let invalid = |reason| InvalidGrant::InvalidName { member, text: text.to_owned(), reason };
    ClientId::new(text).map_err(invalid)
}

/// Reads a time in seconds, with or without a fraction. A time before 1970 becomes 1970.
pub(crate) fn seconds(value: &Value) -> Option<Timestamp> {
    if let Some(seconds) = value.as_u64() {
        return Some(Timestamp::from_millis(seconds.saturating_mul(1_000)));
    }
    // The cast turns a negative number into 0, and a number that is too large into the maximum.
    let millis = value.as_f64().filter(|seconds| seconds.is_finite())? * 1_000.0;
    Some(Timestamp::from_millis(millis as u64))
}

fn flag(member: &'static str, value: &Value) -> Result<bool, InvalidGrant> {
    value.as_bool().ok_or(InvalidGrant::WrongType { member, expected: FLAG })
}

fn selectors(member: &'static str, value: &Value) -> Result<Vec<TopicSelector>, InvalidGrant> {
    let wrong = InvalidGrant::WrongType { member, expected: LISTS };
    let Value::Array(list) = value else { return Err(wrong) };
    let (selectors, selectors_max) = (list.len(), GRANT_SELECTORS_MAX);
    if selectors > selectors_max {
        return Err(InvalidGrant::TooManySelectors { member, selectors, selectors_max });
    }
    let selector = |value: &Value| {
        let text = value.as_str().ok_or_else(|| wrong.clone())?;
        let invalid = |reason| InvalidGrant::InvalidName { member, text: text.to_owned(), reason };
        TopicSelector::parse(text).map_err(invalid)
    };
    list.iter().map(selector).collect()
}
