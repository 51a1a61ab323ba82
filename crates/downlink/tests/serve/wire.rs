//! What connections run on, and so who serves their streams.

use std::io;
use std::net::SocketAddr;

use downlink::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

use super::foreign_socket::ForeignListener;

/// One kind of connection.
pub(crate) trait Wire: 'static {
    type Listener: Listener<Addr = Self::Addr>;
    /// A peer as the server names it.
    type Addr: Send + 'static;
    /// The peer's end.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Where to connect.
    type Place: Send + Sync;

    /// Listens at a free place.
    async fn bind() -> (Self::Listener, Self::Place);

    async fn connect(place: &Self::Place) -> io::Result<Self::Io>;

    /// Closes as a crash does, where there is such a thing.
    fn reset(io: Self::Io);

    /// Writes at once what there is room for.
    fn write_now(io: &Self::Io, bytes: &[u8]) -> io::Result<usize>;
}

/// Streams are served directly.
#[derive(Debug)]
pub(crate) struct Tcp;

impl Wire for Tcp {
    type Listener = TcpListener;
    type Addr = SocketAddr;
    type Io = TcpStream;
    type Place = SocketAddr;

    async fn bind() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        (listener, address)
    }

    async fn connect(place: &SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(place).await
    }

    fn reset(io: TcpStream) {
        let socket = socket2::SockRef::from(&io);
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("an option of every socket");
    }

    fn write_now(io: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        io.try_write(bytes)
    }
}

/// Sockets that the server does not know: hyper serves their streams too.
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

/// Streams are served directly here too.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Unix;

/// A socket's file, which goes with the test.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Path(std::path::PathBuf);

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
        (UnixListener::bind(&path).expect("a free name"), Path(path))
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
