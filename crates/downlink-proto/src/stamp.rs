//! A frame whose id still lacks its offset.
//!
//! An event is encoded before its offset is known, outside the lock that assigns offsets. Under the
//! lock only the digits are added. The buffer has room for the longest number between the id's
//! prefix and the rest. Stamping writes the digits at the end of that room and moves the few bytes
//! before it to the right. The unused room is then in front, and is cut off without a copy.
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

/// An encoded event whose id still lacks its offset.
///
/// Made by [`Event::encode_unstamped`](crate::Event::encode_unstamped). Neither
/// [`stamp`](Self::stamp) nor the first clone of its frame allocates, since both may happen under a
/// lock.
///
/// Invariant: `room_start + U64_DIGITS_MAX` is within the buffer.
#[derive(Debug)]
#[must_use]
pub struct UnstampedFrame {
    buffer: BytesMut,
    /// The start of the room for the digits, after the id's prefix.
    room_start: usize,
}

impl UnstampedFrame {
    /// Makes a frame from a block that has room for the longest offset at the end of its id.
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

    /// The length of the frame with the longest offset. No stamped frame is longer.
    #[must_use]
    pub fn len_max(&self) -> usize {
        self.buffer.len()
    }
}

/// The bytes in a buffer that is already reference-counted. Splitting off its empty end does that.
/// Otherwise the first clone of the frame would allocate the count.
fn shared(block: Vec<u8>) -> BytesMut {
    let mut buffer = BytesMut::from(bytes::Bytes::from(block));
    let end = buffer.len();
    drop(buffer.split_off(end));
    buffer
}
