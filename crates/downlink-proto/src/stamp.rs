//! A frame whose id still lacks its offset.
//!
//! An event is encoded before its offset is known, outside the lock that assigns offsets; under the
//! lock only the digits are added. The buffer has room for the longest number between the id's
//! prefix and the rest. Stamping writes the digits at the end of that room and moves the few bytes
//! before it to the right, so the unused room ends up in front, where it is cut off without a copy.
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

/// An event, encoded except for the offset that ends its id.
///
/// Made by [`Event::encode_unstamped`](crate::Event::encode_unstamped). Neither
/// [`stamp`](Self::stamp) nor the first clone of the frame it gives allocates, since both may happen
/// under a lock.
///
/// Invariant: `room_start + U64_DIGITS_MAX` is within the buffer.
#[derive(Debug)]
#[must_use]
pub struct UnstampedFrame {
    buffer: BytesMut,
    /// Where the room for the digits begins: behind the id's prefix.
    room_start: usize,
}

impl UnstampedFrame {
    /// A frame from a block with room for the longest offset at the end of its id.
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

    /// The length of the frame with the longest offset; no stamped frame is longer.
    #[must_use]
    pub fn len_max(&self) -> usize {
        self.buffer.len()
    }
}

/// The bytes in a buffer that is already reference-counted: splitting off its (empty) end makes it
/// so. Otherwise the count would be allocated when the frame is first cloned.
fn shared(block: Vec<u8>) -> BytesMut {
    let mut buffer = BytesMut::from(bytes::Bytes::from(block));
    let end = buffer.len();
    drop(buffer.split_off(end));
    buffer
}
