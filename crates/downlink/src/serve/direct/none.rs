//! The replacement for the module `direct` on systems that are not Unix. On these systems, no
//! socket can be handed over, so hyper (the HTTP library) serves every stream.

#[allow(dead_code, reason = "a part is unused without drivers")]
#[path = "handed_over.rs"]
mod handed_over;
#[allow(dead_code, reason = "a part is unused without drivers")]
#[path = "mailbox.rs"]
mod mailbox;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

pub(super) use self::handed_over::{Arrival, ConnectionFuture, HandedOver, PolledBytes};
pub(super) use self::mailbox::DirectStreams;
pub(super) use self::socket::Socket;
use super::drain::Drain;
use super::stats::ServeStats;

mod socket {
    use std::convert::Infallible;
    use std::io;

    /// A socket that cannot exist.
    pub(in crate::serve) struct Socket(Infallible);

    impl Socket {
        pub(in crate::serve) fn from_io<Io>(_io: Io) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in crate::serve) fn into_io<Io>(self) -> io::Result<Io> {
            match self.0 {}
        }
    }
}

/// Starts no drivers.
#[expect(clippy::extra_unused_type_parameters, reason = "`direct` has this parameter")]
pub(super) fn start<Io>(
    _tasks: &mut JoinSet<()>,
    _drain: &Arc<Drain>,
    _write_stall_max: Duration,
    _resumed: &UnboundedSender<ConnectionFuture>,
    _stats: &ServeStats,
) -> DirectStreams {
    DirectStreams(Box::default())
}
