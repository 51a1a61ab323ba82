//! The direct path: streams that are served without hyper, many by one task.
//!
//! Once the head of an event stream is written, hyper has nothing to add to it but buffers. So the
//! connection gives its socket and the response's body away (see `handover`), and a driver goes on:
//! it polls the body where it was woken, and writes what it yields from where it lies. What is left
//! of an idle stream is its body and a few words.
//!
//! Read in this order: `stream` (one of them) → `chunk` (the write) → `driver` (many) → `lanes` (whose
//! turn it is), `timers`, `readiness`, `mailbox` (whence it is woken). Not here: whether a response
//! is served like this, and anything about HTTP but the chunks.

mod chunk;
mod driver;
mod lanes;
mod mailbox;
mod readiness;
mod socket;
mod stream;
mod timers;

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{JoinSet, unconstrained};

pub(super) use socket::Socket;
pub(super) use stream::{Arrival, CLOSE_DISCARD_MAX, CLOSE_LINGER, Cut, Served, Visit};

use super::connection::Shared;
use driver::Driver;
use mailbox::Mailbox;
use readiness::Readiness;

/// The drivers of a server: one for each thread of the runtime, so that each core does its part.
#[derive(Debug)]
pub(super) struct Drivers {
    mailboxes: Box<[Arc<Mailbox>]>,
    /// Prepared, and not running yet.
    readinesses: Vec<Readiness>,
}

impl Drivers {
    /// Prepares drivers; none if the system has no room for one.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime that has IO enabled.
    pub(super) fn new() -> Self {
        let count = tokio::runtime::Handle::current().metrics().num_workers();
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
    pub(super) fn streams(&self) -> Streams {
        Streams(self.mailboxes.clone())
    }

    /// Starts the drivers, which run until they are aborted.
    pub(super) fn start(
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
pub(super) struct Streams(Box<[Arc<Mailbox>]>);

impl Streams {
    /// Whether there is a driver at all.
    pub(super) fn are_taken(&self) -> bool {
        !self.0.is_empty()
    }

    /// Sends a stream to the driver that has fewest; without any it is closed.
    pub(super) fn push(&self, arrival: Arrival) {
        if let Some(mailbox) = self.0.iter().min_by_key(|mailbox| mailbox.streams()) {
            mailbox.push(arrival);
        }
    }

    /// Streams that are not over.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|mailbox| mailbox.streams()).sum()
    }

    /// Completes when no stream is left.
    pub(super) async fn all_ended(&self) {
        for mailbox in &self.0 {
            mailbox.all_ended().await;
        }
    }
}
