//! The sources of a server's connections.
//!
//! The trait [`Listener`] is implemented for TCP sockets and, on Unix, for Unix sockets. Unlike
//! axum's trait of the same name, it returns the errors of accepting. The server decides whether it
//! continues, pauses or ends.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A source of connections for [`serve`](super::serve).
///
/// With the feature `axum`, axum's own listeners can be used too. [`TapIo`](axum::serve::TapIo)
/// implements this trait. Wrap any other listener in an
/// [`AxumListener`](crate::adapters::axum::AxumListener).
pub trait Listener: Send + 'static {
    /// The type of a connection. The server sets socket options if this is tokio's `TcpStream` or
    /// `UnixStream`.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The address of a peer.
    type Addr: Clone + fmt::Debug + Send + Sync + 'static;

    /// Waits for the next connection.
    ///
    /// The server awaits this future until it completes. It drops the future earlier only when it
    /// stops accepting connections.
    ///
    /// # Errors
    ///
    /// The server reacts to the kind of the error. It skips a connection that failed before it was
    /// accepted. It pauses if file descriptors or memory have run out. It drains if the listener is
    /// unusable.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, Self::Addr)>> + Send;

    /// The address of the listener.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
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
