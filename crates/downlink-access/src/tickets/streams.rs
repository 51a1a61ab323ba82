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

/// The number of one stream on this node. It is never used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StreamNumber(u64);

/// The registry is full.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("at most {streams_max} streams may be open with tickets")]
pub struct TicketStreamsFull {
    /// The limit.
    pub streams_max: usize,
}

/// A stream was registered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "the displaced stream must be ended"]
pub struct RegisteredStream {
    /// Its number.
    pub stream: StreamNumber,
    /// The older stream of the same ticket, which the caller ends.
    pub displaced: Option<StreamNumber>,
}

/// The open stream of each ticket.
///
/// ```
/// use downlink_access::{TicketId, TicketStreams};
/// let mut streams = TicketStreams::new(1_000);
/// let ticket = TicketId::from_bytes([1; 12]);
/// let first = streams.register(ticket)?;
/// let second = streams.register(ticket)?;
/// assert_eq!(second.displaced, Some(first.stream));
/// streams.remove(ticket, first.stream);
/// assert_eq!((streams.len(), streams.disputes()), (1, 1));
/// # Ok::<(), downlink_access::TicketStreamsFull>(())
/// ```
#[derive(Debug)]
pub struct TicketStreams {
    open: BTreeMap<TicketId, StreamNumber>,
    streams_max: usize,
    registered: u64,
    disputes: u64,
}

impl TicketStreams {
    /// A registry for at most this many streams.
    pub const fn new(streams_max: usize) -> Self {
        Self { open: BTreeMap::new(), streams_max, registered: 0, disputes: 0 }
    }

    /// Registers the newest stream of a ticket.
    ///
    /// # Errors
    ///
    /// [`TicketStreamsFull`] if it is the first one of its ticket and one too many.
    pub fn register(&mut self, ticket: TicketId) -> Result<RegisteredStream, TicketStreamsFull> {
        let streams_max = self.streams_max;
        if self.open.len() >= streams_max && !self.open.contains_key(&ticket) {
            return Err(TicketStreamsFull { streams_max });
        }
        self.registered += 1;
        let stream = StreamNumber(self.registered);
        let displaced = self.open.insert(ticket, stream);
        self.disputes += u64::from(displaced.is_some());
        Ok(RegisteredStream { stream, displaced })
    }

    /// Removes a stream that ended. A newer stream of the same ticket stays.
    pub fn remove(&mut self, ticket: TicketId, stream: StreamNumber) {
        if self.open.get(&ticket) == Some(&stream) {
            self.open.remove(&ticket);
        }
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
