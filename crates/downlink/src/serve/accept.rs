//! The accept loop: from a listener to connections, to the end of the server.
//!
//! It owns every connection as a task, so dropping it closes them all. At the limit of connections
//! a newcomer is refused and the others stay. A shortage of descriptors pauses accepting instead of
//! spinning. After the signal the loop accepts nothing and lets the connections end. At the
//! deadline it closes the rest, whatever the peers do.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::app::App;
use super::connection::{PeerIo, serve_peer, turn_away};
use super::direct::{self, ConnectionFuture};
use super::drain::Drain;
use super::limits::{REFUSALS_MAX, ServeLimits};
use super::listener::Listener;
use super::server::Server;

/// How long accepting pauses when descriptors or memory have run out.
///
/// Long enough that failing costs no noticeable CPU, short enough that no connection attempt times
/// out over it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the connections that are left at the deadline may take to end.
///
/// The task of a closed connection ends at its next poll, unless app code blocks a thread. Half
/// would give up on a busy machine; double would be felt as a late end.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Completes when the server has to drain.
pub(super) type Signal = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Accepts connections until the signal, then waits for their end, at most `drain_within`.
///
/// # Errors
///
/// The listener's, if it can accept nothing any more; the connections drain all the same.
///
/// # Cancel safety
///
/// Dropping it closes the listener and every connection.
pub(super) async fn run<L, A, Kind>(
    listener: L,
    app: A,
    settings: (ServeLimits, Vec<String>),
    mut signal: Signal,
) -> io::Result<()>
where
    L: Listener,
    A: App<L::Addr, Kind>,
    Kind: 'static,
{
    let drain_within = settings.0.drain_within;
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

/// Accepts one connection, after a pause, and gives the listener back with it.
///
/// Owning the listener lets this future live on while other things happen in the loop: accepting
/// may be more than one step, and must not start over each time a connection ends.
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
    tasks: JoinSet<()>,
    /// The drivers of the streams that were handed over.
    drivers: JoinSet<()>,
    /// Connections whose stream has ended.
    resumed: UnboundedReceiver<ConnectionFuture>,
    /// A permit is a newcomer that may be refused now.
    refusals: Arc<Semaphore>,
}

impl<A> Connections<A> {
    fn new<Io: PeerIo>(app: A, (limits, answered_at_limit): (ServeLimits, Vec<String>)) -> Self {
        let drain = Arc::new(Drain::new(limits.reconnection));
        let mut drivers = JoinSet::new();
        // The queue is never longer than the number of connections.
        let (sender, resumed) = mpsc::unbounded_channel();
        let streams = direct::start::<Io>(&mut drivers, &drain, limits.write_stall_max, &sender);
        let permits = Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS));
        let server = Arc::new(Server { limits, answered_at_limit, drain, streams, permits });
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        Self { app, server, tasks: JoinSet::new(), drivers, resumed, refusals }
    }

    /// Serves a newcomer if there is a permit, else refuses it, else drops it.
    fn admit<Io, Addr, Kind>(&mut self, io: Io, peer: Addr)
    where
        Io: PeerIo,
        Addr: Clone + std::fmt::Debug + Send + Sync + 'static,
        A: App<Addr, Kind>,
        Kind: 'static,
    {
        if let Some(permit) = self.server.try_permit() {
            self.tasks.spawn(serve_peer(io, peer, self.app.clone(), permit));
        } else if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            tracing::debug!(?peer, "refused a connection: connections_max reached");
            let server = Arc::clone(&self.server);
            self.tasks.spawn(turn_away(io, peer, self.app.clone(), server, permit));
        } else {
            tracing::debug!(?peer, "dropped a connection: too many are being refused");
        }
    }

    /// Waits for the end of a connection, or of its stream; forever if there is none.
    async fn one_ended(&mut self) {
        tokio::select! {
            Some(connection) = self.resumed.recv() => {
                self.tasks.spawn(connection);
            }
            Some(ended) = self.tasks.join_next() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    // The app's code must have caused it.
                    tracing::error!("a handler panicked; its connection is closed");
                }
            }
            else => std::future::pending().await,
        }
    }

    /// Asks all connections to end and waits until they have; closes the rest at the deadline.
    async fn drain(mut self, within: Duration) {
        self.server.drain.begin();
        if timeout(within, self.all_ended()).await.is_ok() {
            return;
        }
        let left = self.tasks.len() + self.server.streams.len();
        tracing::warn!(left, "drain deadline: closing what is left");
        self.tasks.abort_all();
        self.drivers.abort_all();
        if timeout(CLOSE_WITHIN, self.all_closed()).await.is_err() {
            let left = self.tasks.len() + self.drivers.len();
            tracing::error!(left, "the app blocks connections from closing");
        }
    }

    /// Waits until no connection is left, in its own task or at a driver.
    async fn all_ended(&mut self) {
        let server = Arc::clone(&self.server);
        loop {
            tokio::select! {
                // Also spawns resumed connections, which must learn of the drain.
                () = self.one_ended() => {}
                // Only without tasks: they make streams.
                () = server.streams.all_ended(), if self.tasks.is_empty() => {
                    // The driver may have sent the last of them just before.
                    match self.resumed.try_recv() {
                        Ok(connection) => self.tasks.spawn(connection),
                        Err(_) => return,
                    };
                }
            }
        }
    }

    /// Waits until the tasks are gone.
    async fn all_closed(&mut self) {
        while self.tasks.join_next().await.is_some() {}
        while self.drivers.join_next().await.is_some() {}
    }
}

/// How long accepting pauses after an error; `None` if the listener is unusable.
///
/// A listener that cannot recover is a mistake of the caller. Unknown errors cause a pause, since
/// systems report problems of the network here too.
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
            tracing::warn!(%error, "accepting pauses");
            Some(ACCEPT_PAUSE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aborted_connection_is_skipped() {
        let aborted = io::Error::from(io::ErrorKind::ConnectionAborted);
        assert_eq!(pause_after(&aborted), Some(Duration::ZERO));
    }

    #[cfg(unix)]
    #[test]
    fn exhaustion_pauses() {
        use rustix::io::Errno;

        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(pause_after(&errno.into()), Some(ACCEPT_PAUSE), "{errno}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn socket_that_does_not_listen_ends_the_server() {
        assert_eq!(pause_after(&rustix::io::Errno::INVAL.into()), None);
    }
}
