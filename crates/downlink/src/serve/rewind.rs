//! A connection of which some input was read already.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Gives the input that was read before, then what the connection gives.
#[derive(Debug)]
pub(super) struct Rewind<Io> {
    input: Bytes,
    io: Io,
}

impl<Io> Rewind<Io> {
    pub(super) fn new(input: Bytes, io: Io) -> Self {
        Self { input, io }
    }

    /// The connection and the input that nobody has taken, of which `read` was taken last and not
    /// used.
    pub(super) fn into_parts(self, read: Bytes) -> (Bytes, Io) {
        let Self { input, io } = self;
        if input.is_empty() {
            return (read, io);
        }
        let mut all = BytesMut::from(read);
        all.extend_from_slice(&input);
        (all.freeze(), io)
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Rewind<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let len = self.input.len().min(buf.remaining());
        buf.put_slice(&self.input[..len]);
        self.input.advance(len);
        if self.input.is_empty() {
            // Not even an empty view: it would hold the whole buffer.
            self.input = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Rewind<Io> {
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
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn input_comes_before_what_follows_and_the_rest_is_given_back() {
        let (ours, mut theirs) = duplex(64);
        theirs.write_all(b" and after").await.expect("open");
        let mut rewound = Rewind::new(Bytes::from_static(b"before"), ours);
        let mut two = [0; 2];
        rewound.read_exact(&mut two).await.expect("open");
        let (input, io) = rewound.into_parts(Bytes::copy_from_slice(&two));
        assert_eq!(input, "before");
        let mut rewound = Rewind::new(input, io);
        let mut all = [0; 16];
        rewound.read_exact(&mut all).await.expect("open");
        assert_eq!(&all, b"before and after");
        let (input, _) = rewound.into_parts(Bytes::new());
        assert!(input.is_empty());
    }
}
