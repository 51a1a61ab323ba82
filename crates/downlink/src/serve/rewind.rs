//! A connection of which some input was read already.
//!
//! It also holds back the preface of HTTP/2 until it is whole: hyper tells one from a bad request
//! only by all of it at once, and a network may cut it anywhere.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a peer that speaks HTTP/2 sends first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Gives the input that was read before, then what the connection gives.
#[derive(Debug)]
pub(super) struct Rewind<Io> {
    /// While it is opening, a part of the preface or nothing.
    input: Bytes,
    /// All that has come may be the beginning of the preface.
    opening: bool,
    io: Io,
}

impl<Io> Rewind<Io> {
    pub(super) fn new(input: Bytes, io: Io) -> Self {
        Self { opening: input.is_empty(), input, io }
    }

    /// The connection and the input that nobody has taken, of which `read` was taken last and not
    /// used.
    pub(super) fn into_parts(self, read: Bytes) -> (Bytes, Io) {
        let Self { input, io, .. } = self;
        if input.is_empty() {
            return (read, io);
        }
        let mut all = BytesMut::from(read);
        all.extend_from_slice(&input);
        (all.freeze(), io)
    }
}

impl<Io: AsyncRead + Unpin> Rewind<Io> {
    /// Reads until it is clear whether the preface comes, into `buf` or, once some of it has come,
    /// into the input.
    fn poll_open(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        while self.opening {
            if self.input.is_empty() {
                ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
                let read = &buf.filled()[before..];
                self.opening = is_part_of_preface(read);
                if self.opening {
                    self.input = Bytes::copy_from_slice(read);
                    buf.set_filled(before);
                }
            } else {
                let mut bytes = [0; PREFACE.len()];
                let mut more = ReadBuf::new(&mut bytes[self.input.len()..]);
                ready!(Pin::new(&mut self.io).poll_read(cx, &mut more))?;
                let ended = more.filled().is_empty();
                self.input = [&self.input, more.filled()].concat().into();
                self.opening = !ended && is_part_of_preface(&self.input);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// True of its beginning, not of all of it.
fn is_part_of_preface(read: &[u8]) -> bool {
    !read.is_empty() && read.len() < PREFACE.len() && PREFACE.starts_with(read)
}

impl<Io: AsyncRead + Unpin> AsyncRead for Rewind<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.opening {
            ready!(self.poll_open(cx, buf))?;
            if self.input.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
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

    /// Reads all that comes in chunks, one at a time, and gives what each read gave.
    async fn reads_of(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (ours, mut theirs) = duplex(64);
        let mut rewound = Rewind::new(Bytes::new(), ours);
        let writing = async {
            for chunk in chunks {
                theirs.write_all(chunk).await.expect("open");
                tokio::task::yield_now().await;
            }
            drop(theirs);
        };
        let reading = async {
            let mut reads = Vec::new();
            loop {
                let mut bytes = [0; 64];
                let read = rewound.read(&mut bytes).await.expect("open");
                if read == 0 {
                    return reads;
                }
                reads.push(bytes[..read].to_vec());
            }
        };
        tokio::join!(writing, reading).1
    }

    #[tokio::test]
    async fn preface_comes_at_once_however_it_is_cut() {
        for cut in 1..PREFACE.len() {
            let (first, second) = PREFACE.split_at(cut);
            assert_eq!(reads_of(&[first, second, b"x"]).await, [&PREFACE[..], b"x"], "{cut}");
        }
        let bytes: Vec<&[u8]> = PREFACE.chunks(1).collect();
        assert_eq!(reads_of(&bytes).await, [PREFACE]);
    }

    #[tokio::test]
    async fn what_only_begins_like_the_preface_loses_nothing() {
        assert_eq!(reads_of(&[b"P", b"OST / "]).await.concat(), b"POST / ");
        assert_eq!(reads_of(&[b"PRI * HTTP/2", b".0\r\n\r\nXX"]).await.concat().len(), 20);
        assert_eq!(reads_of(&[b"PRI"]).await, [b"PRI"]);
        assert_eq!(reads_of(&[b"GET / ", b"P"]).await, [&b"GET / "[..], b"P"]);
    }
}
