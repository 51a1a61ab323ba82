//! Systems without the direct path: no socket can be handed over, so every stream stays with hyper.

#[allow(dead_code, reason = "only drivers use all of it")]
#[path = "handed_over.rs"]
mod handed_over;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

pub(super) use self::handed_over::{Arrival, Connection, HandedOver};
pub(super) use self::socket::Socket;
use super::drain::Drain;

mod socket {
    use std::convert::Infallible;
    use std::io;

    /// There is none.
    pub(in crate::serve) struct Socket(pub(super) Infallible);

    impl Socket {
        pub(in crate::serve) fn from_io<Io>(_io: Io) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in crate::serve) fn into_io<Io>(self) -> io::Result<Io> {
            match self.0 {}
        }
    }
}

/// Starts nothing.
pub(super) fn start<Io>(
    _tasks: &mut JoinSet<()>,
    _drain: &Arc<Drain>,
    _write_stall_max: Duration,
    _resumed: &UnboundedSender<Connection>,
) -> Streams {
    Streams
}

/// Takes no streams.
pub(super) struct Streams;

impl Streams {
    pub(super) fn are_taken(&self) -> bool {
        false
    }

    pub(super) fn push(&self, arrival: Arrival) {
        match arrival.socket.0 {}
    }

    pub(super) fn len(&self) -> usize {
        0
    }

    pub(super) async fn all_ended(&self) {}
}
