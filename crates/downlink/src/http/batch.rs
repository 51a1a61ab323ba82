//! Joins frames (encoded events) in one buffer, for one write.
//!
//! If a batch has a single frame, the frame is passed on without a copy. When a second frame is
//! added, both frames are copied into the buffer.

use bytes::{Bytes, BytesMut};
use downlink_proto::Frame;

/// The maximum size of a batch in bytes. A larger frame is sent as its own batch.
///
/// On the loopback interface or a fast network, a socket takes this many bytes in one write. The
/// rest of a larger batch would occupy memory until the socket has room again. With smaller
/// batches, a replay of many events would need more writes.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

/// The maximum number of frames in a batch.
///
/// The limit bounds the time of one poll, because other connections wait during the poll. Even 64
/// small events of a few hundred bytes fill several network packets. So larger batches would save
/// only few packets.
pub const BATCH_FRAMES_MAX: usize = 64;

/// The frames of one batch, joined if there are several.
#[derive(Debug)]
pub(super) struct FrameBatch {
    frames: usize,
    frames_max: usize,
    content: BatchContent,
}

#[derive(Debug)]
enum BatchContent {
    Empty,
    Lone(Frame),
    Joined(BytesMut),
}

impl FrameBatch {
    /// A batch of at most `frames_max` frames.
    pub(super) fn of(frames_max: usize) -> Self {
        Self { frames: 0, frames_max, content: BatchContent::Empty }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Whether no further frame fits, not even the smallest.
    pub(super) fn is_full(&self) -> bool {
        self.frames >= self.frames_max || self.len() >= BATCH_BYTES_MAX
    }

    /// Adds a frame. The first frame always fits.
    ///
    /// # Errors
    ///
    /// Returns the frame if it does not fit.
    pub(super) fn push(&mut self, frame: Frame) -> Result<(), Frame> {
        let fits = self.frames < self.frames_max && self.len() + frame.len() <= BATCH_BYTES_MAX;
        if !fits && !self.is_empty() {
            return Err(frame);
        }
        self.push_last(frame);
        Ok(())
    }

    /// Adds a small frame, such as the last one of a response, even if it does not fit.
    pub(super) fn push_last(&mut self, frame: Frame) {
        self.frames += 1;
        self.content = match std::mem::replace(&mut self.content, BatchContent::Empty) {
            BatchContent::Empty => BatchContent::Lone(frame),
            BatchContent::Lone(first) => {
                let mut joined = BytesMut::with_capacity(first.len() + frame.len());
                joined.extend_from_slice(first.as_bytes());
                joined.extend_from_slice(frame.as_bytes());
                BatchContent::Joined(joined)
            }
            BatchContent::Joined(mut joined) => {
                joined.extend_from_slice(frame.as_bytes());
                BatchContent::Joined(joined)
            }
        };
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self.content {
            BatchContent::Empty => Bytes::new(),
            BatchContent::Lone(frame) => frame.into_bytes(),
            BatchContent::Joined(joined) => joined.freeze(),
        }
    }

    fn len(&self) -> usize {
        match &self.content {
            BatchContent::Empty => 0,
            BatchContent::Lone(frame) => frame.len(),
            BatchContent::Joined(joined) => joined.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use downlink_proto::Event;

    use super::*;

    /// A frame of exactly `len` bytes.
    fn frame_of(len: usize) -> Frame {
        let frame = Frame::from(Event::new("x".repeat(len - "data: \n\n".len())));
        assert_eq!(frame.len(), len);
        frame
    }

    fn batch_of(lens: &[usize]) -> FrameBatch {
        let mut batch = FrameBatch::of(BATCH_FRAMES_MAX);
        for len in lens {
            batch.push(frame_of(*len)).expect("the frame fits");
        }
        batch
    }

    #[test]
    fn a_single_frame_is_not_copied() {
        let frame = frame_of(100);
        let address = frame.as_bytes().as_ptr();
        let mut batch = FrameBatch::of(BATCH_FRAMES_MAX);
        batch.push(frame).expect("the frame fits");
        assert_eq!(batch.into_bytes().as_ptr(), address);
    }

    #[test]
    fn frames_keep_their_order() {
        let mut batch = FrameBatch::of(BATCH_FRAMES_MAX);
        for text in ["a", "b", "c"] {
            batch.push(Frame::comment(text)).expect("the frame fits");
        }
        assert_eq!(batch.into_bytes(), ": a\n\n: b\n\n: c\n\n");
    }

    #[test]
    fn a_batch_is_full_at_its_maximum_number_of_bytes() {
        for (last, fits) in [(99, true), (100, true), (101, false)] {
            let mut batch = batch_of(&[BATCH_BYTES_MAX - 200, 100]);
            assert!(!batch.is_full());
            assert_eq!(batch.push(frame_of(last)).is_ok(), fits, "{last}");
        }
        assert!(batch_of(&[BATCH_BYTES_MAX - 100, 100]).is_full());
    }

    #[test]
    fn a_batch_is_full_at_its_maximum_number_of_frames() {
        let mut batch = batch_of(&[20; BATCH_FRAMES_MAX - 1]);
        assert!(!batch.is_full());
        batch.push(frame_of(20)).expect("the last frame fits");
        assert!(batch.is_full());
        assert_eq!(batch.push(frame_of(20)), Err(frame_of(20)));
    }

    #[test]
    fn a_frame_larger_than_a_batch_is_its_own_batch() {
        let mut batch = batch_of(&[BATCH_BYTES_MAX + 1]);
        assert!(batch.is_full());
        assert!(batch.push(frame_of(20)).is_err());
        assert_eq!(batch.into_bytes().len(), BATCH_BYTES_MAX + 1);
    }

    #[test]
    fn the_last_frame_always_fits() {
        let mut batch = batch_of(&[BATCH_BYTES_MAX]);
        batch.push_last(Frame::comment("bye"));
        assert!(batch.into_bytes().ends_with(b"\n\n: bye\n\n"));
    }
}
