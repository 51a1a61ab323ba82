//! Observing connects, disconnects and gaps.

use super::{ClientId, Gap, control::word};

/// One subscription, as observers know it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Connection {
    /// Unique among the subscriptions of a hub.
    pub number: u64,
    /// The client that it belongs to.
    pub client: Option<ClientId>,
    /// Whether it goes on after an event id that the client gave and the hub knew.
    pub resumed: bool,
}

/// Why a subscription ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// It was dropped: the peer left, or its response came to its end.
    Left,
    /// Every topic it reads is finished and read.
    Finished,
    /// The hub was drained.
    Drained,
    /// The hub was closed.
    Closed,
    /// The client was disconnected on request.
    Disconnected,
    /// Retention overtook it, and the hub's lag policy is to disconnect.
    Lagged,
    /// Its filter panicked.
    FilterPanicked,
    /// The store could not be read; it may come back.
    Unreadable,
    /// Its peer read nothing for too long.
    Stalled,
}

/// The reasons for ends, each with its word in logs and metrics.
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
    /// The word for it in logs and metrics.
    pub fn as_str(self) -> &'static str {
        word(&DISCONNECT_REASONS, self)
    }
}

/// Observes subscriptions. The hub calls it in the task where the event happens, with no lock held.
///
/// Be brief: a response waits for you. A panic is caught and logged. When `disconnected` is called,
/// the hub's numbers no longer count the subscription.
///
/// An observer that keeps a handle to its hub keeps the hub alive for ever. Keep a channel instead.
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

    /// A subscription has a gap.
    fn gap(&self, connection: &Connection, gap: &Gap) {
        let _ = (connection, gap);
    }
}
