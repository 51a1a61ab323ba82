//! The drivers of a server, and how streams are spread over them.

use std::any::Any;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{JoinSet, unconstrained};

use super::driver::Driver;
use super::mailbox::Mailbox;
use super::readiness::Readiness;
use super::socket::Socket;
use super::visit::{Arrival, Served};
use crate::serve::connection::Shared;

/// The drivers of a server: one for each thread of the runtime, so that each core does its part.
#[derive(Debug)]
pub(in crate::serve) struct Drivers {
    mailboxes: Box<[Arc<Mailbox>]>,
    /// Prepared, and not running yet.
    readinesses: Vec<Readiness>,
}

impl Drivers {
    /// Prepares drivers if connections of this type can be handed over; none if the system has no
    /// room for one.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime; if there is a use for drivers, of one that has IO enabled.
    pub(in crate::serve) fn of<Io: Any>() -> Self {
        let workers = tokio::runtime::Handle::current().metrics().num_workers();
        let count = if Socket::can_be::<Io>() { workers } else { 0 };
        let mut readinesses = Vec::with_capacity(count);
        while readinesses.len() < count {
            match Readiness::new() {
                Ok(readiness) => readinesses.push(readiness),
                Err(error) => {
                    tracing::warn!(%error, "fewer streams are served directly");
                    break;
                }
            }
        }
        let mailboxes = readinesses.iter().map(|_| Arc::default()).collect();
        Self { mailboxes, readinesses }
    }

    /// Where streams are sent.
    pub(in crate::serve) fn streams(&self) -> Streams {
        Streams(self.mailboxes.clone())
    }

    /// Starts the drivers, which run until they are aborted.
    pub(in crate::serve) fn start(
        &mut self,
        tasks: &mut JoinSet<()>,
        shared: &Arc<Shared>,
        served_on: &UnboundedSender<Served>,
    ) {
        for (mailbox, readiness) in self.mailboxes.iter().zip(self.readinesses.drain(..)) {
            let (mailbox, shared) = (Arc::clone(mailbox), Arc::clone(shared));
            let driver = Driver::new(mailbox, readiness, shared, served_on.clone());
            // It limits its turns itself, and a body must not be told to wait because others have
            // had theirs.
            tasks.spawn(unconstrained(driver.run()));
        }
    }
}

/// Where connections send their streams.
#[derive(Debug)]
pub(in crate::serve) struct Streams(Box<[Arc<Mailbox>]>);

impl Streams {
    /// Whether there is a driver at all.
    pub(in crate::serve) fn are_taken(&self) -> bool {
        !self.0.is_empty()
    }

    /// Sends a stream to the driver that has fewest; without any it is closed.
    pub(in crate::serve) fn push(&self, arrival: Arrival) {
        if let Some(mailbox) = self.0.iter().min_by_key(|mailbox| mailbox.streams()) {
            mailbox.push(arrival);
        }
    }

    /// Streams that are not over.
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
