//! Reports whether a peer takes the bytes of a response.
//!
//! hyper (the HTTP library) polls a body again once HTTP/2's flow control has room for the last
//! piece that the body yielded. So if a body has yielded a piece and is not polled again, the peer
//! is slow. A [`Paced`] body yields small pieces, and records each poll in the [`BodyReport`] of
//! its connection. After each poll of a stream, `streams` reads the report and times how long the
//! body waits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, SizeHint};
use parking_lot::Mutex;
use pin_project_lite::pin_project;

use crate::serve::outgoing::PolledFrame;

/// The largest piece of a body that hyper gets at once.
///
/// This is the default size of one HTTP/2 frame. hyper queues a piece as soon as the peer's window
/// has room for one byte, so a stream may hold almost this many bytes more than the window allows.
/// A slow peer must take one piece within `write_stall_max`. With smaller pieces, hyper would send
/// more frames. Larger pieces would not make the transfer faster.
pub(super) const PIECE_BYTES_MAX: usize = 16 * 1024;

/// The result of the latest poll of a stream: `Some(true)` if the stream's body yielded a piece,
/// `Some(false)` if the body was polled and yielded no piece, and `None` if the body was not
/// polled. A connection has one report for all its streams, because its task polls one stream after
/// the other.
pub(super) type BodyReport = Arc<Mutex<Option<bool>>>;

pin_project! {
    /// A body that yields pieces of at most [`PIECE_BYTES_MAX`].
    pub(super) struct Paced<B> {
        #[pin]
        inner: B,
        // The part of the inner body's last chunk that was not yielded yet.
        rest: Bytes,
        report: BodyReport,
        // Whether the method of the request is `HEAD`, so that the response must have no body. Over
        // HTTP/2, hyper itself does not leave out the body.
        bodiless: bool,
    }
}

impl<B> Paced<B> {
    pub(super) fn new(inner: B, report: BodyReport, bodiless: bool) -> Self {
        Self { inner, rest: Bytes::new(), report, bodiless }
    }
}

impl<B: Body<Data = Bytes>> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame<B::Error> {
        let this = self.project();
        *this.report.lock() = Some(false);
        if this.rest.is_empty() {
            match ready!(this.inner.poll_frame(cx)).map(|frame| frame.map(|f| f.into_data())) {
                Some(Ok(Ok(bytes))) => *this.rest = bytes,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        *this.report.lock() = Some(true);
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES_MAX));
        if this.rest.is_empty() {
            // An empty part of the old buffer would keep the whole buffer in memory.
            *this.rest = Bytes::new();
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.bodiless || (self.rest.is_empty() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // hyper calls this only before the first piece.
        if self.rest.is_empty() { self.inner.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn a_large_body_is_yielded_completely_in_pieces() {
        for len in [0, 1, PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, 100_000] {
            let bytes = Bytes::from_iter((0..len).map(|at| at as u8));
            let mut paced = Paced::new(Full::new(bytes.clone()), BodyReport::default(), false);
            assert_eq!(paced.size_hint().exact(), Some(len as u64));
            let mut all = Vec::new();
            while let Some(Ok(frame)) = paced.frame().await {
                let piece = frame.into_data().expect("the frame has data");
                assert!(piece.len() <= PIECE_BYTES_MAX);
                all.extend_from_slice(&piece);
                assert_eq!(paced.is_end_stream(), all.len() == len);
            }
            assert_eq!(all, bytes);
        }
    }

    #[tokio::test]
    async fn the_report_describes_the_last_poll() {
        let report = BodyReport::default();
        assert_eq!(*report.lock(), None);
        let mut paced = Paced::new(Full::new(Bytes::from_static(b"a")), report.clone(), false);
        paced.frame().await.expect("the frame has data").expect("the body cannot fail");
        assert_eq!(*report.lock(), Some(true));
        assert!(paced.frame().await.is_none());
        assert_eq!(*report.lock(), Some(false));
    }

    #[test]
    fn the_answer_to_a_head_request_has_no_body() {
        let paced = Paced::new(Full::new(Bytes::from_static(b"a")), BodyReport::default(), true);
        assert!(paced.is_end_stream());
    }
}
