//! How fast a peer takes a response, as far as its body can see.
//!
//! hyper asks a body for more once HTTP/2's flow control has room for what it has. So a body that
//! has given something and is not asked again waits for its peer. A [`Paced`] body gives small
//! pieces, and notes in the [`Turn`] of its connection what it did; the stream that was polled
//! looks there afterwards and times the wait (see `streams`).

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
/// one byte, so this is also what a stream may hold that its peer has made no room for, and the
/// progress that a slow peer must make within `write_stall_max`. Half would double the frames;
/// double gains nothing.
pub(super) const PIECE_BYTES_MAX: usize = 16 * 1024;

/// What a body did when it was asked last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Did {
    /// It was not asked.
    Nothing,
    /// It has nothing to give now, or ever again.
    Wait,
    /// It gave a piece.
    Give,
}

/// What the body of the stream that is being polled did.
///
/// One for each connection, whose streams are polled one at a time by one task; so nothing is
/// ordered by it (Relaxed).
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<AtomicU8>);

impl Turn {
    pub(super) fn note(&self, did: Did) {
        self.0.store(did as u8, Ordering::Relaxed);
    }

    pub(super) fn last(&self) -> Did {
        let last = self.0.load(Ordering::Relaxed);
        let known = [Did::Wait, Did::Give].into_iter().find(|did| *did as u8 == last);
        known.unwrap_or(Did::Nothing)
    }
}

pin_project! {
    /// A body in pieces of at most [`PIECE_BYTES_MAX`].
    pub(super) struct Paced<B> {
        #[pin]
        inner: B,
        // What is left of what the body gave.
        rest: Bytes,
        turn: Turn,
        // The request wants the head alone; hyper leaves that to the service in HTTP/2.
        bodiless: bool,
    }
}

impl<B> Paced<B> {
    pub(super) fn new(inner: B, turn: Turn, bodiless: bool) -> Self {
        Self { inner, rest: Bytes::new(), turn, bodiless }
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
        this.turn.note(Did::Wait);
        if this.rest.is_empty() {
            match ready!(this.inner.poll_frame(cx)).map(|frame| frame.map(|f| f.into_data())) {
                Some(Ok(Ok(bytes))) => *this.rest = bytes,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        this.turn.note(Did::Give);
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES_MAX));
        if this.rest.is_empty() {
            // Not even an empty view: it would hold the whole buffer.
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
            let mut paced = Paced::new(Full::new(bytes.clone()), Turn::default(), false);
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
    async fn turn_says_what_the_body_did() {
        let turn = Turn::default();
        assert_eq!(turn.last(), Did::Nothing);
        let mut paced = Paced::new(Full::new(Bytes::from_static(b"a")), turn.clone(), false);
        paced.frame().await.expect("data").expect("infallible");
        assert_eq!(turn.last(), Did::Give);
        assert!(paced.frame().await.is_none());
        assert_eq!(turn.last(), Did::Wait);
    }

    #[test]
    fn answer_to_head_has_ended_before_it_begins() {
        let paced = Paced::new(Full::new(Bytes::from_static(b"a")), Turn::default(), true);
        assert!(paced.is_end_stream());
    }
}
