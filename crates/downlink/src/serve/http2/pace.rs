//! The pace at which a peer takes a response, as far as its body can see.
//!
//! hyper polls a body again once HTTP/2's flow control has room for its last piece. So a body that
//! has yielded a piece and is not polled again waits for its peer. A [`Paced`] body yields small
//! pieces, and reports each poll in the [`BodyReport`] of its connection. The stream reads the report
//! after its own poll and times the wait (see `streams`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, SizeHint};
use pin_project_lite::pin_project;

/// The largest piece of a body that hyper gets at once.
///
/// One HTTP/2 frame at the protocol's default. hyper queues a piece as soon as there is room for
/// one byte, so a stream may hold this much beyond its peer's window. A slow peer must take this much
/// within `write_stall_max`. Half would double the frames; double gains nothing.
pub(super) const PIECE_BYTES_MAX: usize = 16 * 1024;

/// The last poll of a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BodyPoll {
    /// There was none.
    None,
    /// The body had nothing to yield.
    Pending,
    /// The body yielded a piece.
    Piece,
}

/// The last poll of the body of the stream that is being polled.
///
/// Each connection has one. Its one task polls one stream at a time, so the order of memory does not
/// matter (Relaxed).
#[derive(Clone, Debug, Default)]
pub(super) struct BodyReport(Arc<AtomicU8>);

impl BodyReport {
    pub(super) fn set(&self, poll: BodyPoll) {
        self.0.store(poll as u8, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> BodyPoll {
        let last = self.0.load(Ordering::Relaxed);
        let known = [BodyPoll::Pending, BodyPoll::Piece].into_iter().find(|it| *it as u8 == last);
        known.unwrap_or(BodyPoll::None)
    }
}

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

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, B::Error>>> {
        let this = self.project();
        this.report.set(BodyPoll::Pending);
        if this.rest.is_empty() {
            match ready!(this.inner.poll_frame(cx)).map(|frame| frame.map(|f| f.into_data())) {
                Some(Ok(Ok(bytes))) => *this.rest = bytes,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        this.report.set(BodyPoll::Piece);
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
        let rest = self.rest.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
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
                assert_eq!(paced.size_hint().exact(), Some((len - all.len()) as u64));
                assert_eq!(paced.is_end_stream(), all.len() == len);
            }
            assert_eq!(all, bytes);
        }
    }

    #[tokio::test]
    async fn report_is_of_the_last_poll() {
        let report = BodyReport::default();
        assert_eq!(report.get(), BodyPoll::None);
        let mut paced = Paced::new(Full::new(Bytes::from_static(b"a")), report.clone(), false);
        paced.frame().await.expect("data").expect("infallible");
        assert_eq!(report.get(), BodyPoll::Piece);
        assert!(paced.frame().await.is_none());
        assert_eq!(report.get(), BodyPoll::Pending);
    }

    #[test]
    fn answer_to_head_has_ended_before_it_begins() {
        let paced = Paced::new(Full::new(Bytes::from_static(b"a")), BodyReport::default(), true);
        assert!(paced.is_end_stream());
    }
}
