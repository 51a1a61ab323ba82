//! The observer of a hub, which the hub calls at connects, disconnects and gaps.

use std::time::Duration;

use super::{ClientId, Gap, TopicSelector};

/// The subscription that was opened, has ended, or got a gap. Observers get it as an argument.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Connection {
    /// The number of the subscription, unique in its hub.
    pub number: u64,
    /// The client of the subscription, if it has one.
    pub client: Option<ClientId>,
    /// The topics and patterns of the subscription.
    pub selectors: Vec<TopicSelector>,
    /// Whether the subscription resumed: its client gave a last event id that the hub knew.
    pub resumed: bool,
    /// How long the subscription has been open.
    pub age: Duration,
    /// The number of events that the subscription has read, or 4,294,967,295 if there are more.
    pub events: u64,
    /// The size of these events as the hub encoded them, in bytes.
    pub bytes: u64,
    /// How far the subscription is behind, in offsets. See
    /// [`ClientOverview::lag`](super::ClientOverview).
    pub lag: u64,
    /// The numbers from [`Subscribe::tag`](super::Subscribe::tag).
    pub tag: [u64; 2],
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The subscription was dropped, because the peer left or the response ended for a reason that
    /// the hub does not know.
    Left,
    /// All topics of the subscription are finished, and the subscription has read all of their
    /// events.
    Finished,
    /// The hub was drained.
    Drained,
    /// The hub was closed.
    Closed,
    /// The app disconnected the client: see [`Hub::disconnect`](super::Hub::disconnect).
    Disconnected,
    /// Retention evicted events before the subscription read them, and the hub's lag policy is to
    /// disconnect.
    Lagged,
    /// The subscription's filter panicked.
    FilterPanicked,
    /// The store could not be read. The client may reconnect.
    Unreadable,
    /// The subscription's peer read nothing for too long.
    Stalled,
    /// The response reached its maximum age or its expiry, such as the expiry of a token.
    Expired,
    /// The rights of the client ended before their expiry, for example because they were revoked.
    Revoked,
}

impl DisconnectReason {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::Left,
        Self::Finished,
        Self::Drained,
        Self::Closed,
        Self::Disconnected,
        Self::Lagged,
        Self::FilterPanicked,
        Self::Unreadable,
        Self::Stalled,
        Self::Expired,
        Self::Revoked,
    ];

    /// The word for this reason in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Finished => "finished",
            Self::Drained => "drained",
            Self::Closed => "closed",
            Self::Disconnected => "disconnected",
            Self::Lagged => "lagged",
            Self::FilterPanicked => "filter_panicked",
            Self::Unreadable => "unreadable",
            Self::Stalled => "stalled",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// Observes subscriptions. The hub calls the observer in the task that connects, disconnects or
/// gets the gap. The hub holds no lock during the call.
///
/// The observer should return quickly, because a response waits for it. If the observer panics, the
/// hub catches and logs the panic. When the hub calls `disconnected`, the field `subscribers` of
/// the hub's [`Stats`](super::Stats) no longer counts the subscription.
///
/// An observer that holds a handle to its hub keeps the hub alive for ever. Let it hold the sender
/// of a channel instead, as in the example.
///
/// # Examples
///
/// ```
/// use downlink::hub::{Connection, DisconnectReason, Hub, Observer};
///
/// struct Presence(std::sync::mpsc::Sender<String>);
///
/// impl Observer for Presence {
///     fn connected(&self, connection: &Connection) {
///         let _ = self.0.send(format!("{} is here", connection.number));
///     }
///
///     fn disconnected(&self, connection: &Connection, reason: DisconnectReason) {
///         let _ = self.0.send(format!("{} {}", connection.number, reason.as_str()));
///     }
/// }
///
/// let (sender, _heard) = std::sync::mpsc::channel();
/// let hub = Hub::<String>::builder().text().observer(Presence(sender)).build()?;
/// # Ok::<(), downlink::hub::HubError>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// A subscription was opened.
    fn connected(&self, connection: &Connection) {
        let _ = connection;
    }

    /// A subscription ended.
    fn disconnected(&self, connection: &Connection, reason: DisconnectReason) {
        let _ = (connection, reason);
    }

    /// A subscription got a gap.
    fn gap(&self, connection: &Connection, gap: &Gap) {
        let _ = (connection, gap);
    }
}
