//! The streams that tickets opened on this node: the newest stream of a ticket wins.
//!
//! A client that reconnects after an unnoticed cut displaces its own dead stream. A thief displaces
//! the owner, and the owner comes back: so displaced streams are counted as disputes. Single use is
//! not promised, since another node or a restart cannot know it.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::tickets::seal::TicketId;

/// Streams that a registry holds at most, if its owner sets no other limit.
pub const TICKET_STREAMS_MAX_DEFAULT: usize = 1_000_000;

/// The registry is full.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("at most {streams_max} streams may be open with tickets")]
pub struct TicketStreamsFull {
    /// The limit.
    pub streams_max: usize,
}

/// The open stream of each ticket.
///
/// ```
/// use downlink_access::{TicketId, TicketStreams};
/// let mut streams = TicketStreams::new(1_000);
/// let ticket = TicketId::from_bytes([1; 12]);
/// assert_eq!(streams.register(ticket, 7)?, None);
/// assert_eq!(streams.register(ticket, 8)?, Some(7), "the caller ends the older stream");
/// streams.remove(ticket, 7);
/// assert_eq!((streams.len(), streams.disputes()), (1, 1));
/// # Ok::<(), downlink_access::TicketStreamsFull>(())
/// ```
#[derive(Debug)]
pub struct TicketStreams {
    open: BTreeMap<TicketId, u64>,
    streams_max: usize,
    disputes: u64,
}

impl TicketStreams {
    /// A registry for at most this many streams.
    pub const fn new(streams_max: usize) -> Self {
        Self { open: BTreeMap::new(), streams_max, disputes: 0 }
    }

    /// Registers the newest stream of a ticket by a number, which no other stream has. Returns the
    /// number of the older stream of the same ticket, which the caller ends.
    ///
    /// # Errors
    ///
    /// [`TicketStreamsFull`] if it is the first one of its ticket and one too many.
    pub fn register(
        &mut self,
        ticket: TicketId,
        stream: u64,
    ) -> Result<Option<u64>, TicketStreamsFull> {
        let streams_max = self.streams_max;
        if self.open.len() >= streams_max && !self.open.contains_key(&ticket) {
            return Err(TicketStreamsFull { streams_max });
        }
        let displaced = self.open.insert(ticket, stream);
        self.disputes += u64::from(displaced.is_some());
        Ok(displaced)
    }

    /// Removes a stream that ended. A newer stream of the same ticket stays. Returns whether the
    /// stream was the newest of its ticket.
    pub fn remove(&mut self, ticket: TicketId, stream: u64) -> bool {
        let is_newest = self.open.get(&ticket) == Some(&stream);
        if is_newest {
            self.open.remove(&ticket);
        }
        is_newest
    }

    /// Tickets with an open stream.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no stream is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Streams that a newer one of the same ticket displaced, since the start.
    pub const fn disputes(&self) -> u64 {
        self.disputes
    }
}

impl Default for TicketStreams {
    fn default() -> Self {
        Self::new(TICKET_STREAMS_MAX_DEFAULT)
    }
}
