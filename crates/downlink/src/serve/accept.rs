//! The accept loop: accepts connections from a listener until the server ends.
//!
//! The loop owns every connection as a task, so dropping the loop closes them all. At the limit of
//! connections, the loop refuses new connections and keeps the open ones. When file descriptors run
//! out, the loop pauses, since retrying at once would only keep the processor busy. After the
//! signal to drain (to shut down gracefully), the loop accepts nothing and waits for the
//! connections to end. At the deadline of the drain, the loop closes the connections that are still
//! open.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::addresses::PeerAddr;
use super::app::App;
use super::connection::{PeerIo, serve_peer, turn_away};
use super::direct::{self, ConnectionFuture};
use super::drain::Drain;
use super::limits::{REFUSALS_MAX, ServeLimits};
use super::listener::Listener;
use super::peers::{Excess, PeerRules, Peers};
use super::server::{AdmittedPeer, Permit, Server};
use super::stats::ServeStats;

/// How long accepting pauses when file descriptors or memory have run out.
///
/// The pause is long enough that the retries cost no noticeable processor time. It is short enough
/// that no connection attempt times out because of it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the tasks of the remaining connections may take to end after the deadline of the drain.
///
/// The task of a closed connection ends at its next poll, unless app code blocks a thread. A busy
/// machine may need most of this time for these polls. With a longer wait, people would notice that
/// the server ends late.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// The settings of a server.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) limits: ServeLimits,
    /// The paths that the app answers even at a limit of connections.
    pub(super) answered_at_limit: Vec<String>,
    pub(super) peers: PeerRules,
    pub(super) stats: ServeStats,
}

/// Completes when the server should drain.
pub(super) type Signal = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Accepts connections until `signal` completes. Then waits for the connections to end, for at most
/// `drain_within`.
///
/// # Errors
///
/// The listener's error, if the listener can accept no more connections. The open connections are
/// drained in this case too.
///
/// # Cancel safety
///
/// Dropping the future closes the listener and every connection.
pub(super) async fn run<L, A, Kind>(
    listener: L,
    app: A,
    settings: Settings,
    mut signal: Signal,
) -> io::Result<()>
where
    L: Listener,
    A: App<L::Addr, Kind>,
    Kind: 'static,
{
    let drain_within = settings.limits.drain_within;
    let mut connections = Connections::new::<L::Io>(app, settings);
    let mut accepting = Box::pin(accept(listener, Duration::ZERO));
    let outcome = loop {
        let (listener, accepted) = tokio::select! {
            () = &mut signal => break Ok(()),
            () = connections.one_ended() => continue,
            accepted = &mut accepting => accepted,
        };
        let pause = match accepted {
            Ok((io, peer)) => {
                connections.admit(io, peer);
                Duration::ZERO
            }
            Err(error) => match pause_after(&error) {
                Some(pause) => pause,
                None => break Err(error),
            },
        };
        accepting.set(accept(listener, pause));
    };
    drop(accepting);
    connections.drain(drain_within).await;
    outcome
}

/// Waits for `pause`, accepts one connection, and returns the listener with the connection.
///
/// The future owns the listener, so the loop can keep the future while it does other things.
/// Accepting may have several steps. If the loop dropped the future whenever a connection ends,
/// these steps would start again.
async fn accept<L: Listener>(
    mut listener: L,
    pause: Duration,
) -> (L, io::Result<(L::Io, L::Addr)>) {
    if !pause.is_zero() {
        sleep(pause).await;
    }
    let accepted = listener.accept().await;
    (listener, accepted)
}

/// The connections of a server and the app that they share.
struct Connections<A> {
    app: A,
    server: Arc<Server>,
    /// The value that stands for the peer of every connection without a limit for its address. All
    /// these connections share it (see [`AdmittedPeer`]).
    uncounted: Arc<AdmittedPeer>,
    tasks: JoinSet<()>,
    /// The drivers: the tasks that serve event streams without hyper (see `direct`).
    drivers: JoinSet<()>,
    /// Receives the connections that drivers give back after the end of a stream.
    resumed: UnboundedReceiver<ConnectionFuture>,
    /// The permits for connections beyond `connections_max`. A connection holds one of them while
    /// the server refuses or answers it.
    refusals: Arc<Semaphore>,
}

impl<A> Connections<A> {
    fn new<Io: PeerIo>(app: A, settings: Settings) -> Self {
        let Settings { limits, answered_at_limit, peers, stats } = settings;
        stats.begin(limits.connections_max);
        let drain = Arc::new(Drain::new(limits.reconnection));
        let mut drivers = JoinSet::new();
        // The queue needs no limit, because it is never longer than the number of connections.
        let (sender, resumed) = mpsc::unbounded_channel();
        let write_stall_max = limits.write_stall_max;
        let streams = direct::start::<Io>(&mut drivers, &drain, write_stall_max, &sender, &stats);
        let permits = Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS));
        let (peers, address_refusals) = (Peers::new(peers), Arc::new(Semaphore::new(REFUSALS_MAX)));
        let server = Arc::new(Server {
            limits,
            answered_at_limit,
            drain,
            streams,
            permits,
            peers,
            address_refusals,
            stats,
        });
        let uncounted = Arc::new(AdmittedPeer::of_all(Arc::clone(&server)));
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        Self { app, server, uncounted, tasks: JoinSet::new(), drivers, resumed, refusals }
    }

    /// Serves a new connection if its address may connect and a permit is left. Otherwise refuses
    /// the connection. If the server is already refusing too many connections, drops the new one.
    fn admit<Io, Addr, Kind>(&mut self, io: Io, peer: Addr)
    where
        Io: PeerIo,
        Addr: Clone + std::fmt::Debug + Send + Sync + 'static,
        A: App<Addr, Kind>,
        Kind: 'static,
    {
        let counted = self.uncounted.count(PeerAddr::of(&peer));
        let permit = counted.and_then(|counted| Permit::take(counted).ok_or(Excess::Connections));
        let excess = match permit {
            Ok(permit) => {
                self.tasks.spawn(serve_peer(io, peer, self.app.clone(), permit));
                return;
            }
            Err(excess) => excess,
        };
        self.server.stats.note_refused(excess);
        // Connections beyond a limit of their address have their own permits. Otherwise, a flood
        // from some addresses could use up the permits for the connections of all other addresses.
        let refusals = match excess {
            Excess::Connections => &self.refusals,
            Excess::OfAddress | Excess::Connects => &self.server.address_refusals,
        };
        if let Ok(permit) = Arc::clone(refusals).try_acquire_owned() {
            tracing::debug!(?peer, ?excess, "refused a connection");
            let server = Arc::clone(&self.server);
            self.tasks.spawn(turn_away(io, peer, self.app.clone(), server, (excess, permit)));
        } else {
            tracing::debug!(
                ?peer,
                "closed a connection without an answer, because too many connections are being refused"
            );
        }
    }

    /// Waits until the task of a connection ends or a driver gives a connection back. Waits for
    /// ever if there is no connection.
    async fn one_ended(&mut self) {
        tokio::select! {
            Some(connection) = self.resumed.recv() => {
                self.tasks.spawn(connection);
            }
            Some(ended) = self.tasks.join_next() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    // Only the app's code can have caused the panic.
                    tracing::error!("a handler of the app panicked; its connection is closed");
                }
            }
            else => std::future::pending().await,
        }
    }

    /// Asks all connections to end and waits until they have ended. Closes the remaining
    /// connections at the deadline.
    async fn drain(mut self, within: Duration) {
        self.server.drain.begin();
        if timeout(within, self.all_ended()).await.is_ok() {
            return;
        }
        let left = self.tasks.len() + self.server.streams.len();
        tracing::warn!(left, "drain deadline reached; closing the remaining connections");
        self.tasks.abort_all();
        self.drivers.abort_all();
        if timeout(CLOSE_WITHIN, self.all_closed()).await.is_err() {
            let left = self.tasks.len() + self.drivers.len();
            tracing::error!(
                left,
                "connections are still open after the drain, because the app blocks their threads"
            );
        }
    }

    /// Waits until no connection is left, neither in its own task nor at a driver.
    async fn all_ended(&mut self) {
        let server = Arc::clone(&self.server);
        loop {
            tokio::select! {
                // `one_ended` also spawns the connections that drivers give back. Their tasks then
                // see the drain.
                () = self.one_ended() => {}
                // The end of the streams is awaited only when no task is left, because a task may
                // hand a new stream over to a driver.
                () = server.streams.all_ended(), if self.tasks.is_empty() => {
                    // A driver may have given back the last connection just before this moment.
                    match self.resumed.try_recv() {
                        Ok(connection) => self.tasks.spawn(connection),
                        Err(_) => return,
                    };
                }
            }
        }
    }

    /// Waits until all tasks have ended.
    async fn all_closed(&mut self) {
        while self.tasks.join_next().await.is_some() {}
        while self.drivers.join_next().await.is_some() {}
    }
}

/// How long accepting pauses after an error. `None` if the listener is unusable.
///
/// An unusable listener is a mistake of the caller, and retrying cannot help. An unknown error only
/// causes a pause, because some systems report temporary network problems as errors of `accept`.
fn pause_after(error: &io::Error) -> Option<Duration> {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, InvalidInput,
    };
    match error.kind() {
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted => {
            Some(Duration::ZERO)
        }
        InvalidInput => None,
        _ => {
            tracing::warn!(%error, "cannot accept connections; trying again after a pause");
            Some(ACCEPT_PAUSE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aborted_connection_is_skipped() {
        let aborted = io::Error::from(io::ErrorKind::ConnectionAborted);
        assert_eq!(pause_after(&aborted), Some(Duration::ZERO));
    }

    #[cfg(unix)]
    #[test]
    fn accepting_pauses_when_resources_run_out() {
        use rustix::io::Errno;

        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(pause_after(&errno.into()), Some(ACCEPT_PAUSE), "{errno}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_socket_that_does_not_listen_ends_the_server() {
        assert_eq!(pause_after(&rustix::io::Errno::INVAL.into()), None);
    }
}
