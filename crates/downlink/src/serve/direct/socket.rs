//! A connected socket that is not registered with a tokio runtime.

use std::any::{Any, TypeId};
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use rustix::net::{self, SendAncillaryBuffer, SendFlags, Shutdown};
use tokio::net::{TcpStream, UnixStream};

/// A TCP or Unix socket in non-blocking mode.
#[derive(Debug)]
pub(in crate::serve) struct Socket(pub(super) OwnedFd);

impl Socket {
    /// Whether a connection of this type can become a `Socket`.
    pub(in crate::serve) fn can_be<Io: Any>() -> bool {
        [TypeId::of::<TcpStream>(), TypeId::of::<UnixStream>()].contains(&TypeId::of::<Io>())
    }

    /// Takes a socket out of the runtime.
    ///
    /// # Errors
    ///
    /// The error of the runtime, or `Unsupported` if [`can_be`](Self::can_be) is false. In both
    /// cases the socket is closed.
    pub(in crate::serve) fn from_io<Io: Any>(io: Io) -> io::Result<Self> {
        let io: Box<dyn Any> = Box::new(io);
        let io = match io.downcast::<TcpStream>() {
            Ok(tcp) => return Ok(Self(tcp.into_std()?.into())),
            Err(io) => io,
        };
        let unix = io.downcast::<UnixStream>().map_err(|_| io::ErrorKind::Unsupported)?;
        Ok(Self(unix.into_std()?.into()))
    }

    /// Gives the socket back to the runtime, as the type from which it was taken.
    ///
    /// # Errors
    ///
    /// The error of the runtime. In this case the socket is closed.
    pub(in crate::serve) fn into_io<Io: Any>(self) -> io::Result<Io> {
        let io: Box<dyn Any> = if TypeId::of::<Io>() == TypeId::of::<TcpStream>() {
            Box::new(TcpStream::from_std(self.0.into())?)
        } else {
            Box::new(UnixStream::from_std(self.0.into())?)
        };
        io.downcast().map(|io| *io).map_err(|_| io::ErrorKind::Unsupported.into())
    }

    /// Sends some of the bytes, and returns how many. With `awaits_end`, Linux may hold the bytes
    /// back until [`end`](Self::end) is called, and then sends the bytes and the end of the
    /// connection together.
    ///
    /// A single piece is sent with `send`. Several pieces are sent with `sendmsg`, which is cheaper
    /// than `writev`. On Linux, rustix calls the kernel directly, which saves the C library's
    /// handling of cancelled threads.
    pub(super) fn write(&self, slices: &[IoSlice<'_>], awaits_end: bool) -> io::Result<usize> {
        // If the peer is gone, `NOSIGNAL` causes an error instead of a signal to the process. On
        // systems other than Linux, the standard library has set this for the socket.
        #[cfg(target_os = "linux")]
        let flags =
            SendFlags::NOSIGNAL | if awaits_end { SendFlags::MORE } else { SendFlags::empty() };
        #[cfg(not(target_os = "linux"))]
        let (flags, _) = (SendFlags::empty(), awaits_end);
        let sent = match slices {
            [one] => net::send(&self.0, one, flags),
            _ => net::sendmsg(&self.0, slices, &mut SendAncillaryBuffer::default(), flags),
        };
        sent.map_err(io::Error::from)
    }

    /// Tells the peer that no more bytes follow.
    pub(super) fn end(&self) -> io::Result<()> {
        Ok(net::shutdown(&self.0, Shutdown::Write)?)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// If the last bytes arrived before the end of the connection, a proxy might send another
    /// request after them.
    #[test]
    fn the_last_bytes_and_the_end_arrive_together() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("the listener is bound");
        let mut theirs = TcpStream::connect(address).expect("the listener listens");
        let (ours, _) = listener.accept().expect("a client connects");
        ours.set_nodelay(true).expect("TCP has this option");
        let ours = Socket(ours.into());
        assert_eq!(ours.write(&[IoSlice::new(b"the last")], true).expect("the socket has room"), 8);
        ours.end().expect("the connection is open");
        let mut bytes = [0; 16];
        assert_eq!(theirs.read(&mut bytes).expect("the connection is open"), 8);
        theirs.set_nonblocking(true).expect("sockets can be non-blocking");
        assert_eq!(theirs.read(&mut bytes).expect("the end of the connection has arrived"), 0);
    }
}
