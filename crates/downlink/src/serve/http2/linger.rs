//! A connection that is not closed under its peer's last words.
//!
//! A close with unread input is a reset, which can take the last events with it; and an HTTP/2 peer
//! goes on acknowledging what it gets. So after the shutdown of writing, input is read for a while
//! and thrown away, as is done for HTTP/1.1.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::super::direct::{CLOSE_DISCARD_MAX, CLOSE_LINGER};

/// See the module.
#[derive(Debug)]
pub(super) struct Lingering<Io> {
    io: Io,
    /// Set once writing is shut down.
    after: Option<After>,
}

/// What is still read, and until when.
#[derive(Debug)]
struct After {
    bytes_left: usize,
    until: Pin<Box<Sleep>>,
}

impl<Io> Lingering<Io> {
    pub(super) fn new(io: Io) -> Self {
        Self { io, after: None }
    }
}

impl After {
    fn begin() -> Self {
        Self { bytes_left: CLOSE_DISCARD_MAX, until: Box::pin(sleep(CLOSE_LINGER)) }
    }

    /// Completes at the peer's end, or once it has sent enough, or had enough time.
    fn poll<Io: AsyncRead + Unpin>(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 1_024];
        while self.bytes_left > 0 && self.until.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut *io).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
            self.bytes_left = self.bytes_left.saturating_sub(buf.filled().len());
        }
        Poll::Ready(())
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Lingering<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.after.is_none() {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        }
        this.after.get_or_insert_with(After::begin).poll(&mut this.io, cx).map(Ok)
    }
}
