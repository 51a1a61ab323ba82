//! The types of sockets on which the tests run. The type of a socket decides whether the server
//! itself or hyper (the HTTP library) writes the streams.

use std::io;
use std::net::SocketAddr;

use downlink::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

use super::foreign_socket::ForeignListener;

/// One type of socket.
pub(crate) trait Wire: 'static {
    type Listener: Listener<Addr = Self::Addr>;
    /// The peer's address as the server sees it.
    type Addr: Send + 'static;
    /// The peer's end of a connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The address to which a peer connects.
    type Place: Send + Sync;

    /// Listens on a free port, or at an unused path.
    async fn bind() -> (Self::Listener, Self::Place);

    async fn connect(place: &Self::Place) -> io::Result<Self::Io>;

    /// Closes a connection. If the socket type has resets, closes the connection with a reset.
    fn reset(io: Self::Io);

    /// Writes as many of the bytes as the socket accepts without waiting. Returns their number.
    fn write_now(io: &Self::Io, bytes: &[u8]) -> io::Result<usize>;
}

/// TCP sockets. The server writes their streams itself.
#[derive(Debug)]
pub(crate) struct Tcp;

impl Wire for Tcp {
    type Listener = TcpListener;
    type Addr = SocketAddr;
    type Io = TcpStream;
    type Place = SocketAddr;

    async fn bind() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("the listener is bound");
        (listener, address)
    }

    async fn connect(place: &SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(place).await
    }

    fn reset(io: TcpStream) {
        let socket = socket2::SockRef::from(&io);
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("every socket has this option");
    }

    fn write_now(io: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        io.try_write(bytes)
    }
}

/// Foreign sockets. The server does not know their type, so hyper writes their streams.
#[derive(Debug)]
pub(crate) struct Foreign;

impl Wire for Foreign {
    type Listener = ForeignListener;
    type Addr = SocketAddr;
    type Io = TcpStream;
    type Place = SocketAddr;

    async fn bind() -> (ForeignListener, SocketAddr) {
        let (listener, address) = Tcp::bind().await;
        (ForeignListener::new(listener), address)
    }

    async fn connect(place: &SocketAddr) -> io::Result<TcpStream> {
        Tcp::connect(place).await
    }

    fn reset(io: TcpStream) {
        Tcp::reset(io);
    }

    fn write_now(io: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        Tcp::write_now(io, bytes)
    }
}

/// Unix sockets. The server writes their streams itself.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Unix;

/// The path of a Unix socket. Dropping this value removes the socket's file.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Path(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl Path {
    pub(crate) fn as_path(&self) -> &std::path::Path {
        &self.0
    }
}

#[cfg(unix)]
impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(unix)]
impl Wire for Unix {
    type Listener = UnixListener;
    type Addr = tokio::net::unix::SocketAddr;
    type Io = UnixStream;
    type Place = Path;

    async fn bind() -> (UnixListener, Path) {
        use std::sync::atomic::{AtomicUsize, Ordering};

        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("downlink-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        (UnixListener::bind(&path).expect("the path is free"), Path(path))
    }

    async fn connect(place: &Path) -> io::Result<UnixStream> {
        UnixStream::connect(&place.0).await
    }

    fn reset(io: UnixStream) {
        drop(io);
    }

    fn write_now(io: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
        io.try_write(bytes)
    }
}
