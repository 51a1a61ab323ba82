//! One stream of a driver (the task that serves many streams): a body, a socket, and the bytes that
//! the socket has not taken yet.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use socket2::SockRef;
use tokio::time::Instant;

use super::chunk::{AfterChunk, Chunk, UnsentBytes};
use super::handed_over::{Arrival, ConnectionFuture, HandedOver};
use super::mailbox::outlive;
use super::socket::Socket;
use super::timers::{self, Ticks};
use crate::http::BATCH_FRAMES_MAX;
use crate::http::driven::PollRound;
use crate::serve::socket::discard;

/// A stream of a driver. A driver may have a hundred thousand streams, so each value has the size
/// of one cache line of the processor (64 bytes).
#[repr(align(64))]
pub(super) struct Stream {
    /// `None` once the stream has ended. The key of an ended stream stays in use while the stream
    /// still waits in a lane (a queue of the driver).
    pub(super) open: Option<OpenStream>,
    pub(super) waker: Waker,
    /// The time at which the driver polls the stream even without a wake-up: its entry in `Timers`,
    /// or `NEVER`.
    pub(super) due: Ticks,
}

/// A stream that has not ended.
pub(super) struct OpenStream {
    pub(super) socket: Socket,
    pub(super) stream: Pin<Box<dyn HandedOver>>,
    /// `None` if the stream has neither unsent bytes nor input.
    uncommon: Option<Box<UncommonParts>>,
    /// Whether the body has ended. A part of the response may still be unsent.
    has_ended: bool,
    /// Whether the connection serves more requests after the stream.
    keep_alive: bool,
    /// Whether the driver times blocked writes, because the kernel does not.
    times_stalls: bool,
    /// Whether the kernel was asked to report room in the socket.
    pub(super) watches_room: bool,
}

/// The parts that few streams have.
#[derive(Default)]
struct UncommonParts {
    unsent: Option<UnsentBytes>,
    /// Input that came after the request.
    input: Bytes,
}

/// The state of a body after its ready frames were gathered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BodyState {
    /// The body has no more frames ready.
    Nothing,
    /// The batch is full, and the body may have more frames ready.
    More,
    /// The body has ended.
    End,
    /// The body has failed.
    Cut,
}

/// The next step of a driver for a stream that was served in a round.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NextStep {
    /// Waits until the stream is queued again by a wake-up, an event of its socket, its timer, or a
    /// drain.
    Wait,
    /// Serves the stream again in a later round.
    Again,
    /// Gives the connection back to the server, because the body has ended or failed, and all its
    /// bytes are sent.
    GiveBack,
    /// Closes the stream at once.
    Close,
    /// Closes the stream at once, because its peer has read nothing for too long.
    CloseStalled,
}

/// The values that all streams of one round share.
pub(super) struct Round {
    pub(super) polls: PollRound,
    pub(super) now: Instant,
    pub(super) write_stall_max: Duration,
    /// Whether the server drains. During a drain, a response that ends is the last of its
    /// connection.
    pub(super) drains: bool,
    /// The number of bytes that the sockets took in this round.
    pub(super) sent: Cell<usize>,
}

impl Round {
    fn note_sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes);
    }
}

impl Stream {
    pub(super) fn new(arrival: Arrival, waker: Waker) -> Self {
        let Arrival { socket, stream, input, keep_alive, times_stalls } = arrival;
        let open = OpenStream {
            socket,
            stream,
            uncommon: (!input.is_empty()).then(|| Box::new(UncommonParts { unsent: None, input })),
            has_ended: false,
            keep_alive,
            times_stalls,
            watches_room: false,
        };
        Self { open: Some(open), waker, due: timers::NEVER }
    }
}

impl OpenStream {
    /// Sends the unsent bytes of an earlier round. Returns `Err` if the body must not be polled in
    /// this round.
    pub(super) fn flush(&mut self, round: &Round) -> Result<(), NextStep> {
        if let Some(unsent) = self.uncommon.as_mut().and_then(|it| it.unsent.as_mut()) {
            let before = unsent.len();
            let written = unsent.write(&self.socket, round.now);
            round.note_sent(before - unsent.len());
            match written {
                Err(error) => return Err(failed(&error)),
                Ok(false) if self.stalls_at(round).is_some_and(|at| at <= round.now) => {
                    discard((&self.socket.0).into());
                    return Err(NextStep::CloseStalled);
                }
                Ok(false) => return Err(NextStep::Wait),
                Ok(true) => self.forget_unsent(),
            }
        }
        if self.has_ended { Err(NextStep::GiveBack) } else { Ok(()) }
    }

    fn forget_unsent(&mut self) {
        if let Some(uncommon) = &mut self.uncommon {
            uncommon.unsent = None;
        }
        self.uncommon = self.uncommon.take().filter(|uncommon| !uncommon.input.is_empty());
    }

    /// Takes the frames that the body has ready, at most one batch. The body is the app's code. If
    /// it panics, only this response is cut.
    pub(super) fn gather(&mut self, gathered: &mut Chunk, cx: &mut Context<'_>) -> BodyState {
        // Empty frames count too, because a body may yield empty frames without end.
        for _ in 0..BATCH_FRAMES_MAX {
            if gathered.is_full() {
                break;
            }
            let mut stream = self.stream.as_mut();
            match catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll_body(cx))) {
                Ok(Poll::Ready(Some(Ok(frame)))) => gathered.push(frame),
                Ok(Poll::Ready(Some(Err(error)))) => {
                    tracing::debug!(%error, "a stream is cut");
                    return BodyState::Cut;
                }
                Ok(Poll::Ready(None)) => return BodyState::End,
                Ok(Poll::Pending) => return BodyState::Nothing,
                Err(_) => {
                    tracing::error!("a response body panicked; its connection is closed");
                    return BodyState::Cut;
                }
            }
        }
        BodyState::More
    }

    /// Sends the gathered frames.
    pub(super) fn send(
        &mut self,
        gathered: &mut Chunk,
        found: BodyState,
        round: &Round,
    ) -> NextStep {
        self.has_ended = matches!(found, BodyState::End | BodyState::Cut);
        // The bytes written below tell the peer whether it may send another request. So a drain
        // that begins later must not change this value.
        self.keep_alive &= !self.has_ended || (found == BodyState::End && !round.drains);
        let follows = match found {
            BodyState::End if self.keep_alive => AfterChunk::Requests,
            BodyState::End => AfterChunk::Nothing,
            _ => AfterChunk::Chunks,
        };
        let bytes = gathered.bytes_to_send(follows);
        let written = gathered.write(&self.socket, follows, round.now);
        if let Ok(unsent) = &written {
            round.note_sent(bytes - unsent.as_ref().map_or(0, UnsentBytes::len));
        }
        if self.has_ended {
            let stream = self.stream.as_mut();
            outlive(|| stream.drop_body());
        }
        match (written, found) {
            (Err(error), _) => failed(&error),
            (Ok(Some(unsent)), _) => {
                self.uncommon.get_or_insert_default().unsent = Some(unsent);
                NextStep::Wait
            }
            (Ok(None), BodyState::End | BodyState::Cut) => NextStep::GiveBack,
            (Ok(None), BodyState::More) => NextStep::Again,
            (Ok(None), BodyState::Nothing) => NextStep::Wait,
        }
    }

    fn unsent(&self) -> Option<&UnsentBytes> {
        self.uncommon.as_ref()?.unsent.as_ref()
    }

    /// How to end a stream whose peer is gone, according to the error of its socket.
    pub(super) fn end_of_gone(&self) -> NextStep {
        match SockRef::from(&self.socket.0).take_error() {
            Ok(Some(error)) => failed(&error),
            _ => NextStep::Close,
        }
    }

    /// Whether the stream waits for room in its socket.
    pub(super) fn is_blocked(&self) -> bool {
        self.unsent().is_some()
    }

    /// When a blocked write will count as stalled. `None` if no write is blocked, or if the kernel
    /// times the write.
    pub(super) fn stalls_at(&self, round: &Round) -> Option<Instant> {
        let unsent = self.unsent().filter(|_| self.times_stalls)?;
        unsent.progress.checked_add(round.write_stall_max)
    }

    /// The task that continues the connection after the stream. The task serves further requests or
    /// closes the connection.
    pub(super) fn into_connection(mut self) -> io::Result<ConnectionFuture> {
        let requests = self.keep_alive.then(|| self.uncommon.take().unwrap_or_default().input);
        if requests.is_none() {
            // The connection ends right after its last bytes, so that the kernel sends these bytes
            // and the end together.
            self.socket.end()?;
        }
        Ok(self.stream.as_mut().go_on(self.socket, requests))
    }
}

fn failed(error: &io::Error) -> NextStep {
    tracing::debug!(%error, "a stream ended early");
    // The kernel reports a peer that stalls with this error.
    let stalled = error.kind() == io::ErrorKind::TimedOut;
    if stalled { NextStep::CloseStalled } else { NextStep::Close }
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Stream>() == 64, "a stream is one cache line");
