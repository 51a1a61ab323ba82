//! The pace at which a peer takes a response, as far as its body can see.
//!
//! hyper polls a body again once HTTP/2's flow control has room for its last piece. So a body that
//! has yielded a piece and is not polled again waits for its peer. A [`Paced`] body yields small
//! pieces, and reports each poll in the [`BodyReport`] of its connection. The stream reads the
//! report after its own poll and times the wait (see `streams`).

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
/// One HTTP/2 frame at the protocol's default. hyper queues a piece as soon as there is room for
/// one byte, so a stream may hold this much beyond its peer's window. A slow peer must take this
/// much within `write_stall_max`. Half would double the frames; double gains nothing.
pub(super) const PIECE_BYTES_MAX: usize = 16 * 1024;

/// Whether the body of the stream that is being polled yielded a piece in its last poll; `None` if
/// there was none. Each connection has one report, as its one task polls one stream at a time.
pub(super) type BodyReport = Arc<Mutex<Option<bool>>>;

pin_project! {
    /// A body in pieces of at most [`PIECE_BYTES_MAX`].
    pub(super) struct Paced<B> {
        #[pin]
        inner: B,
        // The rest of the chunk that the body yielded last.
        rest: Bytes,
        report: BodyReport,
        // The request asks for the head alone; hyper leaves that to the service in HTTP/2.
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
            // An empty view would hold the whole buffer.
            *this.rest = Bytes::new();
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.bodiless || (self.rest.is_empty() && self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // hyper asks for it before the first piece alone.
        if self.rest.is_empty() { self.inner.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn large_body_comes_in_pieces_and_whole() {
        for len in [0, 1, PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, 100_000] {
            let bytes = Bytes::from_iter((0..len).map(|at| at as u8));
            let mut paced = Paced::new(Full::new(bytes.clone()), BodyReport::default(), false);
            assert_eq!(paced.size_hint().exact(), Some(len as u64));
            let mut all = Vec::new();
            while let Some(Ok(frame)) = paced.frame().await {
                let piece = frame.into_data().expect("data");
                assert!(piece.len() <= PIECE_BYTES_MAX);
                all.extend_from_slice(&piece);
                assert_eq!(paced.is_end_stream(), all.len() == len);
            }
            assert_eq!(all, bytes);
        }
    }

    #[tokio::test]
    async fn report_is_of_the_last_poll() {
        let report = BodyReport::default();
        assert_eq!(*report.lock(), None);
        let mut paced = Paced::new(Full::new(Bytes::from_static(b"a")), report.clone(), false);
        paced.frame().await.expect("data").expect("infallible");
        assert_eq!(*report.lock(), Some(true));
        assert!(paced.frame().await.is_none());
        assert_eq!(*report.lock(), Some(false));
    }

    #[test]
    fn answer_to_head_has_ended_before_it_begins() {
        let paced = Paced::new(Full::new(Bytes::from_static(b"a")), BodyReport::default(), true);
        assert!(paced.is_end_stream());
    }
}
