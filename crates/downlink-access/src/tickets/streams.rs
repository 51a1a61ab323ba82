//! The streams that tickets opened on this node, which is one of several servers with the same
//! ticket keys. The newest stream of a ticket ends the older stream.
//!
//! The server may not notice that a connection was cut. When the client reconnects, its new stream
//! ends the dead stream. If a thief uses a ticket, the stream of the thief ends the stream of the
//! owner. The owner reconnects, which ends the stream of the thief. This module counts the streams
//! that were ended by a newer stream (disputes). A large number may be a sign of theft. A ticket is
//! not limited to one use, because a node does not know the streams of other nodes, or the streams
//! before its own start.

use std::collections::BTreeMap;
use std::num::NonZero;

use downlink_log::Timestamp;
use thiserror::Error;

use crate::tickets::seal::TicketId;

/// The maximum number of streams that the table holds.
pub const TICKET_STREAMS_MAX: usize = 1_000_000;

/// The table of the streams with tickets is full.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("too many streams with tickets are open: the limit is {streams_max}")]
pub struct TicketStreamsFull {
    /// The limit.
    pub streams_max: usize,
}

/// The first bits of a ticket's id. An open stream keeps them instead of the whole id, to save
/// memory.
///
/// The ids are random. If 10,000 streams with tickets are open, a new stream has the tag of another
/// ticket with a probability of 2 in 10¹². The stream of that ticket would end, and its client
/// would reconnect.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct TicketTag(NonZero<u64>);

impl TicketTag {
    pub(crate) const BITS: u32 = 52;

    pub(crate) fn of(ticket: TicketId) -> Self {
        let first = ticket.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Self::from_bits(first >> (u64::BITS - Self::BITS)).unwrap_or(Self(NonZero::<u64>::MIN))
    }

    /// The tag with these bits. `None` for 0, which is never a tag.
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        NonZero::new(bits).map(Self)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0.get()
    }
}

/// The time when a credential was issued, and the tag if it is a ticket, in 12 bytes.
///
/// The time takes 44 bits. In milliseconds, they last until the year 2527. The tag takes the other
/// 52 bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct IssueStamp([u32; 3]);

impl IssueStamp {
    const MILLIS_MAX: u64 = (1 << (96 - TicketTag::BITS)) - 1;

    pub(crate) fn new(issued_at: Timestamp, ticket: Option<TicketTag>) -> Self {
        let millis = issued_at.as_millis().min(Self::MILLIS_MAX);
        let tag = ticket.map_or(0, TicketTag::bits);
        // The lowest 12 bits of the time share a number with the highest 20 bits of the tag.
        let middle = (millis << 20) as u32 | (tag >> 32) as u32;
        Self([(millis >> 12) as u32, middle, tag as u32])
    }

    pub(crate) fn issued_at(self) -> Timestamp {
        let [high, middle, _] = self.0.map(u64::from);
        Timestamp::from_millis(high << 12 | middle >> 20)
    }

    pub(crate) fn ticket(self) -> Option<TicketTag> {
        let [_, middle, low] = self.0.map(u64::from);
        TicketTag::from_bits((middle & 0xf_ffff) << 32 | low)
    }
}

/// The newest open stream of each ticket.
#[derive(Debug)]
pub(crate) struct TicketStreams {
    /// For each ticket, the lower half of the stream's number. The full number would take four
    /// bytes more.
    open: BTreeMap<TicketTag, u32>,
    streams_max: usize,
    disputes: u64,
}

impl TicketStreams {
    /// A table for at most this many streams.
    const fn new(streams_max: usize) -> Self {
        Self { open: BTreeMap::new(), streams_max, disputes: 0 }
    }

    /// Registers the stream with this number as the newest stream of a ticket. Returns the number
    /// of the older stream of the same ticket, which the caller ends.
    ///
    /// No two streams have the same number, and the numbers of streams that are open at the same
    /// time differ by less than 2³¹.
    ///
    /// # Errors
    ///
    /// [`TicketStreamsFull`] if the ticket has no stream yet, and the table is full.
    pub(crate) fn register(
        &mut self,
        ticket: TicketTag,
        stream: u64,
    ) -> Result<Option<u64>, TicketStreamsFull> {
        let streams_max = self.streams_max;
        if self.open.len() >= streams_max && !self.open.contains_key(&ticket) {
            return Err(TicketStreamsFull { streams_max });
        }
        let displaced = self.open.insert(ticket, low(stream));
        self.disputes += u64::from(displaced.is_some());
        Ok(displaced.map(|displaced| nearest(stream, displaced)))
    }

    /// Removes a stream that has ended. Returns `false` if another stream of its ticket is newer. The
    /// newer stream stays in the table.
    pub(crate) fn remove(&mut self, ticket: TicketTag, stream: u64) -> bool {
        let is_newest = self.open.get(&ticket) == Some(&low(stream));
        if is_newest {
            self.open.remove(&ticket);
        }
        is_newest
    }

    /// The number of streams that a newer stream of the same ticket has displaced, since the start.
    pub(crate) const fn disputes(&self) -> u64 {
        self.disputes
    }
}

impl Default for TicketStreams {
    fn default() -> Self {
        Self::new(TICKET_STREAMS_MAX)
    }
}

/// The lower half of a number.
fn low(number: u64) -> u32 {
    number as u32
}

/// The number nearest to `number` whose lower half is `half`.
fn nearest(number: u64, half: u32) -> u64 {
    let distance = half.wrapping_sub(low(number)).cast_signed();
    number.wrapping_add_signed(distance.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(bits: u64) -> TicketTag {
        TicketTag::from_bits(bits).unwrap()
    }

    #[test]
    fn the_newest_stream_of_a_ticket_displaces_the_older_one() {
        let mut streams = TicketStreams::new(2);
        assert_eq!(streams.register(tag(1), 7), Ok(None));
        assert_eq!(streams.register(tag(2), 8), Ok(None));
        assert_eq!(streams.register(tag(3), 9), Err(TicketStreamsFull { streams_max: 2 }));
        assert_eq!(
            streams.register(tag(1), 10),
            Ok(Some(7)),
            "a ticket of the full table was refused"
        );
        assert_eq!((streams.open.len(), streams.disputes()), (2, 1));
        assert!(!streams.remove(tag(1), 7), "the stream 10 is newer");
        assert!(streams.remove(tag(1), 10) && streams.remove(tag(2), 8));
        assert!(!streams.remove(tag(2), 8), "the stream was removed already");
        assert_eq!((streams.open.len(), streams.disputes()), (0, 1));
    }

    #[test]
    fn the_full_number_of_a_displaced_stream_is_found() {
        let limit = 1 << 32;
        for (older, newer) in [
            (0, 1),
            (limit - 1, limit),
            (limit + 1, limit - 1),
            (5 * limit - 2, 5 * limit + 2_000_000_000),
            (5 * limit + 2_000_000_000, 5 * limit - 2),
        ] {
            assert_eq!(nearest(newer, low(older)), older, "{older} and {newer}");
        }
    }

    #[test]
    fn the_time_and_the_tag_are_packed_without_a_loss() {
        let millis = |millis| Timestamp::from_millis(millis);
        let tag_max = tag((1 << TicketTag::BITS) - 1);
        for issued_at in [0, 1, 0xfff, 0x1000, 1_800_000_000_123, IssueStamp::MILLIS_MAX] {
            for ticket in [None, Some(tag(1)), Some(tag(0x1_2345_6789_abcd)), Some(tag_max)] {
                let packed = IssueStamp::new(millis(issued_at), ticket);
                assert_eq!((packed.issued_at(), packed.ticket()), (millis(issued_at), ticket));
            }
        }
        let late = IssueStamp::new(millis(u64::MAX), Some(tag_max));
        assert_eq!(late.issued_at(), millis(IssueStamp::MILLIS_MAX));
        assert_eq!(late.ticket(), Some(tag_max));
    }

    #[test]
    fn a_tag_has_the_first_bits_of_the_id() {
        let mut id = [0; TicketId::BYTES];
        assert_eq!(TicketTag::of(TicketId::from_bytes(id)).bits(), 1, "the tag 0 must become 1");
        id[..8].copy_from_slice(&[0xff; 8]);
        assert_eq!(TicketTag::of(TicketId::from_bytes(id)).bits(), (1 << TicketTag::BITS) - 1);
        id[..8].copy_from_slice(&0x1234_5678_9abc_defe_u64.to_be_bytes());
        assert_eq!(TicketTag::of(TicketId::from_bytes(id)).bits(), 0x1_2345_6789_abcd);
    }
}
