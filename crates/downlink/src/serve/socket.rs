//! Options of the sockets that are served.
//!
//! They bound what the kernel holds for a peer that does not read, and send each event when it is
//! written. An option that a platform lacks is left out; one that fails is logged and the
//! connection served without it. Sockets that are neither TCP nor Unix ones are untouched.

use std::any::Any;
use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// What bounds the sockets of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketLimits {
    /// How long a write may make no progress.
    pub(super) write_stall_max: Duration,
    /// Bytes not yet sent that the kernel takes for one socket before it reports it full; 0 leaves
    /// that to the system.
    pub(super) unsent_bytes_max: u32,
}

/// Who notices that a peer takes no bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum StallTimer {
    /// The kernel, which fails the socket. It sees each acknowledgement, also of a peer whose
    /// network is too slow to make the socket writable.
    ///
    /// Linux takes a peer that keeps its window closed for stalled, also if it answers probes; the
    /// time starts anew only once the window opens for the whole next buffer. So a reader that
    /// sips at a firehose is closed too, even if it takes a few KiB each second.
    Kernel,
    /// The server, by how long a write is blocked.
    Server,
}

/// Sets the options of an accepted socket, if it is a TCP one.
pub(super) fn tune<Io: Any>(io: &Io, limits: SocketLimits) -> StallTimer {
    #[cfg(unix)]
    if let Some(stream) = (io as &dyn Any).downcast_ref() {
        tune_unix(stream, limits);
        return StallTimer::Server;
    }
    let Some(stream) = as_tcp(io) else { return StallTimer::Server };
    tune_tcp(stream, limits).unwrap_or_else(|error| {
        tracing::debug!(%error, "a socket option could not be set");
        StallTimer::Server
    })
}

/// A Unix socket has no options but this one. The kernel doubles it, and counts its own overhead.
#[cfg(unix)]
fn tune_unix(stream: &tokio::net::UnixStream, limits: SocketLimits) {
    if limits.unsent_bytes_max == 0 {
        return;
    }
    let buffer = usize::try_from(limits.unsent_bytes_max).unwrap_or(usize::MAX).saturating_mul(2);
    if let Err(error) = SockRef::from(stream).set_send_buffer_size(buffer) {
        tracing::debug!(%error, "a socket option could not be set");
    }
}

fn tune_tcp(stream: &TcpStream, limits: SocketLimits) -> io::Result<StallTimer> {
    // An event waits for nothing; writes are whole frames, so there is nothing to gather.
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        if limits.unsent_bytes_max > 0 {
            socket.set_tcp_notsent_lowat(limits.unsent_bytes_max)?;
        }
        // Zero would mean the system's default, a quarter of an hour.
        socket.set_tcp_user_timeout(Some(limits.write_stall_max.max(Duration::from_millis(1))))?;
        Ok(StallTimer::Kernel)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = limits;
        Ok(StallTimer::Server)
    }
}

/// Makes closing throw away what the kernel still holds, rather than go on trying to deliver it.
pub(super) fn discard_on_close<Io: Any>(io: &Io) {
    let Some(stream) = as_tcp(io) else { return };
    if let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "a stalled socket closes slowly");
    }
}

fn as_tcp<Io: Any>(io: &Io) -> Option<&TcpStream> {
    (io as &dyn Any).downcast_ref()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    fn limits(write_stall_max: Duration) -> SocketLimits {
        SocketLimits { write_stall_max, unsent_bytes_max: 4_096 }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn buffer_of_a_unix_socket_is_bounded() {
        let (ours, theirs) = tokio::net::UnixStream::pair().expect("a pair of sockets");
        let size = |stream| SockRef::from(stream).send_buffer_size().expect("readable");
        let system = size(&theirs);
        assert_eq!(tune(&ours, limits(Duration::from_secs(4))), StallTimer::Server);
        assert!(size(&ours) < system, "{} of {system}", size(&ours));
        tune(&theirs, SocketLimits { unsent_bytes_max: 0, ..limits(Duration::ZERO) });
        assert_eq!(size(&theirs), system);
    }

    #[tokio::test]
    async fn options_are_set_on_a_real_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_client, (stream, _)) = (client.expect("listening"), accepted.expect("connected"));
        let limits = limits(Duration::from_secs(4));
        let timer = tune(&stream, limits);
        let kernel = cfg!(target_os = "linux");
        assert_eq!(timer, if kernel { StallTimer::Kernel } else { StallTimer::Server });
        assert!(stream.nodelay().expect("readable"));
        #[cfg(target_os = "linux")]
        {
            let socket = SockRef::from(&stream);
            assert_eq!(socket.tcp_notsent_lowat().expect("readable"), limits.unsent_bytes_max);
            let user_timeout = socket.tcp_user_timeout().expect("readable");
            assert_eq!(user_timeout, Some(Duration::from_secs(4)));
        }
        discard_on_close(&stream);
        assert_eq!(SockRef::from(&stream).linger().expect("readable"), Some(Duration::ZERO));
    }

    /// A time that the kernel has no number for is kept by the server.
    #[tokio::test]
    async fn socket_without_the_options_is_timed_by_the_server() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let stream = TcpStream::connect(address).await.expect("listening");
        assert_eq!(tune(&stream, limits(Duration::MAX)), StallTimer::Server);
    }

    #[test]
    fn other_sockets_are_left_alone() {
        assert_eq!(tune(&"no socket", limits(Duration::ZERO)), StallTimer::Server);
        discard_on_close(&"no socket");
    }
}
