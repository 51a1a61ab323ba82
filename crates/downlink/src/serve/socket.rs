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

/// Sets the options of an accepted socket, if it is a TCP one.
pub(super) fn tune<Io: Any>(io: &Io, write_stall_max: Duration) {
    let Some(stream) = as_tcp(io) else { return };
    if let Err(error) = tune_tcp(stream, write_stall_max) {
        tracing::debug!(%error, "a socket option could not be set");
    }
}

fn tune_tcp(stream: &TcpStream, write_stall_max: Duration) -> io::Result<()> {
    // An event waits for nothing; writes are whole frames, so there is nothing to gather.
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let socket = SockRef::from(stream);
        socket.set_tcp_notsent_lowat(NOT_SENT_BYTES)?;
        // Zero would mean the system's default, a quarter of an hour.
        socket.set_tcp_user_timeout(Some(write_stall_max.max(Duration::from_millis(1))))?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = write_stall_max;
    Ok(())
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
        tune(&stream, Duration::from_secs(4));
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

    #[test]
    fn other_sockets_are_left_alone() {
        tune(&"no socket", Duration::ZERO);
        discard_on_close(&"no socket");
    }
}
