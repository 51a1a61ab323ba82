//! Writes the frames (encoded events) that were gathered for a stream to its socket.
//!
//! A driver is a task that serves many streams in rounds (see `driver`). In each round, it writes
//! all frames that a stream has ready as one chunk of the response (RFC 9112, section 7.1), in one
//! write. Large frames are written from their places in memory. Small frames are first copied into
//! one piece, since one short piece is cheaper for the kernel than several pieces (the measurements
//! `rate` and `window` of `cargo xtask bench`).

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::socket::Socket;
use crate::http::{BATCH_BYTES_MAX, BATCH_FRAMES_MAX};

/// The end of a chunk.
const CHUNK_END: &[u8] = b"\r\n";
/// The end of the last chunk of a response, with the empty chunk that ends the response.
const LAST_END: &[u8] = b"\r\n0\r\n\r\n";

/// The maximum size of a chunk's first line: the digits of the chunk's length, and the line break.
const HEAD_BYTES_MAX: usize = 16 + 2;

/// The maximum number of bytes that are copied into one piece. Up to this size, copying frames is
/// cheaper than handing the kernel three or more pieces. The send of 130 bytes took 0.98 µs as one
/// copied piece, 1.07 µs as several pieces with `sendmsg`, and 1.12 µs with `writev`. With four
/// times this size, the copies would cost as much time as they save.
const COPIED_BYTES_MAX: usize = 1_024;

/// The maximum number of bytes of one send.
///
/// The kernel accepts all bytes of a send before it checks how many unsent bytes it holds. With
/// twice the size, a peer that has stopped reading would occupy more than 64 KiB of the kernel's
/// memory. With half the size, a large event would need more calls (the measurement `large` of
/// `cargo xtask bench`).
const SEND_BYTES_MAX: usize = 32 * 1024;

/// The number of slices (pieces of memory) in the chunk of a full batch: the frames, the head, and
/// the end.
const SLICES: usize = BATCH_FRAMES_MAX + 2;

/// How a connection continues after a chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AfterChunk {
    /// More chunks of the response follow.
    Chunks,
    /// The response ends. Another response may follow.
    Requests,
    /// The response and the connection end. On Linux, the kernel sends the end of the connection
    /// together with the end of the response. So the peer cannot see the end of the response and
    /// send another request before the connection ends.
    Nothing,
}

/// The size of the buffer for copied frames, the head, and the end.
const ROOM: usize = HEAD_BYTES_MAX + COPIED_BYTES_MAX + LAST_END.len();

/// The frames gathered for one write. A driver (the task that serves many streams) reuses each
/// `Chunk` in every round.
#[derive(Debug)]
pub(super) struct Chunk {
    count: usize,
    bytes: usize,
    /// Copies of small frames, after the room for the head of their chunk.
    copied: [u8; ROOM],
    /// The frames, if together they are too large to be copied. The frames that were already copied
    /// come first, as one piece.
    frames: Vec<Bytes>,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { count: 0, bytes: 0, copied: [0; ROOM], frames: Vec::new() }
    }
}

impl Chunk {
    pub(super) fn is_full(&self) -> bool {
        self.count >= BATCH_FRAMES_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// Adds a frame. Ignores an empty frame, since an empty chunk would end the response.
    pub(super) fn push(&mut self, frame: Bytes) {
        if frame.is_empty() {
            return;
        }
        let before = self.bytes;
        self.count += 1;
        self.bytes += frame.len();
        if self.bytes <= COPIED_BYTES_MAX {
            self.copied[HEAD_BYTES_MAX + before..HEAD_BYTES_MAX + self.bytes]
                .copy_from_slice(&frame);
            return;
        }
        if self.frames.is_empty() && before > 0 {
            let copied = &self.copied[HEAD_BYTES_MAX..HEAD_BYTES_MAX + before];
            self.frames.push(Bytes::copy_from_slice(copied));
        }
        self.frames.push(frame);
    }

    /// The number of bytes that [`write`](Self::write) has to send: the frames, the head of the
    /// chunk and the end.
    pub(super) fn bytes_to_send(&self, follows: AfterChunk) -> usize {
        let end = self.end(follows).len();
        let digits = (usize::BITS - self.bytes.leading_zeros()).div_ceil(4) as usize;
        let head = if self.bytes > 0 { digits + CHUNK_END.len() } else { 0 };
        head + self.bytes + end
    }

    /// The bytes after the frames.
    fn end(&self, follows: AfterChunk) -> &'static [u8] {
        match (self.bytes, follows) {
            (0, AfterChunk::Chunks) => &[],
            (0, _) => &LAST_END[CHUNK_END.len()..],
            (_, AfterChunk::Chunks) => CHUNK_END,
            _ => LAST_END,
        }
    }

    /// Writes the frames as one chunk, and the end of the response if no chunk follows. Returns the
    /// bytes that the socket did not take. Afterwards `self` holds no frames.
    pub(super) fn write(
        &mut self,
        socket: &Socket,
        follows: AfterChunk,
        now: Instant,
    ) -> io::Result<Option<UnsentBytes>> {
        let end = self.end(follows);
        if end.is_empty() {
            return Ok(None);
        }
        let unsent = if self.frames.is_empty() {
            self.write_copied(socket, end, follows, now)
        } else {
            self.write_frames(socket, end, follows, now)
        };
        self.frames.clear();
        (self.count, self.bytes) = (0, 0);
        unsent
    }

    /// Writes the copied frames as one piece.
    fn write_copied(
        &mut self,
        socket: &Socket,
        end: &[u8],
        follows: AfterChunk,
        now: Instant,
    ) -> io::Result<Option<UnsentBytes>> {
        let head = self.copied.first_chunk_mut().map_or(0, |room| head_of(self.bytes, room).len());
        let until = HEAD_BYTES_MAX + self.bytes;
        self.copied[until..until + end.len()].copy_from_slice(end);
        let piece = &self.copied[HEAD_BYTES_MAX - head..until + end.len()];
        let written = write_some(socket, &[IoSlice::new(piece)], follows)?;
        let unsent = || UnsentBytes::of([Bytes::copy_from_slice(&piece[written..])], now);
        Ok((written < piece.len()).then(unsent))
    }

    /// Writes the frames directly from their places in memory.
    fn write_frames(
        &mut self,
        socket: &Socket,
        end: &'static [u8],
        follows: AfterChunk,
        now: Instant,
    ) -> io::Result<Option<UnsentBytes>> {
        let mut head = [0; HEAD_BYTES_MAX];
        let head = head_of(self.bytes, &mut head);
        let bytes = head.len() + self.bytes + end.len();
        let follows = if bytes <= SEND_BYTES_MAX { follows } else { AfterChunk::Chunks };
        let written = {
            let frames = self.frames.iter().map(|frame| &**frame);
            let slices = one_send([head].into_iter().chain(frames).chain([end]));
            write_some(socket, &slices, follows)?
        };
        if written >= bytes {
            return Ok(None);
        }
        let head = std::iter::once(Bytes::copy_from_slice(head));
        let slices = head.chain(self.frames.drain(..)).chain([Bytes::from_static(end)]);
        let mut unsent = UnsentBytes::of(slices, now);
        unsent.advance(written);
        // A large batch needs several sends.
        let sent = if written < SEND_BYTES_MAX { Ok(false) } else { unsent.write(socket, now) };
        sent.map(|sent| (!sent).then_some(unsent))
    }
}

/// Writes the first line of a chunk, which contains the chunk's length. The line is at the end of
/// `room`. Returns the line. An empty chunk gets an empty line.
fn head_of(bytes: usize, room: &mut [u8; HEAD_BYTES_MAX]) -> &[u8] {
    let mut at = HEAD_BYTES_MAX;
    if bytes > 0 {
        at -= CHUNK_END.len();
        room[at..].copy_from_slice(CHUNK_END);
    }
    let mut left = bytes;
    while left > 0 && at > 0 {
        at -= 1;
        room[at] = b"0123456789abcdef"[left & 0xf];
        left >>= 4;
    }
    &room[at..]
}

/// The bytes that a socket did not take. They belong to one batch.
#[derive(Debug)]
pub(super) struct UnsentBytes {
    slices: VecDeque<Bytes>,
    /// When the socket last took bytes.
    pub(super) progress: Instant,
}

impl UnsentBytes {
    fn of(slices: impl IntoIterator<Item = Bytes>, now: Instant) -> Self {
        Self { slices: slices.into_iter().collect(), progress: now }
    }

    /// The number of bytes that are left.
    pub(super) fn len(&self) -> usize {
        self.slices.iter().map(Bytes::len).sum()
    }

    /// Continues to write these bytes. Returns true if none are left.
    pub(super) fn write(&mut self, socket: &Socket, now: Instant) -> io::Result<bool> {
        while !self.slices.is_empty() {
            let written = {
                let slices = one_send(self.slices.iter().map(|slice| &**slice));
                write_some(socket, &slices, AfterChunk::Chunks)?
            };
            if written == 0 {
                return Ok(false);
            }
            self.progress = now;
            self.advance(written);
        }
        Ok(true)
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(front) = self.slices.front_mut() {
            if written < front.len() {
                let _ = front.split_to(written);
                return;
            }
            written -= front.len();
            self.slices.pop_front();
        }
    }
}

/// The slices of one send.
fn one_send<'a>(slices: impl Iterator<Item = &'a [u8]>) -> SmallVec<[IoSlice<'a>; SLICES]> {
    let mut left = SEND_BYTES_MAX;
    let mut send = SmallVec::new();
    for slice in slices {
        let slice = &slice[..slice.len().min(left)];
        left -= slice.len();
        send.push(IoSlice::new(slice));
        if left == 0 {
            break;
        }
    }
    send
}

/// Writes some of the bytes with one send. Returns 0 if the socket is full or there is nothing to
/// write.
fn write_some(socket: &Socket, slices: &[IoSlice<'_>], follows: AfterChunk) -> io::Result<usize> {
    if slices.iter().all(|slice| slice.is_empty()) {
        return Ok(0);
    }
    loop {
        match socket.write(slices, follows == AfterChunk::Nothing) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            written => return written,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn gathered(frames: &[&[u8]]) -> Chunk {
        let mut gathered = Chunk::default();
        frames.iter().for_each(|frame| gathered.push(Bytes::copy_from_slice(frame)));
        gathered
    }

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets can be made");
        ours.set_nonblocking(true).expect("sockets can be non-blocking");
        (Socket(ours.into()), theirs)
    }

    fn written(frames: &[&[u8]], follows: AfterChunk) -> String {
        let (ours, mut theirs) = pair();
        let mut gathered = gathered(frames);
        let bytes = gathered.bytes_to_send(follows);
        let unsent =
            gathered.write(&ours, follows, Instant::now()).expect("the connection is open");
        assert!(unsent.is_none());
        drop(ours);
        let mut text = String::new();
        theirs.read_to_string(&mut text).expect("the bytes are text");
        assert_eq!(bytes, text.len(), "the metric of sent bytes counts them all");
        text
    }

    #[test]
    fn all_frames_are_written_as_one_chunk() {
        assert_eq!(
            written(&[b"data: a\n\n", b"", b"data: b\n\n"], AfterChunk::Chunks),
            "12\r\ndata: a\n\ndata: b\n\n\r\n"
        );
        assert_eq!(written(&[b"x"], AfterChunk::Requests), "1\r\nx\r\n0\r\n\r\n");
        let (most, more) = (&[b'x'; COPIED_BYTES_MAX][..], &[b'x'; COPIED_BYTES_MAX + 1][..]);
        let several = &[b'x'; 2 * SEND_BYTES_MAX + 1][..];
        for large in [most, more, several] {
            let text = str::from_utf8(large).expect("the frame is ASCII");
            let chunk = format!("{:x}\r\n{text}\r\n0\r\n\r\n", large.len());
            assert_eq!(written(&[large], AfterChunk::Nothing), chunk);
        }
        let frames = [&[b'a'; 600][..], &[b'b'; 424], &[b'c'; 1], &[b'd'; 7]];
        for count in 2..=frames.len() {
            let text: String = frames[..count]
                .iter()
                .flat_map(|frame| frame.iter())
                .map(|byte| char::from(*byte))
                .collect();
            let chunk = format!("{:x}\r\n{text}\r\n", text.len());
            assert_eq!(written(&frames[..count], AfterChunk::Chunks), chunk, "{count}");
        }
        assert_eq!(written(&[], AfterChunk::Nothing), "0\r\n\r\n");
        assert_eq!(written(&[], AfterChunk::Chunks), "");
    }

    #[test]
    fn the_head_of_a_chunk_is_its_length_in_hexadecimal() {
        for len in [1, 15, 16, 255, 256, 4_095, 65_536, 1 << 20, usize::MAX] {
            let mut head = [0; HEAD_BYTES_MAX];
            let head = head_of(len, &mut head);
            assert_eq!(head, format!("{len:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn the_unsent_bytes_of_a_full_socket_follow_in_order() {
        // The first block is copied, the second is not.
        for block in [&[b'x'; 1_000][..], &[b'x'; 50_000][..]] {
            let (ours, mut theirs) = pair();
            let now = Instant::now();
            let mut whole = Vec::new();
            let mut unsent = loop {
                whole.extend_from_slice(format!("{:x}\r\n", block.len()).as_bytes());
                whole.extend_from_slice(block);
                whole.extend_from_slice(b"\r\n");
                if let Some(unsent) = gathered(&[block])
                    .write(&ours, AfterChunk::Chunks, now)
                    .expect("the connection is open")
                {
                    break unsent;
                }
            };
            assert!(!unsent.write(&ours, now).expect("the connection is open"));
            let mut read = vec![0; whole.len()];
            let mut len = 0;
            while len < whole.len() {
                len += theirs.read(&mut read[len..]).expect("the connection is open");
                unsent.write(&ours, now).expect("the connection is open");
            }
            assert!(read == whole, "bytes are lost, doubled or out of order");
        }
    }
}
