//! The accept loop: from a listener to connections, to the end of the server.
//!
//! It owns every connection as a task, so dropping it closes them all. At the limit of connections
//! a newcomer is told when to return and the others stay; a shortage of descriptors pauses
//! accepting instead of spinning. After the signal it accepts nothing, lets the connections end,
//! and is over by the deadline whatever the peers do; then nothing of a connection is left.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::connection::{Shared, serve_peer, turn_away};
use super::direct::{Drivers, Served};
use super::drain::Drain;
use super::socket::SocketLimits;
use super::{App, Listener, REFUSALS_MAX};
use crate::http::Spread;

/// How long accepting pauses when descriptors or memory have run out.
///
/// Long enough that failing costs no noticeable CPU, short enough that nobody's connection attempt
/// times out over it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the connections that are left at the deadline may take to be gone.
///
/// A closed connection is gone as soon as its task has a turn; only app code that blocks a thread
/// makes it longer. Half would give up on a busy machine, double would be felt as a late end.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// What holds for all connections of a server.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) reconnection: Spread,
    pub(super) header_timeout: Duration,
    pub(super) socket: SocketLimits,
    pub(super) connections_max: usize,
}

/// When to end a server.
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
    limits: Limits,
    mut signal: Signal,
    drain_within: Duration,
) -> io::Result<()>
where
    L: Listener,
    A: App<L::Addr, Kind>,
    Kind: 'static,
{
    let mut connections = Connections::new(app, limits, Drivers::of::<L::Io>());
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
            Err(error) => match verdict(&error) {
                Verdict::Again => Duration::ZERO,
                Verdict::Pause => ACCEPT_PAUSE,
                Verdict::End => break Err(error),
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
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    /// The drivers of the streams that were handed over.
    drivers: JoinSet<()>,
    /// Connections whose stream has ended, to be served on.
    served_on: UnboundedReceiver<Served>,
    /// A permit is a connection that may be served.
    places: Arc<Semaphore>,
    /// A permit is a newcomer that may be told when to return.
    refusals: Arc<Semaphore>,
}

impl<A> Connections<A> {
    fn new(app: A, limits: Limits, mut prepared: Drivers) -> Self {
        let shared = Arc::new(Shared {
            drain: Arc::new(Drain::new(limits.reconnection)),
            header_timeout: limits.header_timeout,
            socket: limits.socket,
            streams: prepared.streams(),
        });
        let mut drivers = JoinSet::new();
        // As many may wait here as there are connections.
        let (sender, served_on) = mpsc::unbounded_channel();
        prepared.start(&mut drivers, &shared, &sender);
        Self {
            app,
            shared,
            tasks: JoinSet::new(),
            drivers,
            served_on,
            places: Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS))),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        }
    }

    /// Serves a newcomer if there is a place, else refuses it, else drops it.
    fn admit<Io, Addr, Kind>(&mut self, io: Io, peer: Addr)
    where
        Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        Addr: Clone + std::fmt::Debug + Send + Sync + 'static,
        A: App<Addr, Kind>,
        Kind: 'static,
    {
        let shared = Arc::clone(&self.shared);
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            self.tasks.spawn(serve_peer(io, peer, self.app.clone(), shared, place));
        } else if let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() {
            tracing::debug!(?peer, "refused a connection: connections_max reached");
            self.tasks.spawn(turn_away(io, shared, place));
        } else {
            tracing::debug!(?peer, "dropped a connection: too many are being refused");
        }
    }

    /// Waits for the end of a connection, or of its stream; for ever if there is none.
    async fn one_ended(&mut self) {
        tokio::select! {
            Some(served) = self.served_on.recv() => {
                self.tasks.spawn(served);
            }
            Some(ended) = self.tasks.join_next() => report(ended),
            else => std::future::pending().await,
        }
    }

    /// Asks all connections to end and waits until they have; closes what is left in the end.
    async fn drain(mut self, within: Duration) {
        self.shared.drain.begin();
        if timeout(within, self.all_ended()).await.is_ok() {
            return;
        }
        let left = self.tasks.len() + self.shared.streams.len();
        tracing::warn!(left, "drain deadline: closing what is left");
        self.tasks.abort_all();
        self.drivers.abort_all();
        if timeout(CLOSE_WITHIN, self.all_closed()).await.is_err() {
            let left = self.tasks.len() + self.drivers.len();
            tracing::error!(left, "the app blocks connections from closing");
        }
    }

    /// Waits until no connection is left, whoever serves it.
    async fn all_ended(&mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            tokio::select! {
                // One that is served on must learn of the drain, however long the others take.
                Some(served) = self.served_on.recv() => {
                    self.tasks.spawn(served);
                }
                Some(ended) = self.tasks.join_next() => report(ended),
                // Only without tasks: they make streams.
                () = shared.streams.all_ended(), if self.tasks.is_empty() => {
                    // The last of them may have been sent here just before.
                    match self.served_on.try_recv() {
                        Ok(served) => self.tasks.spawn(served),
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

/// Says so if a connection ended by a panic, which the app's code must have caused.
fn report(ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("a handler panicked; its connection is closed");
    }
}

/// What an error of `accept` means for the loop.
#[derive(Debug, Eq, PartialEq)]
enum Verdict {
    /// The one connection is gone; the next may be fine.
    Again,
    /// Something ran out that comes back when connections end.
    Pause,
    /// The listener itself is unusable.
    End,
}

/// Errors that a listener does not recover from mean the caller passed something that is none; all
/// that is unknown is paused over, as systems report a network's troubles here too.
fn verdict(error: &io::Error) -> Verdict {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, InvalidInput,
    };
    match error.kind() {
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted => Verdict::Again,
        InvalidInput => Verdict::End,
        _ => {
            tracing::warn!(%error, "accepting pauses");
            Verdict::Pause
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aborted_connection_is_skipped() {
        let aborted = io::Error::from(io::ErrorKind::ConnectionAborted);
        assert_eq!(verdict(&aborted), Verdict::Again);
    }

    #[cfg(unix)]
    #[test]
    fn exhaustion_pauses() {
        use rustix::io::Errno;

        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert_eq!(verdict(&errno.into()), Verdict::Pause, "{errno}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn socket_that_does_not_listen_ends_the_server() {
        assert_eq!(verdict(&rustix::io::Errno::INVAL.into()), Verdict::End);
    }
}
