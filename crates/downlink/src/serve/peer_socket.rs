//! A wrapper around a peer's socket. hyper, the HTTP library, reads and writes through it.
//!
//! The wrapper passes the bytes on. In addition, it has these tasks:
//!
//! - *Rewinding.* Code that has read too much can put input back. The next reads return this input
//!   first, and then new input from the socket. The wrapper also holds back the preface (the first
//!   bytes of a peer that speaks HTTP/2) until the preface is complete. hyper recognizes a preface
//!   only if one read returns all of it, and a network may cut the preface anywhere.
//! - *Stalls.* A write fails with `TimedOut` if the peer takes no bytes for too long (see `stall`).
//!   hyper then drops the connection, and with it the response's body.
//! - *Reasons.* If hyper cannot read a request head, it refuses the request with a status and no
//!   body. The wrapper sends a problem document with the reason instead (see `refusal`).
//! - *Careful closing.* Before the wrapper closes the socket, it tells the peer that no more bytes
//!   follow, and then reads and discards input for a while. A socket that is closed with unread
//!   input sends a reset, and a reset can destroy the last event before the peer reads it.
//! - *Permit.* The wrapper owns the permit that counts the connection against `connections_max`. If
//!   an upgrade gives the wrapper to other code, the permit goes with it.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::limits::ServeLimits;
use super::progress::Progress;
use super::refusal;
use super::socket;
use super::stall::StallTimer;
use super::stats::ServeStats;

/// How long a careful close waits for the peer to close the connection too.
///
/// This is enough for a round trip and a slow peer. With twice the time, peers that are gone would
/// occupy file descriptors for longer.
pub(super) const CLOSE_LINGER: Duration = Duration::from_secs(1);

/// The maximum number of bytes that a careful close discards. This is enough for requests that are
/// on their way. A peer that continues to send gets a reset.
const CLOSE_DISCARD_MAX: usize = 256 * 1024;

/// The first bytes of a peer that speaks HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A peer's socket, wrapped as described above. The permit may be any value. The wrapper only keeps
/// it.
#[derive(Debug)]
pub(super) struct PeerSocket<Io, Permit> {
    pub(super) io: Io,
    /// Input that was already read from the socket. A read returns this input first, and then new
    /// input. While `opening` is true, this is empty or the beginning of the preface.
    pub(super) input: Bytes,
    /// Whether the input so far may be the beginning of the preface.
    opening: bool,
    pub(super) stall: StallTimer,
    /// The operation that waits for the peer while the timer `stall` runs.
    blocked_on: SocketOperation,
    pub(super) permit: Permit,
    /// The place where the socket records that input has arrived, and that a flush has completed.
    /// With `None`, the socket records neither.
    pub(super) progress: Option<Arc<Progress>>,
    /// Whether `poll_shutdown` closes the socket carefully.
    pub(super) closes_carefully: bool,
    closing: Option<CarefulClose>,
    /// The unsent part of the problem document that replaces a refusal by hyper.
    replacement: Option<Bytes>,
    stats: ServeStats,
}

/// An operation that can wait for the peer. The operations are distinguished because a flush can
/// complete while a write is blocked. The timer of the blocked write must then continue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SocketOperation {
    Write,
    Flush,
    Shutdown,
}

/// The state of a careful close after `poll_end` has told the peer that no more bytes follow.
#[derive(Debug)]
struct CarefulClose {
    bytes_left: usize,
    until: Pin<Box<Sleep>>,
}

impl<Io: 'static, Permit> PeerSocket<Io, Permit> {
    /// Wraps an accepted socket, and sets its options.
    pub(super) fn new(io: Io, limits: &ServeLimits, stats: &ServeStats, permit: Permit) -> Self {
        let kernel_times = socket::tune(&io, limits);
        Self {
            io,
            input: Bytes::new(),
            opening: true,
            stall: StallTimer::new((!kernel_times).then_some(limits.write_stall_max)),
            blocked_on: SocketOperation::Write,
            permit,
            progress: None,
            closes_carefully: false,
            closing: None,
            replacement: None,
            stats: stats.clone(),
        }
    }

    /// Puts back bytes that the caller has read but not used, so that the next read returns them.
    /// They must be the newest bytes that the caller has read.
    pub(super) fn rewind(&mut self, read: &[u8]) {
        // The bytes are copied, because a reference to them would keep all of hyper's buffer in
        // memory.
        self.input = [read, &self.input].concat().into();
        self.opening = self.input.is_empty();
    }

    /// Puts back the input that was read after a header of the PROXY protocol. Unlike input that
    /// [`rewind`](Self::rewind) puts back, this input may begin with the preface.
    pub(super) fn begin_with(&mut self, input: Vec<u8>) {
        self.opening = is_part_of_preface(&input);
        self.input = input.into();
    }

    /// Times an operation while it is blocked. Returns an error if it is blocked for too long.
    fn watch<T>(
        &mut self,
        on: SocketOperation,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            if self.blocked_on == on {
                self.stall.stop();
            }
            return polled;
        }
        if !self.stall.is_running() {
            self.blocked_on = on;
            self.stall.start();
        }
        ready!(self.stall.poll(cx));
        socket::discard_on_close(&self.io);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no bytes")))
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin + 'static, Permit: Unpin> PeerSocket<Io, Permit> {
    /// Closes the connection so that the peer gets everything that was sent.
    pub(super) async fn close(mut self) {
        // Dropping `self` closes the socket, even after an error.
        let _ = poll_fn(|cx| self.poll_close(cx)).await;
    }

    /// Sends a last answer, and closes the connection so that the peer gets it.
    pub(super) async fn close_with(mut self, answer: Bytes) {
        // After an error, the answer cannot be delivered, so the connection is only closed.
        let _ = self.write_all(&answer).await;
        self.close().await;
    }

    /// Completes when the peer has closed the connection, when [`CLOSE_DISCARD_MAX`] bytes of input
    /// were discarded, or after [`CLOSE_LINGER`].
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(self.poll_end(cx))?;
        }
        let begin =
            || CarefulClose { bytes_left: CLOSE_DISCARD_MAX, until: Box::pin(sleep(CLOSE_LINGER)) };
        let closing = self.closing.get_or_insert_with(begin);
        let mut bytes = [0; 1_024];
        while closing.bytes_left > 0 && closing.until.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
            closing.bytes_left = closing.bytes_left.saturating_sub(buf.filled().len());
        }
        Poll::Ready(Ok(()))
    }

    /// If hyper writes a refusal, writes a problem document with the reason instead. Returns `None`
    /// if hyper writes anything else.
    fn poll_refusal(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<()>>> {
        // Between requests, hyper writes only refusals of request heads.
        if self.replacement.is_none() && self.progress.as_ref().is_some_and(|it| it.is_idle()) {
            self.replacement = refusal::with_reason(bytes);
        }
        let replacement = self.replacement.as_mut()?;
        while !replacement.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, replacement) {
                Poll::Ready(Ok(0)) => {
                    return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(written)) => replacement.advance(written),
                other => return Some(other.map_ok(drop)),
            }
        }
        self.replacement = None;
        Some(Poll::Ready(Ok(())))
    }

    /// Tells the peer that no more bytes follow.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(SocketOperation::Shutdown, shut, cx)
    }
}

impl<Io, Permit> PeerSocket<Io, Permit> {
    fn note_written(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.stats.note_sent(*bytes);
        }
    }

    fn note_input(&self) {
        if let Some(progress) = &self.progress {
            progress.note_input();
        }
    }
}

/// Whether the bytes are the beginning of the preface, but not all of it.
fn is_part_of_preface(read: &[u8]) -> bool {
    read.len() < PREFACE.len() && PREFACE.starts_with(read)
}

impl<Io: AsyncRead + Unpin, Permit: Unpin> AsyncRead for PeerSocket<Io, Permit> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // This loop ends when the preface is complete or the input cannot be a preface.
        while self.opening {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            let read = &buf.filled()[before..];
            self.input = [&self.input, read].concat().into();
            self.opening = !read.is_empty() && is_part_of_preface(&self.input);
            buf.set_filled(before);
        }
        if self.input.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            if buf.filled().len() > before {
                self.note_input();
            }
            return Poll::Ready(Ok(()));
        }
        self.note_input();
        let len = self.input.len().min(buf.remaining());
        buf.put_slice(&self.input[..len]);
        self.input.advance(len);
        if self.input.is_empty() {
            // An empty part of the old buffer would keep the whole buffer in memory.
            self.input = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io, Permit> AsyncWrite for PeerSocket<Io, Permit>
where
    Io: AsyncRead + AsyncWrite + Unpin + 'static,
    Permit: Unpin,
{
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match self.poll_refusal(cx, bytes) {
            Some(refused) => refused.map_ok(|()| bytes.len()),
            None => Pin::new(&mut self.io).poll_write(cx, bytes),
        };
        self.note_written(&written);
        self.watch(SocketOperation::Write, written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.first().map_or(&[][..], |slice| slice);
        let written = match self.poll_refusal(cx, first) {
            Some(refused) => refused.map_ok(|()| slices.iter().map(|slice| slice.len()).sum()),
            None => Pin::new(&mut self.io).poll_write_vectored(cx, slices),
        };
        self.note_written(&written);
        self.watch(SocketOperation::Write, written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if let (Poll::Ready(Ok(())), Some(progress)) = (&flushed, &self.progress) {
            progress.note_flushed();
        }
        self.watch(SocketOperation::Flush, flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closes_carefully { self.poll_close(cx) } else { self.poll_end(cx) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{Instant, advance};

    use super::*;
    use crate::http::Spread;

    const STALL: Duration = Duration::from_secs(10);
    const LIMITS: ServeLimits = ServeLimits {
        drain_within: STALL,
        reconnection: Spread::between(STALL, STALL),
        header_timeout: STALL,
        idle_timeout: STALL,
        write_stall_max: STALL,
        unsent_bytes_max: 0,
        connections_max: 1,
    };

    fn socket_of<Io: 'static>(io: Io) -> PeerSocket<Io, ()> {
        PeerSocket::new(io, &LIMITS, &ServeStats::new(), ())
    }

    #[tokio::test(start_paused = true)]
    async fn a_blocked_write_times_out() {
        let (ours, _theirs) = duplex(4);
        let mut socket = socket_of(ours);
        let before = Instant::now();
        let error = socket.write_all(b"too much").await.expect_err("the peer does not read");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(before.elapsed().as_secs(), STALL.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_that_makes_progress_is_kept() {
        let (ours, mut theirs) = duplex(1);
        let mut socket = socket_of(ours);
        let reader = async {
            let mut got = Vec::new();
            for _ in 0..8 {
                advance(STALL - Duration::from_secs(1)).await;
                got.push(theirs.read_u8().await.expect("the connection is open"));
            }
            got
        };
        let (written, got) = tokio::join!(socket.write_all(b"all of it"), reader);
        drop(theirs);
        assert_eq!(got, b"all of i");
        written.expect("eight bytes were read, and one is in the pipe");
    }

    #[tokio::test(start_paused = true)]
    async fn flushing_does_not_postpone_the_timeout() {
        let (ours, _theirs) = duplex(4);
        let mut socket = socket_of(ours);
        socket.write_all(b"four").await.expect("the pipe has room");
        let before = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        let error = poll_fn(|cx| {
            let written = Pin::new(&mut socket).poll_write(cx, b"more");
            assert!(Pin::new(&mut socket).poll_flush(cx).is_ready());
            while ticks.poll_tick(cx).is_ready() {}
            written
        });
        assert_eq!(
            error.await.expect_err("the peer does not read").kind(),
            io::ErrorKind::TimedOut
        );
        assert_eq!(before.elapsed().as_secs(), STALL.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_careful_close_waits_for_the_peer_but_not_forever() {
        let before = Instant::now();
        let (ours, theirs) = duplex(64);
        drop(theirs);
        socket_of(ours).close().await;
        assert_eq!(before.elapsed(), Duration::ZERO);
        let (ours, mut theirs) = duplex(64);
        theirs.write_all(b"unread").await.expect("the connection is open");
        socket_of(ours).close().await;
        assert!(before.elapsed() >= CLOSE_LINGER);
        theirs.write_all(b"x").await.expect_err("the connection is closed");
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_exists_only_while_a_write_is_blocked() {
        let (ours, mut theirs) = duplex(4);
        let mut socket = socket_of(ours);
        socket.write_all(b"four").await.expect("the pipe has room");
        assert!(!socket.stall.is_running());
        let (written, read) = tokio::join!(socket.write_all(b"more"), theirs.read_u32());
        written.expect("the peer reads in time");
        read.expect("four bytes were written");
        assert!(!socket.stall.is_running());
    }

    #[tokio::test]
    async fn rewound_input_comes_before_new_input() {
        let (ours, mut theirs) = duplex(64);
        theirs.write_all(b" and after").await.expect("the connection is open");
        let mut rewound = socket_of(ours);
        rewound.rewind(b"before");
        let mut two = [0; 2];
        rewound.read_exact(&mut two).await.expect("the connection is open");
        rewound.rewind(&two);
        let PeerSocket { io, input, .. } = rewound;
        assert_eq!(input, "before");
        let mut rewound = socket_of(io);
        rewound.rewind(&input);
        let mut all = [0; 16];
        rewound.read_exact(&mut all).await.expect("the connection is open");
        assert_eq!(&all, b"before and after");
        assert!(rewound.input.is_empty());
    }

    /// Sends chunks one at a time, and returns the bytes of each read.
    async fn reads_of(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (ours, mut theirs) = duplex(64);
        let mut rewound = socket_of(ours);
        let writing = async {
            for chunk in chunks {
                theirs.write_all(chunk).await.expect("the connection is open");
                tokio::task::yield_now().await;
            }
            drop(theirs);
        };
        let reading = async {
            let mut reads = Vec::new();
            loop {
                let mut bytes = [0; 64];
                let read = rewound.read(&mut bytes).await.expect("the connection is open");
                if read == 0 {
                    return reads;
                }
                reads.push(bytes[..read].to_vec());
            }
        };
        tokio::join!(writing, reading).1
    }

    #[tokio::test]
    async fn the_preface_comes_in_one_read_wherever_it_is_cut() {
        for cut in 1..PREFACE.len() {
            let (first, second) = PREFACE.split_at(cut);
            let reads = reads_of(&[first, second, b"x"]).await;
            assert!(reads[0].starts_with(PREFACE), "{cut}");
            assert_eq!(reads.concat(), [&PREFACE[..], b"x"].concat(), "{cut}");
        }
        let bytes: Vec<&[u8]> = PREFACE.chunks(1).collect();
        assert_eq!(reads_of(&bytes).await, [PREFACE]);
    }

    #[tokio::test]
    async fn input_that_begins_like_the_preface_loses_no_bytes() {
        assert_eq!(reads_of(&[b"P", b"OST / "]).await.concat(), b"POST / ");
        assert_eq!(reads_of(&[b"PRI * HTTP/2", b".0\r\n\r\nXX"]).await.concat().len(), 20);
        assert_eq!(reads_of(&[b"PRI"]).await, [b"PRI"]);
        assert_eq!(reads_of(&[b"GET / ", b"P"]).await, [&b"GET / "[..], b"P"]);
    }
}
