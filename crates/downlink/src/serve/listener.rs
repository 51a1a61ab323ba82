//! Sources of connections.
//!
//! The trait is implemented for TCP and, on Unix, Unix sockets. Unlike axum's trait of the same
//! name it reports errors: `accept` decides whether to go on, pause or end.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A source of connections for [`serve`](super::serve).
///
/// With the feature `axum`, axum's own listeners fit too:
/// [`TapIo`](axum::serve::TapIo) as it is, any other in an
/// [`AxumListener`](crate::adapters::axum::AxumListener).
pub trait Listener: Send + 'static {
    /// A connection. A `TcpStream` gets its socket options from the server.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The address of a peer.
    type Addr: Clone + fmt::Debug + Send + Sync + 'static;

    /// Waits for the next connection.
    ///
    /// The server never drops this future before it completes, except when it stops accepting.
    ///
    /// # Errors
    ///
    /// The connection that could not be accepted is skipped; the server pauses first if
    /// descriptors or memory ran out, and drains if the listener itself is unusable.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, Self::Addr)>> + Send;

    /// The address of the listener.
    ///
    /// # Errors
    ///
    /// The system's.
    fn local_addr(&self) -> io::Result<Self::Addr>;
}

impl Listener for TcpListener {
    type Io = TcpStream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> io::Result<(Self::Io, Self::Addr)> {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Self::local_addr(self)
    }
}

#[cfg(unix)]
impl Listener for tokio::net::UnixListener {
    type Io = tokio::net::UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> io::Result<(Self::Io, Self::Addr)> {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Self::local_addr(self)
    }
}
