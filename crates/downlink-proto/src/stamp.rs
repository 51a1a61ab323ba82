//! Encodes an event before its offset is known. An offset is the number of an event in its log. The
//! id of an event ends with the offset.
//!
//! A log assigns offsets under a lock. To hold the lock only briefly, the log encodes the event
//! before it takes the lock. Under the lock, the log only writes the digits of the offset into the
//! encoded event. Writing these digits is called stamping.
//!
//! At the end of the id, the encoded event has room for the longest offset. Stamping writes the
//! digits at the end of this room, and moves the few bytes before the room to the right. The unused
//! room is then at the start of the buffer, and is cut off without a copy.
//!
//! ```text
//! event: note⏎id: k3j9x0qa-____________________⏎data: …⏎⏎
//! __________________event: note⏎id: k3j9x0qa-17⏎data: …⏎⏎
//! ```

use bytes::{Buf, BytesMut};

use crate::{
    frame::Frame,
    text::{Decimal, U64_DIGITS_MAX},
};

/// An encoded event that is complete except for the offset in its id.
///
/// [`Event::encode_unstamped`](crate::Event::encode_unstamped) makes this value.
/// [`stamp`](Self::stamp) and the first clone of the stamped frame allocate no memory. So a program
/// that stamps and clones a frame under a lock holds the lock only briefly.
///
/// Invariant: `room_start + U64_DIGITS_MAX` is within the buffer.
#[derive(Debug)]
#[must_use]
pub struct UnstampedFrame {
    buffer: BytesMut,
    /// The position of the room for the digits, right after the prefix of the id.
    room_start: usize,
}

impl UnstampedFrame {
    /// Makes a frame from an encoded event that has room for the longest offset at the end of its
    /// id.
    pub(crate) fn new(block: Vec<u8>, room_start: usize) -> Self {
        debug_assert!(room_start + U64_DIGITS_MAX <= block.len(), "no room for the offset");
        Self { buffer: shared(block), room_start }
    }

    /// Completes the id with an offset.
    pub fn stamp(mut self, offset: u64) -> Frame {
        let decimal = Decimal::new(offset);
        let digits = decimal.as_bytes();
        let unused = U64_DIGITS_MAX - digits.len();
        self.buffer.copy_within(..self.room_start, unused);
        let digits_start = self.room_start + unused;
        if let Some(room) = self.buffer.get_mut(digits_start..digits_start + digits.len()) {
            room.copy_from_slice(digits);
        }
        self.buffer.advance(unused);
        Frame::from_block(self.buffer.freeze())
    }

    /// The length of the frame with the longest offset. A stamped frame is at most this long.
    #[must_use]
    pub fn len_max(&self) -> usize {
        self.buffer.len()
    }
}

/// Moves the bytes into a buffer that already has a reference count, so that the first clone of the
/// frame need not allocate the count. `BytesMut` allocates the count when a part is split off, so
/// this function splits off the empty end.
fn shared(block: Vec<u8>) -> BytesMut {
    let mut buffer = BytesMut::from(bytes::Bytes::from(block));
    let end = buffer.len();
    drop(buffer.split_off(end));
    buffer
}
