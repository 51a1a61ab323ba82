//! A socket that ends when its peer stops taking bytes.
//!
//! A response body is not polled while its socket is full, so only the socket itself can see a
//! stall. Where the kernel does not tell (see `socket`; on Linux it does, for TCP), [`StallGuard`]
//! fails a write with `TimedOut` once nothing could be written for `write_stall_max`. hyper then
//! drops the connection and with it the body. A timer exists only while a write is blocked.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

use super::progress::Progress;
use super::socket::{self, SocketLimits, StallTimer};

/// See the module.
#[derive(Debug)]
pub(super) struct StallGuard<Io> {
    io: Io,
    /// How long an operation may be blocked; none where the kernel sees to it.
    blocked_max: Option<Duration>,
    blocked: Option<Blocked>,
    /// The connection's place among `connections_max`, for as long as the socket lives: also when
    /// an upgrade hands it to other code.
    place: Option<OwnedSemaphorePermit>,
    /// Who wants to know of flushes.
    progress: Option<Arc<Progress>>,
}

/// An operation that waits for the peer, and the timer that says for how long it may.
#[derive(Debug)]
struct Blocked {
    on: Operation,
    timer: Pin<Box<Sleep>>,
}

/// What can wait for the peer. A flush that is done says nothing about a write that is not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Operation {
    Write,
    Flush,
    Shutdown,
}

impl<Io: 'static> StallGuard<Io> {
    /// Sets the socket's options and takes it over.
    pub(super) fn new(io: Io, limits: SocketLimits, place: Option<OwnedSemaphorePermit>) -> Self {
        let blocked_max = match socket::tune(&io, limits) {
            StallTimer::Kernel => None,
            StallTimer::Server => Some(limits.write_stall_max),
        };
        Self { io, blocked_max, blocked: None, place, progress: None }
    }

    /// Notes flushes from here on.
    pub(super) fn report_flushes(&mut self, progress: Arc<Progress>) {
        self.progress = Some(progress);
    }

    /// Whether it is this guard, and not the kernel, that sees stalls.
    pub(super) fn times_stalls(&self) -> bool {
        self.blocked_max.is_some()
    }

    /// The socket, and its place among the connections.
    pub(super) fn into_parts(self) -> (Io, Option<OwnedSemaphorePermit>) {
        (self.io, self.place)
    }

    /// Takes the outcome of an operation: its end forgets the timer, the lack of one is timed.
    fn watch<T>(
        &mut self,
        on: Operation,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.blocked = self.blocked.take().filter(|blocked| blocked.on != on);
            return polled;
        }
        let Some(blocked_max) = self.blocked_max else { return Poll::Pending };
        let start = || Blocked { on, timer: Box::pin(sleep(blocked_max)) };
        if self.blocked.get_or_insert_with(start).timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        socket::discard_on_close(&self.io);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes no bytes")))
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for StallGuard<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin + 'static> AsyncWrite for StallGuard<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.watch(Operation::Write, written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.watch(Operation::Write, written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if let (Poll::Ready(Ok(())), Some(progress)) = (&flushed, &self.progress) {
            progress.note_flushed();
        }
        self.watch(Operation::Flush, flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(Operation::Shutdown, shut, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::{Instant, advance};

    use super::*;

    const STALL: Duration = Duration::from_secs(10);
    const LIMITS: SocketLimits = SocketLimits { write_stall_max: STALL, unsent_bytes_max: 0 };

    #[tokio::test(start_paused = true)]
    async fn blocked_write_times_out() {
        let (ours, _theirs) = duplex(4);
        let mut guard = StallGuard::new(ours, LIMITS, None);
        let before = Instant::now();
        let error = guard.write_all(b"too much").await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(before.elapsed().as_secs(), STALL.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_reader_that_makes_progress_is_kept() {
        let (ours, mut theirs) = duplex(1);
        let mut guard = StallGuard::new(ours, LIMITS, None);
        let reader = async {
            let mut got = Vec::new();
            for _ in 0..8 {
                advance(STALL - Duration::from_secs(1)).await;
                got.push(theirs.read_u8().await.expect("open"));
            }
            got
        };
        let (written, got) = tokio::join!(guard.write_all(b"all of it"), reader);
        drop(theirs);
        assert_eq!(got, b"all of i");
        written.expect("eight read, one in the pipe");
    }

    #[tokio::test(start_paused = true)]
    async fn flushing_does_not_put_the_timeout_off() {
        let (ours, _theirs) = duplex(4);
        let mut guard = StallGuard::new(ours, LIMITS, None);
        guard.write_all(b"four").await.expect("fits");
        let before = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        let error = poll_fn(|cx| {
            let written = Pin::new(&mut guard).poll_write(cx, b"more");
            assert!(Pin::new(&mut guard).poll_flush(cx).is_ready());
            while ticks.poll_tick(cx).is_ready() {}
            written
        });
        assert_eq!(error.await.expect_err("nobody reads").kind(), io::ErrorKind::TimedOut);
        assert_eq!(before.elapsed().as_secs(), STALL.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn timer_lives_only_while_blocked() {
        let (ours, mut theirs) = duplex(4);
        let mut guard = StallGuard::new(ours, LIMITS, None);
        guard.write_all(b"four").await.expect("fits");
        assert!(guard.blocked.is_none());
        let (written, read) = tokio::join!(guard.write_all(b"more"), theirs.read_u32());
        written.expect("read in time");
        read.expect("four bytes");
        assert!(guard.blocked.is_none());
    }
}
