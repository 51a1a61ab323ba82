//! The requests of a node to the journal, and its answers to readers.

use std::ops::Range;

use downlink_log::{GapReason, Offset};

use crate::{entry::EntryName, node::history::Found, position::Position};

/// A request to the journal. The answer goes to the method that is named here.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Request {
    /// Open the journal; [`handle_opened`](crate::Node::handle_opened).
    Open,
    /// Append the entry; [`handle_appended`](crate::Node::handle_appended).
    Append {
        /// The name of the entry. It is the same when an append is repeated.
        name: EntryName,
        /// The entry.
        bytes: Vec<u8>,
    },
    /// Replace the tail by one that begins here; [`handle_tail`](crate::Node::handle_tail).
    Tail {
        /// The first position.
        from: Position,
    },
    /// Read entries; [`handle_read`](crate::Node::handle_read).
    Read {
        /// The positions.
        range: Range<Position>,
    },
    /// Ask for the bounds of the journal; [`handle_bounds`](crate::Node::handle_bounds).
    Bounds,
    /// Choose a random writer; [`handle_writer`](crate::Node::handle_writer). The random number
    /// must come from the operating system: if it came from the memory of the process, a clone of
    /// the process would choose the same one.
    Writer,
}

/// Where a reader continues.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resume {
    /// After the event with this offset.
    After(Offset),
    /// At `next`, after a gap.
    Gap {
        /// Why events are missing.
        reason: GapReason,
        /// The offset where the reader continues.
        next: Offset,
    },
    /// The answer is not known yet: ask again when the node has handled further input.
    Wait,
    /// The node cannot answer. The reader should try again, here or at another node.
    Unavailable,
}

impl From<Found> for Resume {
    fn from(found: Found) -> Self {
        match found {
            Found::After(offset) => Self::After(offset),
            Found::Gap { reason, next } => Self::Gap { reason, next },
            Found::Ahead(_) => Self::Wait,
        }
    }
}
