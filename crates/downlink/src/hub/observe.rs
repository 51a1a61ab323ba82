//! The observer of a hub, which the hub calls at connects, disconnects and gaps.

use super::{ClientId, Gap, control::word};

/// The subscription that was opened, has ended, or got a gap. Observers get it as an argument.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Connection {
    /// The number of the subscription, unique in its hub.
    pub number: u64,
    /// The client of the subscription, if it has one.
    pub client: Option<ClientId>,
    /// Whether the subscription resumed: its client gave a last event id that the hub knew.
    pub resumed: bool,
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The subscription was dropped, because the peer left or the response ended.
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
}

/// The disconnect reasons, each with its word in logs and metrics.
pub(super) const DISCONNECT_REASONS: [(DisconnectReason, &str); 9] = [
    (DisconnectReason::Left, "left"),
    (DisconnectReason::Finished, "finished"),
    (DisconnectReason::Drained, "drained"),
    (DisconnectReason::Closed, "closed"),
    (DisconnectReason::Disconnected, "disconnected"),
    (DisconnectReason::Lagged, "lagged"),
    (DisconnectReason::FilterPanicked, "filter_panicked"),
    (DisconnectReason::Unreadable, "unreadable"),
    (DisconnectReason::Stalled, "stalled"),
];

impl DisconnectReason {
    /// The word for this reason in logs and metrics.
    pub fn as_str(self) -> &'static str {
        word(&DISCONNECT_REASONS, self)
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
