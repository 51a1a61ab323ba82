//! A connected socket, outside of any runtime.

use std::any::Any;
use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use socket2::SockRef;
use std::time::Duration;

/// How to send: a peer that is gone is an error here, and no signal to the process.
#[cfg(target_os = "linux")]
fn flags(awaits_end: bool) -> rustix::net::SendFlags {
    use rustix::net::SendFlags;

    let more = if awaits_end { SendFlags::MORE } else { SendFlags::empty() };
    SendFlags::NOSIGNAL | more
}

/// The sockets that streams run on. They do not block.
#[derive(Debug)]
pub(in crate::serve) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Whether a connection of this type can become one.
    pub(in crate::serve) fn can_be<Io: Any>() -> bool {
        let io = std::any::TypeId::of::<Io>();
        [
            std::any::TypeId::of::<tokio::net::TcpStream>(),
            std::any::TypeId::of::<tokio::net::UnixStream>(),
        ]
        .contains(&io)
    }

    /// Takes a socket out of the runtime.
    ///
    /// # Errors
    ///
    /// The runtime's; the socket is closed then. A type for which [`can_be`](Self::can_be) is false
    /// is an error too.
    pub(in crate::serve) fn from_io<Io: Any>(io: Io) -> io::Result<Self> {
        let io: Box<dyn Any> = Box::new(io);
        match io.downcast::<tokio::net::TcpStream>() {
            Ok(tcp) => Ok(Self::Tcp(tcp.into_std()?)),
            Err(io) => match io.downcast::<tokio::net::UnixStream>() {
                Ok(unix) => Ok(Self::Unix(unix.into_std()?)),
                Err(_) => Err(io::ErrorKind::Unsupported.into()),
            },
        }
    }

    /// Gives the socket to the runtime.
    ///
    /// # Errors
    ///
    /// The runtime's, or that it is of another type; the socket is closed then.
    pub(in crate::serve) fn into_io<Io: Any>(self) -> io::Result<Io> {
        let io: Box<dyn Any> = match self {
            Self::Tcp(tcp) => Box::new(tokio::net::TcpStream::from_std(tcp)?),
            Self::Unix(unix) => Box::new(tokio::net::UnixStream::from_std(unix)?),
        };
        io.downcast().map(|io| *io).map_err(|_| io::ErrorKind::Unsupported.into())
    }

    /// Sends some of the bytes; a `send` of one piece, else a `sendmsg`, which is cheaper than a
    /// `writev`. On Linux they may wait in the kernel for [`end`](Self::end), to be sent with it.
    pub(super) fn write(&self, slices: &[IoSlice<'_>], awaits_end: bool) -> io::Result<usize> {
        if let [one] = slices {
            return self.send(one, awaits_end);
        }
        #[cfg(target_os = "linux")]
        let flags = flags(awaits_end).bits().cast_signed();
        #[cfg(not(target_os = "linux"))]
        let flags = 0;
        match self {
            Self::Tcp(tcp) => SockRef::from(tcp).send_vectored_with_flags(slices, flags),
            Self::Unix(unix) => SockRef::from(unix).send_vectored_with_flags(slices, flags),
        }
    }

    /// Through rustix, which on Linux spares the C library's care for cancelled threads.
    #[cfg(target_os = "linux")]
    fn send(&self, bytes: &[u8], awaits_end: bool) -> io::Result<usize> {
        let flags = flags(awaits_end);
        let sent = match self {
            Self::Tcp(tcp) => rustix::net::send(tcp, bytes, flags),
            Self::Unix(unix) => rustix::net::send(unix, bytes, flags),
        };
        sent.map_err(io::Error::from)
    }

    #[cfg(not(target_os = "linux"))]
    fn send(&self, bytes: &[u8], _awaits_end: bool) -> io::Result<usize> {
        use std::io::Write;

        match self {
            Self::Tcp(tcp) => (&*tcp).write(bytes),
            Self::Unix(unix) => (&*unix).write(bytes),
        }
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => (&*tcp).read(buffer),
            Self::Unix(unix) => (&*unix).read(buffer),
        }
    }

    /// Tells the peer that nothing follows.
    pub(super) fn end(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.shutdown(Shutdown::Write),
            Self::Unix(unix) => unix.shutdown(Shutdown::Write),
        }
    }

    /// Makes closing throw away what the kernel still holds, rather than go on trying to deliver it.
    pub(super) fn discard_on_close(&self) {
        if let Self::Tcp(tcp) = self
            && let Err(error) = SockRef::from(tcp).set_linger(Some(Duration::ZERO))
        {
            tracing::debug!(%error, "a stalled socket closes slowly");
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(tcp) => tcp.as_raw_fd(),
            Self::Unix(unix) => unix.as_raw_fd(),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Otherwise a proxy may take the connection for one that can be used again, in between.
    #[test]
    fn the_last_bytes_and_the_end_arrive_together() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut theirs = TcpStream::connect(address).expect("listening");
        let (ours, _) = listener.accept().expect("connected");
        ours.set_nodelay(true).expect("an option of every socket");
        let ours = Socket::Tcp(ours);
        assert_eq!(ours.write(&[IoSlice::new(b"the last")], true).expect("room"), 8);
        ours.end().expect("open");
        let mut bytes = [0; 16];
        assert_eq!(theirs.read(&mut bytes).expect("open"), 8);
        theirs.set_nonblocking(true).expect("an option of every socket");
        assert_eq!(theirs.read(&mut bytes).expect("its end is here already"), 0);
    }
}
