//! Options of the sockets that are served.
//!
//! They bound what the kernel holds for a peer that does not read, and send each event when it is
//! written. An option that a platform lacks is left out; one that fails is logged and the
//! connection served without it. Sockets that are neither TCP nor wrap it openly are untouched.

use std::any::Any;
use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// Bytes not yet sent that the kernel takes for one socket before it reports it full.
///
/// Without it a stalled peer holds megabytes (measured 4.2 MB) before anything notices; a quarter
/// of it would wake the writer for every few packets, twice is memory for nothing, as what is in
/// flight is not counted.
#[cfg(target_os = "linux")]
const NOT_SENT_BYTES: u32 = 16 * 1024;

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
pub(super) fn tune<Io: Any>(io: &Io, write_stall_max: Duration) -> StallTimer {
    let Some(stream) = as_tcp(io) else { return StallTimer::Server };
    tune_tcp(stream, write_stall_max).unwrap_or_else(|error| {
        tracing::debug!(%error, "a socket option could not be set");
        StallTimer::Server
    })
}

fn tune_tcp(stream: &TcpStream, write_stall_max: Duration) -> io::Result<StallTimer> {
    // An event waits for nothing; writes are whole frames, so there is nothing to gather.
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        socket.set_tcp_notsent_lowat(NOT_SENT_BYTES)?;
        // Zero would mean the system's default, a quarter of an hour.
        socket.set_tcp_user_timeout(Some(write_stall_max.max(Duration::from_millis(1))))?;
        Ok(StallTimer::Kernel)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = write_stall_max;
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

    #[tokio::test]
    async fn options_are_set_on_a_real_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_client, (stream, _)) = (client.expect("listening"), accepted.expect("connected"));
        let timer = tune(&stream, Duration::from_secs(4));
        let kernel = cfg!(target_os = "linux");
        assert_eq!(timer, if kernel { StallTimer::Kernel } else { StallTimer::Server });
        assert!(stream.nodelay().expect("readable"));
        #[cfg(target_os = "linux")]
        {
            let socket = SockRef::from(&stream);
            assert_eq!(socket.tcp_notsent_lowat().expect("readable"), NOT_SENT_BYTES);
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
        assert_eq!(tune(&stream, Duration::MAX), StallTimer::Server);
    }

    #[test]
    fn other_sockets_are_left_alone() {
        assert_eq!(tune(&"no socket", Duration::ZERO), StallTimer::Server);
        discard_on_close(&"no socket");
    }
}
