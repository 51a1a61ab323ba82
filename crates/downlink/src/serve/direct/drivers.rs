//! The drivers of a server, and the distribution of streams among them.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{JoinSet, unconstrained};

use super::driver::Driver;
use super::handed_over::{Arrival, Connection};
use super::mailbox::Mailbox;
use super::readiness::Readiness;
use super::socket::Socket;
use crate::serve::drain::Drain;

/// Starts the drivers of a server, one for each thread of the runtime, if connections of this type
/// can be handed over. There are fewer if the system has no room for more. They run until they are
/// aborted.
///
/// # Panics
///
/// Outside of a tokio runtime, or, if there is a use for drivers, of one that has IO enabled.
pub(in crate::serve) fn start<Io: Any>(
    tasks: &mut JoinSet<()>,
    drain: &Arc<Drain>,
    write_stall_max: Duration,
    resumed: &UnboundedSender<Connection>,
) -> Streams {
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    let count = if Socket::can_be::<Io>() { workers } else { 0 };
    let mut mailboxes = Vec::with_capacity(count);
    while mailboxes.len() < count {
        let warn = |error: &_| tracing::warn!(%error, "fewer streams are served directly");
        let Ok(readiness) = Readiness::new().inspect_err(warn) else { break };
        let mailbox = Arc::<Mailbox>::default();
        mailboxes.push(Arc::clone(&mailbox));
        let (drain, resumed) = (Arc::clone(drain), resumed.clone());
        let driver = Driver::new(mailbox, readiness, drain, write_stall_max, resumed);
        // A driver limits its rounds itself. With tokio's budget one body would have to wait
        // because of the polls of the others.
        tasks.spawn(unconstrained(driver.run()));
    }
    Streams(mailboxes.into())
}

/// Takes the streams of connections.
pub(in crate::serve) struct Streams(Box<[Arc<Mailbox>]>);

impl Streams {
    /// Whether there is a driver at all.
    pub(in crate::serve) fn are_taken(&self) -> bool {
        !self.0.is_empty()
    }

    /// Sends a stream to the driver with the fewest; without drivers it is closed.
    pub(in crate::serve) fn push(&self, arrival: Arrival) {
        if let Some(mailbox) = self.0.iter().min_by_key(|mailbox| mailbox.streams()) {
            mailbox.push(arrival);
        }
    }

    /// The number of streams that have not ended.
    pub(in crate::serve) fn len(&self) -> usize {
        self.0.iter().map(|mailbox| mailbox.streams()).sum()
    }

    /// Completes when no stream is left.
    pub(in crate::serve) async fn all_ended(&self) {
        for mailbox in &self.0 {
            mailbox.all_ended().await;
        }
    }
}
