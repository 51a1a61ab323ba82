//! The numbers of a running server: its connections, the connections that it refused, and the bytes
//! that it sent.
//!
//! Counting must not slow down deliveries. So each driver (a task that serves many event
//! streams) has its own counter of bytes, and adds to it once in each round.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::peers::Excess;

/// The numbers of a server, from [`Serve::record_stats`](super::Serve::record_stats). Clones are
/// handles to the same numbers.
///
/// Make one for each server, and give clones of it to the app. The counts begin when the value is
/// made. Before the server runs, all numbers are 0. Each method reads a few atomic numbers, so a
/// health check or a metrics handler can call it at any time.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "axum")]
/// # async fn example() -> std::io::Result<()> {
/// use axum::{Router, routing::get};
/// use downlink::serve::ServeStats;
/// use tokio::net::TcpListener;
///
/// let stats = ServeStats::new();
/// let shown = stats.clone();
/// let open = async move || format!("{} of {}", shown.connections(), shown.connections_max());
/// let app = Router::new().route("/open", get(open));
/// let listener = TcpListener::bind("127.0.0.1:8080").await?;
/// downlink::serve(listener, app).record_stats(&stats).await
/// # }
/// ```
#[derive(Clone, Default)]
pub struct ServeStats(Arc<Counts>);

/// Every access is Relaxed, because the numbers are only shown.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    connections_max: AtomicUsize,
    refused: [AtomicU64; RefusedConnection::ALL.len()],
    /// The bytes that connections outside of drivers have sent.
    sent_bytes: AtomicU64,
    /// The bytes that each driver has sent. The lock is held alone, for a moment.
    drivers: Mutex<Vec<Arc<AtomicU64>>>,
}

/// The limit because of which a server refused a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum RefusedConnection {
    /// [`Serve::connections_max`](super::Serve::connections_max).
    ConnectionsMax,
    /// [`Serve::connections_per_address_max`](super::Serve::connections_per_address_max).
    ConnectionsPerAddressMax,
    /// [`Serve::connects_per_address`](super::Serve::connects_per_address).
    ConnectsPerAddress,
}

impl RefusedConnection {
    /// All reasons.
    pub const ALL: [Self; 3] =
        [Self::ConnectionsMax, Self::ConnectionsPerAddressMax, Self::ConnectsPerAddress];

    /// The name of the limit, for metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionsMax => "connections_max",
            Self::ConnectionsPerAddressMax => "connections_per_address_max",
            Self::ConnectsPerAddress => "connects_per_address",
        }
    }
}

impl From<Excess> for RefusedConnection {
    fn from(excess: Excess) -> Self {
        match excess {
            Excess::Connections => Self::ConnectionsMax,
            Excess::OfAddress => Self::ConnectionsPerAddressMax,
            Excess::Connects => Self::ConnectsPerAddress,
        }
    }
}

impl ServeStats {
    /// Makes a value whose numbers are 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of open connections that count towards
    /// [`connections_max`](Self::connections_max). A connection that the server is refusing counts
    /// only if a proxy has sent the address of its client.
    pub fn connections(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// The maximum number of open connections. It is 0 before the server runs.
    pub fn connections_max(&self) -> usize {
        self.0.connections_max.load(Ordering::Relaxed)
    }

    /// The number of connections that the server refused because of a limit. A connection counts
    /// even if it gets an answer because of
    /// [`Serve::answer_at_limit`](super::Serve::answer_at_limit), and even if the server closes it
    /// without an answer.
    pub fn connections_refused(&self, reason: RefusedConnection) -> u64 {
        self.0.refused[reason as usize].load(Ordering::Relaxed)
    }

    /// The number of bytes that the server gave to the sockets of its peers. It includes the heads
    /// of responses, the framing of HTTP, and the bytes of upgraded connections.
    pub fn sent_bytes(&self) -> u64 {
        let of_drivers =
            self.0.drivers.lock().iter().map(|sent| sent.load(Ordering::Relaxed)).sum();
        self.0.sent_bytes.load(Ordering::Relaxed).wrapping_add(of_drivers)
    }

    pub(super) fn begin(&self, connections_max: usize) {
        self.0.connections_max.store(connections_max, Ordering::Relaxed);
    }

    pub(super) fn note_open(&self) {
        self.0.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_closed(&self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn note_refused(&self, excess: Excess) {
        let reason = RefusedConnection::from(excess);
        self.0.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_sent(&self, bytes: usize) {
        self.0.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The counter of one driver.
    #[cfg(unix)]
    pub(super) fn of_driver(&self) -> DriverBytes {
        let sent = Arc::<AtomicU64>::default();
        self.0.drivers.lock().push(Arc::clone(&sent));
        DriverBytes(sent)
    }
}

impl fmt::Debug for ServeStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeStats")
            .field("connections", &self.connections())
            .field("connections_max", &self.connections_max())
            .field("sent_bytes", &self.sent_bytes())
            .finish_non_exhaustive()
    }
}

/// The number of bytes that one driver has sent. Only this driver writes it.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct DriverBytes(Arc<AtomicU64>);

#[cfg(unix)]
impl DriverBytes {
    /// Adds the bytes of one round. There is no other writer, so this needs no atomic addition.
    pub(super) fn add(&self, bytes: usize) {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(before.wrapping_add(bytes as u64), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let stats = ServeStats::new();
        stats.note_refused(Excess::OfAddress);
        stats.note_refused(Excess::Connects);
        stats.note_refused(Excess::Connects);
        let counts = RefusedConnection::ALL.map(|reason| stats.connections_refused(reason));
        assert_eq!(counts, [0, 1, 2]);
    }

    #[cfg(unix)]
    #[test]
    fn the_bytes_of_all_drivers_are_added() {
        let stats = ServeStats::new();
        let drivers = [stats.of_driver(), stats.of_driver()];
        drivers.iter().for_each(|driver| driver.add(100));
        drivers[0].add(5);
        stats.note_sent(1);
        assert_eq!(stats.sent_bytes(), 206);
    }
}
