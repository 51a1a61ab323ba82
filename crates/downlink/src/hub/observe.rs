//! Being told of connects, disconnects and gaps; the same goes to `tracing`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{ClientId, Gap, control};

/// One subscription, as observers know it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Connection {
    /// Unique among the subscriptions of a hub.
    pub number: u64,
    /// Whose it is.
    pub client: Option<ClientId>,
    /// Whether it began with an id or a position.
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
    /// Somebody disconnected this client.
    Disconnected,
    /// Retention overtook it, and it was to be disconnected then.
    Lagged,
    /// Its filter panicked.
    FilterPanicked,
    /// The store could not be read; it may come back.
    Unreadable,
}

impl DisconnectReason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Left,
        Self::Finished,
        Self::Drained,
        Self::Closed,
        Self::Disconnected,
        Self::Lagged,
        Self::FilterPanicked,
        Self::Unreadable,
    ];

    /// The word for it in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Finished => "finished",
            Self::Drained => "drained",
            Self::Closed => "closed",
            Self::Disconnected => "disconnected",
            Self::Lagged => "lagged",
            Self::FilterPanicked => "filter_panicked",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Is told what happens to subscriptions, in the task where it happens and with no lock held.
///
/// Be brief: a response waits for you. A panic is caught and logged. Who is told that a subscription
/// has ended finds it gone from the hub's numbers.
///
/// An observer that keeps a handle to its hub keeps the hub for ever; let it keep a channel.
///
/// # Examples
///
/// ```
/// use downlink::hub::{Connection, DisconnectReason, HubBuilder, Observer};
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
/// let hub = HubBuilder::<String>::text().observer(Presence(sender)).build()?;
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

    /// A subscription was told of a gap.
    fn gap(&self, connection: &Connection, gap: &Gap) {
        let _ = (connection, gap);
    }
}

/// What happened to a subscription.
pub(super) enum HubEvent<'a> {
    Connected,
    Disconnected(DisconnectReason),
    Gap(&'a Gap),
}

/// Notifies an observer and `tracing`.
pub(super) fn notify(
    observer: Option<&dyn Observer>,
    connection: &Connection,
    event: &HubEvent<'_>,
) {
    trace(connection, event);
    let Some(observer) = observer else { return };
    let notified = catch_unwind(AssertUnwindSafe(|| match event {
        HubEvent::Connected => observer.connected(connection),
        HubEvent::Disconnected(reason) => observer.disconnected(connection, *reason),
        HubEvent::Gap(gap) => observer.gap(connection, gap),
    }));
    if notified.is_err() {
        tracing::error!(connection = connection.number, "the hub's observer panicked");
    }
}

fn trace(connection: &Connection, event: &HubEvent<'_>) {
    let number = connection.number;
    // Client ids come from outside: Debug escapes them.
    let client = connection.client.as_ref().map(ClientId::as_str);
    match event {
        HubEvent::Connected => {
            tracing::debug!(number, ?client, resumed = connection.resumed, "subscribed");
        }
        HubEvent::Disconnected(reason) => {
            tracing::debug!(number, ?client, reason = reason.as_str(), "unsubscribed");
        }
        HubEvent::Gap(gap) => {
            let reason = control::reason_word(gap.reason);
            tracing::info!(number, ?client, reason, after = ?gap.after, "gap");
        }
    }
}
