//! The options that the server sets on accepted sockets.
//!
//! The options limit the memory that the kernel holds for a peer that does not read. They also make
//! the kernel send each event as soon as the server writes it. An option that a platform lacks is
//! not set. If setting an option fails, the server logs this and serves the connection without the
//! option. Only TCP and Unix sockets get options.

use std::any::Any;
use std::io;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::limits::ServeLimits;

/// Sets the options of an accepted socket. Returns true if the kernel itself ends the connection
/// when the peer stalls.
///
/// The kernel can judge better than the server whether a peer stalls. If the peer's network is
/// slow, the peer may acknowledge bytes long before the socket becomes writable. Only the kernel
/// sees these acknowledgements.
///
/// For Linux, a peer has stalled if it keeps its receive window closed, even if it answers probes.
/// Linux restarts its stall timer only when the window has room for the whole next buffer. So a
/// peer also counts as stalled if it reads only a few KiB per second of a much faster stream.
pub(super) fn tune<Io: Any>(io: &Io, limits: &ServeLimits) -> bool {
    let tuned = as_tcp(io).map(|stream| tune_tcp(stream, limits));
    #[cfg(unix)]
    let tuned =
        tuned.or_else(|| (io as &dyn Any).downcast_ref().map(|stream| tune_unix(stream, limits)));
    tuned.unwrap_or(Ok(false)).unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot set a socket option");
        false
    })
}

/// Sets the size of the send buffer, which is the only option that a Unix socket gets. The kernel
/// doubles this size, because it counts its own overhead as part of the buffer.
#[cfg(unix)]
fn tune_unix(stream: &tokio::net::UnixStream, limits: &ServeLimits) -> io::Result<bool> {
    if limits.unsent_bytes_max > 0 {
        let buffer = (limits.unsent_bytes_max as usize).saturating_mul(2);
        SockRef::from(stream).set_send_buffer_size(buffer)?;
    }
    Ok(false)
}

#[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "Linux has the options"))]
fn tune_tcp(stream: &TcpStream, limits: &ServeLimits) -> io::Result<bool> {
    // Writes are whole frames, so the kernel would gain nothing by waiting for more bytes.
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        if limits.unsent_bytes_max > 0 {
            socket.set_tcp_notsent_lowat(limits.unsent_bytes_max)?;
        }
        // Zero would mean the system's default, a quarter of an hour.
        socket.set_tcp_user_timeout(Some(limits.write_stall_max.max(Duration::from_millis(1))))?;
    }
    Ok(cfg!(target_os = "linux"))
}

/// Makes the kernel discard the unsent bytes of a TCP socket when the socket is closed, instead of
/// trying to deliver them.
pub(super) fn discard_on_close<Io: Any>(io: &Io) {
    if let Some(stream) = as_tcp(io) {
        discard(SockRef::from(stream));
    }
}

/// Makes the kernel discard the unsent bytes of this socket when the socket is closed.
pub(super) fn discard(socket: SockRef<'_>) {
    if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "cannot reset a stalled socket; it closes slowly");
    }
}

fn as_tcp<Io: Any>(io: &Io) -> Option<&TcpStream> {
    (io as &dyn Any).downcast_ref()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::http::Spread;

    fn limits(write_stall_max: Duration) -> ServeLimits {
        ServeLimits {
            drain_within: Duration::ZERO,
            reconnection: Spread::between(Duration::ZERO, Duration::ZERO),
            header_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            write_stall_max,
            unsent_bytes_max: 4_096,
            connections_max: 1,
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_send_buffer_of_a_unix_socket_is_bounded() {
        let (ours, theirs) = tokio::net::UnixStream::pair().expect("a pair of sockets can be made");
        let size =
            |stream| SockRef::from(stream).send_buffer_size().expect("the option can be read");
        let system = size(&theirs);
        assert!(!tune(&ours, &limits(Duration::from_secs(4))));
        assert!(size(&ours) < system, "{} of {system}", size(&ours));
        tune(&theirs, &ServeLimits { unsent_bytes_max: 0, ..limits(Duration::ZERO) });
        assert_eq!(size(&theirs), system);
    }

    #[tokio::test]
    async fn the_options_are_set_on_a_tcp_socket() {
        let listener =
            TcpListener::bind("127.0.0.1:0").await.expect("the loopback address is free");
        let address = listener.local_addr().expect("the listener is bound");
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_client, (stream, _)) =
            (client.expect("the listener listens"), accepted.expect("a client connects"));
        let limits = limits(Duration::from_secs(4));
        assert_eq!(tune(&stream, &limits), cfg!(target_os = "linux"));
        assert!(stream.nodelay().expect("the option can be read"));
        #[cfg(target_os = "linux")]
        {
            let socket = SockRef::from(&stream);
            assert_eq!(
                socket.tcp_notsent_lowat().expect("the option can be read"),
                limits.unsent_bytes_max
            );
            let user_timeout = socket.tcp_user_timeout().expect("the option can be read");
            assert_eq!(user_timeout, Some(Duration::from_secs(4)));
        }
        discard_on_close(&stream);
        assert_eq!(
            SockRef::from(&stream).linger().expect("the option can be read"),
            Some(Duration::ZERO)
        );
    }

    /// The kernel cannot store `Duration::MAX` as a timeout, so the server must time the writes.
    #[tokio::test]
    async fn the_server_times_writes_if_the_options_cannot_be_set() {
        let listener =
            TcpListener::bind("127.0.0.1:0").await.expect("the loopback address is free");
        let address = listener.local_addr().expect("the listener is bound");
        let stream = TcpStream::connect(address).await.expect("the listener listens");
        assert!(!tune(&stream, &limits(Duration::MAX)));
    }

    #[test]
    fn sockets_of_other_types_get_no_options() {
        assert!(!tune(&"no socket", &limits(Duration::ZERO)));
        discard_on_close(&"no socket");
    }
}
