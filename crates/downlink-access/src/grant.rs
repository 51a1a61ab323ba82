//! The grant: the rights of a verified credential, and the time at which they end.
//!
//! Handlers of requests get grants, never credentials. A new grant has only the right to receive
//! the events that are published to everyone. Every other right has to be added. A requested
//! selector is allowed only if one granted selector contains it (see [`contains`]). The error of a
//! check names the first selector that is not covered.

use downlink_log::{Address, ClientId, Timestamp, Topic, TopicSelector};

use crate::containment::contains;
use crate::error::{AccessError, Right};

/// The rights of one credential.
///
/// ```
/// use downlink_access::Grant;
/// use downlink_log::{ClientId, TopicSelector};
/// let grant = Grant::none()
///     .with_subscribe(TopicSelector::parse("orders/*")?)
///     .with_client(ClientId::new("ada")?);
/// assert!(grant.check_subscribe([&TopicSelector::parse("orders/{id}")?]).is_ok());
/// assert_eq!(
///     grant.check_subscribe([&TopicSelector::parse("news")?]).unwrap_err().code(),
///     "topic_denied",
/// );
/// # Ok::<(), downlink_log::InvalidName>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
#[non_exhaustive]
pub struct Grant {
    subscribe: Vec<TopicSelector>,
    publish: Vec<TopicSelector>,
    publish_clients: bool,
    hear_everyone: bool,
    everyone: bool,
    client: Option<ClientId>,
    issue: bool,
    follow: bool,
    admin: bool,
    until: Option<Timestamp>,
}

impl Grant {
    /// A grant with one right: to receive the events for everyone
    /// ([`hear_everyone`](Self::hear_everyone)).
    pub const fn none() -> Self {
        Self {
            subscribe: Vec::new(),
            publish: Vec::new(),
            publish_clients: false,
            hear_everyone: true,
            everyone: false,
            client: None,
            issue: false,
            follow: false,
            admin: false,
            until: None,
        }
    }

    /// A grant with every right and without an end, for an admin key or a trusted socket.
    pub fn all() -> Self {
        Self { follow: true, admin: true, ..Self::app() }
    }

    /// The grant of an app's publish key: the app publishes anywhere and issues tickets.
    ///
    /// The app may also subscribe to everything, because it could issue itself a ticket for
    /// everything.
    pub fn app() -> Self {
        Self {
            subscribe: every_topic(),
            publish: every_topic(),
            publish_clients: true,
            everyone: true,
            issue: true,
            ..Self::none()
        }
    }

    /// The grant of a relay's key: the relay follows the whole log, and passes on what its own
    /// publishers may publish.
    pub fn relay() -> Self {
        Self {
            publish: every_topic(),
            publish_clients: true,
            everyone: true,
            follow: true,
            ..Self::none()
        }
    }

    /// Adds the right to subscribe to the topics of the selector.
    pub fn with_subscribe(mut self, selector: TopicSelector) -> Self {
        self.subscribe.push(selector);
        self
    }

    /// Adds the right to publish to the topics of the selector.
    pub fn with_publish(mut self, selector: TopicSelector) -> Self {
        self.publish.push(selector);
        self
    }

    /// Sets the client. The grant then gives the right to read the events for this client (its
    /// inbox).
    pub fn with_client(self, client: impl Into<Option<ClientId>>) -> Self {
        Self { client: client.into(), ..self }
    }

    /// Sets the end. If the grant already has an earlier end, nothing changes.
    pub fn with_until(self, until: Timestamp) -> Self {
        Self { until: Some(self.until.map_or(until, |end| end.min(until))), ..self }
    }

    /// The selectors that the grant allows for subscriptions.
    pub fn subscribe(&self) -> &[TopicSelector] {
        &self.subscribe
    }

    /// The selectors that the grant allows for publishing.
    pub fn publish(&self) -> &[TopicSelector] {
        &self.publish
    }

    /// The client whose inbox the holder of the grant may read.
    pub const fn client(&self) -> Option<&ClientId> {
        self.client.as_ref()
    }

    /// The end. `None` if the grant has no end.
    pub const fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Whether the grant has ended at this time.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Whether a caller with this grant may see the topic in a list of topics, or among the
    /// addresses of an event.
    pub fn covers_topic(&self, topic: &Topic) -> bool {
        self.subscribe.iter().any(|granted| granted.matches(topic))
    }

    /// Checks that each requested selector is contained in a granted selector.
    ///
    /// # Errors
    ///
    /// [`AccessError::TopicDenied`] with the first requested selector that is not contained.
    pub fn check_subscribe<'a>(
        &self,
        asked: impl IntoIterator<Item = &'a TopicSelector>,
    ) -> Result<(), AccessError> {
        let is_granted = |asked| self.subscribe.iter().any(|granted| contains(granted, asked));
        match asked.into_iter().find(|asked| !is_granted(asked)) {
            Some(selector) => Err(AccessError::TopicDenied { selector: selector.clone() }),
            None => Ok(()),
        }
    }

    /// Checks the right to read the inbox of a client. A grant with a client may read only the
    /// inbox of this client. A grant without a client may read every inbox if it has the right to
    /// issue tickets.
    ///
    /// # Errors
    ///
    /// [`AccessError::ClientDenied`] if the grant may not read this inbox.
    pub fn check_client(&self, asked: &ClientId) -> Result<(), AccessError> {
        let is_granted = self.client.as_ref().map_or(self.issue, |client| client == asked);
        is_granted.then_some(()).ok_or_else(|| AccessError::ClientDenied { client: asked.clone() })
    }

    /// Checks the right to publish to one address. Each address of an event needs its own right.
    ///
    /// # Errors
    ///
    /// [`AccessError::TopicDenied`] or [`AccessError::RightMissing`].
    pub fn check_publish(&self, address: &Address) -> Result<(), AccessError> {
        match address {
            Address::Topic(topic) => {
                let is_granted = self.publish.iter().any(|granted| granted.matches(topic));
                let denied = || AccessError::TopicDenied { selector: topic.clone().into() };
                is_granted.then_some(()).ok_or_else(denied)
            }
            Address::Client(_) => self.check(Right::PublishClients),
            // An address of an unknown kind needs the widest right to publish.
            _ => self.check(Right::Everyone),
        }
    }

    /// Checks a right that does not depend on a topic.
    ///
    /// # Errors
    ///
    /// [`AccessError::RightMissing`] names the right.
    pub fn check(&self, right: Right) -> Result<(), AccessError> {
        let is_granted = match right {
            Right::Everyone => self.everyone,
            Right::PublishClients => self.publish_clients,
            Right::Issue => self.issue,
            Right::Follow => self.follow,
            Right::Admin => self.admin,
        };
        is_granted.then_some(()).ok_or(AccessError::RightMissing { right })
    }
}

/// A builder and an accessor for each right that is a flag.
macro_rules! rights {
    ($($right:ident, $with:ident: $meaning:literal;)*) => {
        impl Grant {
            $(
                #[doc = concat!("Sets the right to ", $meaning, ".")]
                pub const fn $with(mut self, $right: bool) -> Self {
                    self.$right = $right;
                    self
                }

                #[doc = concat!("Whether the grant has the right to ", $meaning, ".")]
                pub const fn $right(&self) -> bool {
                    self.$right
                }
            )*
        }
    };
}

rights! {
    publish_clients, with_publish_clients: "publish to the inboxes of clients";
    hear_everyone, with_hear_everyone: "receive the events for everyone";
    everyone, with_everyone: "publish to everyone";
    issue, with_issue: "issue tickets";
    follow, with_follow: "follow the whole log, as a relay does";
    admin, with_admin: "administer the server";
}

impl Default for Grant {
    fn default() -> Self {
        Self::none()
    }
}

/// The selector that matches every topic.
fn every_topic() -> Vec<TopicSelector> {
    TopicSelector::parse("*").into_iter().collect()
}
