//! The sender of a request, with its grant (the rights that its credential gives), and the checks
//! of these rights.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use downlink_access::{Access, AccessError, Grant, IssueError, Proof, Right, Verified};
use downlink_log::{Address, ClientId, Selection, Timestamp, TopicSelector};

use super::refusal::Refusal;

/// The sender of a request, with verified rights. Clones are cheap.
///
/// The [`AccessLayer`](super::AccessLayer) puts a caller into the extensions of each request. With
/// the feature `axum`, this type is an extractor. A request without a credential has a caller too.
/// This caller may only read the events for everyone and the topics that the app has declared
/// public (see [`AccessOptions`](downlink_access::AccessOptions)).
///
/// Each check also finds out whether the rights of the caller have ended since the request began. A
/// handler that runs for a long time can check the rights again.
///
/// # Examples
///
/// An app that identifies its users by its own sessions makes the caller itself:
///
/// ```
/// use downlink::access::Caller;
/// use downlink::hub::{ClientId, Selection, TopicSelector};
/// use downlink_access::{Access, AccessOptions, Grant};
///
/// let access = Access::new(AccessOptions::default());
/// let grant = Grant::none()
///     .with_client(ClientId::new("ada")?)
///     .with_subscribe(TopicSelector::parse("orders/*")?);
/// let ada = Caller::trusted(access, grant);
/// let orders = Selection { selectors: vec![TopicSelector::parse("orders/7")?], client: None };
/// assert!(ada.check_subscription(&orders).is_ok());
/// # Ok::<(), downlink::hub::InvalidName>(())
/// ```
#[derive(Clone, Debug)]
pub struct Caller(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    access: Access,
    verified: Verified,
    /// The reason why the cookie of the request is not accepted. The caller then has the rights of
    /// a request without a credential, and this reason is the error of every failed check.
    bad_cookie: Option<AccessError>,
    is_event_source: bool,
}

impl Caller {
    /// The caller with this verified credential. `is_event_source` says whether an `EventSource` of
    /// a browser has sent the request (see [`Refusal`]).
    pub fn new(access: Access, verified: Verified, is_event_source: bool) -> Self {
        Self(Arc::new(Parts { access, verified, bad_cookie: None, is_event_source }))
    }

    /// The caller of a request whose cookie is not accepted. The caller has the rights of a request
    /// without a credential. If a check fails, the error says what is wrong with the cookie.
    pub fn with_bad_cookie(access: Access, error: AccessError, is_event_source: bool) -> Self {
        let (verified, bad_cookie) = (Verified::nobody(now()), Some(error));
        Self(Arc::new(Parts { access, verified, bad_cookie, is_event_source }))
    }

    /// A caller whom the app itself has verified, for example by a session.
    pub fn trusted(access: Access, grant: Grant) -> Self {
        Self::new(access, Verified::trusted(grant, now()), false)
    }

    /// The verified credential.
    pub fn verified(&self) -> &Verified {
        &self.0.verified
    }

    /// The rights.
    pub fn grant(&self) -> &Grant {
        self.verified().grant()
    }

    /// The client id of the caller, if it has one.
    pub fn client(&self) -> Option<&ClientId> {
        self.grant().client()
    }

    /// The [`Access`] that verified the caller.
    pub fn access(&self) -> &Access {
        &self.0.access
    }

    /// Checks that the request has a credential.
    ///
    /// # Errors
    ///
    /// [`AccessError::TokenMissing`], or the error of the cookie if it is not accepted.
    pub fn check_credential(&self) -> Result<(), Refusal> {
        match self.verified().proof() {
            Proof::Nothing => Err(self.refusal(AccessError::TokenMissing)),
            _ => Ok(()),
        }
    }

    /// Checks that a subscription is allowed.
    ///
    /// # Errors
    ///
    /// As [`Access::check_subscription`].
    pub fn check_subscription(&self, asked: &Selection) -> Result<(), Refusal> {
        let checked = self.access().check_subscription(self.verified(), asked, now());
        checked.map_err(|error| self.refusal(error))
    }

    /// Checks the right to publish to every address of an event.
    ///
    /// # Errors
    ///
    /// As [`Access::check_publish`].
    pub fn check_publish(&self, addresses: &[Address]) -> Result<(), Refusal> {
        let checked = self.access().check_publish(self.verified(), addresses, now());
        checked.map_err(|error| self.refusal(error))
    }

    /// Checks a right that does not depend on a topic.
    ///
    /// # Errors
    ///
    /// As [`Access::recheck`] and [`Verified::check`].
    pub fn check(&self, right: Right) -> Result<(), Refusal> {
        let holds = self.access().recheck(self.verified(), &[], now());
        let checked = holds.and_then(|()| self.verified().check(right));
        checked.map_err(|error| self.refusal(error))
    }

    /// Issues a ticket for these topics. A ticket is a credential that a page puts into the address
    /// of a stream. Returns the ticket and the time at which it ends. See [`Access::issue`].
    ///
    /// # Errors
    ///
    /// As [`Access::issue`]. The operator `?` converts the [`IssueError`] into a [`Refusal`].
    pub fn issue(
        &self,
        topics: Vec<TopicSelector>,
        client: Option<ClientId>,
        lifetime: Duration,
    ) -> Result<(String, Timestamp), IssueError> {
        self.access().issue(self.verified(), topics, client, lifetime)
    }

    /// Completes the selection of a request. If the selection has no topics and the credential is a
    /// ticket, the topics of the ticket are added. If the selection has no client, the client of
    /// the grant is added, so that the caller gets the events for this client.
    #[must_use]
    pub fn completed(&self, mut asked: Selection) -> Selection {
        let is_ticket = matches!(self.verified().proof(), Proof::Ticket { .. });
        if is_ticket && asked.selectors.is_empty() {
            asked.selectors.extend_from_slice(self.grant().subscribe());
        }
        asked.client = asked.client.or_else(|| self.client().cloned());
        asked
    }

    /// The refusal for an error of this caller. If the cookie is not accepted, its error replaces
    /// `error`.
    pub fn refusal(&self, error: AccessError) -> Refusal {
        let error = self.0.bad_cookie.clone().unwrap_or(error);
        Refusal::new(error, self.0.is_event_source)
    }
}

/// The current time. The crate `downlink-access` has no clock, so its calls get the time from here.
pub(super) fn now() -> Timestamp {
    SystemTime::now().into()
}
