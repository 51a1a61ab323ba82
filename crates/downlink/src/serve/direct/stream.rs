//! One stream: a body, a socket, and what of the one the other has not taken yet.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::chunk::{Follows, Gathered, Unsent};
use super::socket::Socket;
use super::timers::{self, Ticks};
use super::visit::{Arrival, CLOSE_DISCARD_MAX, Cut, Served, Visit};
use crate::http::BATCH_FRAMES_MAX;
use crate::http::driven::{PollRound, Schedule};
use crate::serve::connection::Shared;

/// What is discarded at a time.
const DISCARD_BYTES: usize = 4_096;

/// How often, where a response has ended: [`CLOSE_DISCARD_MAX`] in whole buffers, and as often again,
/// as they are not always whole.
const DISCARDS_MAX: u8 = (2 * CLOSE_DISCARD_MAX / DISCARD_BYTES) as u8;
const _: () = assert!(2 * CLOSE_DISCARD_MAX / DISCARD_BYTES <= u8::MAX as usize);

/// A stream of a driver, in one cache line: there may be a hundred thousand.
#[repr(align(64))]
pub(super) struct Stream {
    /// `None` once it is over: what is left is a name that waits for its turn.
    pub(super) open: Option<Open>,
    waker: Waker,
    /// When it is in the timers for.
    pub(super) due: Ticks,
}

/// What an open stream consists of.
pub(super) struct Open {
    socket: Socket,
    visit: Pin<Box<dyn Visit>>,
    /// None where there is nothing of it.
    rest: Option<Box<Rest>>,
    state: State,
    keep_alive: bool,
    times_stalls: bool,
    /// Whether the kernel was asked to say when there is room.
    pub(super) asked_for_room: bool,
}

/// What few streams have.
#[derive(Default)]
struct Rest {
    unsent: Option<Unsent>,
    /// What the peer has sent beyond its request.
    input: Bytes,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Streaming,
    /// All is said; some of it is unsent.
    Ending,
    /// As before, and then the connection is cut.
    Cutting,
    /// All is sent; the peer's input is discarded until it closes, at most so many buffers more.
    Lingering(u8),
}

/// What comes next for a stream that had its turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// It waits for its waker, its peer, or its time.
    Wait,
    /// It has more to send.
    Again,
    /// Its response has ended as it should.
    Ended,
    /// Its response is cut; what came before is on its way.
    Cut,
    /// It is over.
    Over,
}

/// What holds for the streams that have their turn together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) now: Instant,
    /// How long a write may make no progress.
    pub(super) write_stall_max: Duration,
    /// Whether the server drains: nothing follows a response that ends.
    pub(super) drains: bool,
}

impl Stream {
    pub(super) fn new(arrival: Arrival, waker: Waker) -> Self {
        let Arrival { socket, visit, input, keep_alive, times_stalls } = arrival;
        let open = Open {
            socket,
            visit,
            rest: (!input.is_empty()).then(|| Box::new(Rest { unsent: None, input })),
            state: State::Streaming,
            keep_alive,
            times_stalls,
            asked_for_room: false,
        };
        Self { open: Some(open), waker, due: timers::NEVER }
    }

    /// Brings what its turn will need into the processor's cache, as far as it can be seen from here;
    /// gives a number so that this is not found to be of no use.
    pub(super) fn warm(&self) -> usize {
        self.open.as_ref().map_or(0, |open| usize::from(open.visit.warm()))
    }

    /// The first half of its turn: gathers what there is to send, or says what comes next without
    /// that. Says what is to be asked of the timers, too.
    pub(super) fn look(
        &mut self,
        key: u32,
        round: &Round,
        polls: &PollRound,
        gathered: &mut Gathered,
    ) -> (Result<Found, Next>, Schedule) {
        let Some(open) = &mut self.open else { return (Err(Next::Over), Schedule::NONE) };
        open.look(key, round, polls, gathered, &mut Context::from_waker(&self.waker))
    }

    /// The second half: sends what was gathered. Says when that will have taken too long, if the kernel
    /// does not see to it.
    pub(super) fn send(
        &mut self,
        round: &Round,
        gathered: &mut Gathered,
        looked: Result<Found, Next>,
    ) -> (Next, Option<Instant>) {
        let Some(open) = &mut self.open else {
            gathered.clear();
            return (Next::Over, None);
        };
        let next = looked.map_or_else(|next| next, |found| open.send(round, gathered, &found));
        (next, open.stalled_at(round.write_stall_max))
    }
}

impl Open {
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn may_serve_on(&self) -> bool {
        self.keep_alive
    }

    fn look(
        &mut self,
        key: u32,
        round: &Round,
        polls: &PollRound,
        gathered: &mut Gathered,
        cx: &mut Context<'_>,
    ) -> (Result<Found, Next>, Schedule) {
        if let Err(next) = self.go_on(round) {
            return (Err(next), Schedule::NONE);
        }
        let (found, asked) = polls.poll(key, cx, |cx| gather(self.visit.as_mut(), gathered, cx));
        (Ok(found), asked)
    }

    /// Goes on with what was begun in an earlier turn. `Err` if there is nothing to gather.
    fn go_on(&mut self, round: &Round) -> Result<(), Next> {
        if let State::Lingering(left) = self.state {
            return Err(self.discard(left));
        }
        self.flush(round)?;
        match self.state {
            State::Ending => Err(Next::Ended),
            State::Cutting => Err(Next::Cut),
            _ => Ok(()),
        }
    }

    /// Sends what is unsent. `Err` if there still is something, or sending failed.
    fn flush(&mut self, round: &Round) -> Result<(), Next> {
        let rest = self.rest.as_mut();
        let Some(unsent) = rest.and_then(|rest| rest.unsent.as_mut()) else { return Ok(()) };
        match unsent.write(&self.socket, round.now) {
            Ok(true) => {
                self.forget_unsent();
                Ok(())
            }
            Ok(false)
                if self.stalled_at(round.write_stall_max).is_some_and(|at| at <= round.now) =>
            {
                self.socket.discard_on_close();
                Err(Next::Over)
            }
            Ok(false) => Err(Next::Wait),
            Err(error) => Err(failed(&error)),
        }
    }

    fn forget_unsent(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest.unsent = None;
        }
        self.rest = self.rest.take().filter(|rest| !rest.input.is_empty());
    }

    fn unsent(&self) -> Option<&Unsent> {
        self.rest.as_ref()?.unsent.as_ref()
    }

    /// Whether it waits for room in its socket.
    pub(super) fn is_blocked(&self) -> bool {
        self.unsent().is_some()
    }

    /// Sends what was gathered.
    fn send(&mut self, round: &Round, gathered: &mut Gathered, found: &Found) -> Next {
        // What the peer is told now holds, also if the drain begins in the next moment.
        self.keep_alive &= !(round.drains && matches!(found, Found::End));
        let follows = match found {
            Found::End if self.keep_alive => Follows::Requests,
            Found::End => Follows::Nothing,
            _ => Follows::Chunks,
        };
        self.state = match found {
            Found::End => State::Ending,
            Found::Cut => State::Cutting,
            Found::More | Found::Nothing => State::Streaming,
        };
        let written = gathered.write(&self.socket, follows, round.now);
        if self.state != State::Streaming {
            // Its owner learns now that it is over, not when the peer has taken all of it.
            let visit = &mut self.visit;
            outlive(|| visit.as_mut().drop_body());
        }
        match written {
            Err(error) => failed(&error),
            Ok(Some(unsent)) => {
                self.rest.get_or_insert_default().unsent = Some(unsent);
                Next::Wait
            }
            Ok(None) => match found {
                Found::End => Next::Ended,
                Found::Cut => Next::Cut,
                Found::More => Next::Again,
                Found::Nothing => Next::Wait,
            },
        }
    }

    /// When a blocked write will have lasted too long, if the kernel does not see to that.
    fn stalled_at(&self, write_stall_max: Duration) -> Option<Instant> {
        let unsent = self.unsent().filter(|_| self.times_stalls)?;
        unsent.progress.checked_add(write_stall_max)
    }

    /// Tells the peer that all is said, and waits for its end.
    pub(super) fn linger(&mut self) -> Next {
        if let Err(error) = self.socket.end() {
            return failed(&error);
        }
        self.discard(DISCARDS_MAX)
    }

    pub(super) fn is_lingering(&self) -> bool {
        matches!(self.state, State::Lingering(_))
    }

    /// Reads and forgets what the peer has sent.
    fn discard(&mut self, mut left: u8) -> Next {
        let mut buffer = [0; DISCARD_BYTES];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Next::Over,
                Ok(_) if left == 0 => return Next::Over,
                Ok(_) => left -= 1,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return failed(&error),
            }
        }
        self.state = State::Lingering(left);
        Next::Wait
    }

    /// The connection without its stream.
    pub(super) fn serve_on(mut self, shared: Arc<Shared>) -> Served {
        let input = self.rest.take().map_or_else(Bytes::new, |rest| rest.input);
        self.visit.as_mut().serve_on(self.socket, input, shared)
    }
}

/// What a look at a body found after the frames that were ready.
#[derive(Debug)]
pub(super) enum Found {
    /// Nothing more for now.
    Nothing,
    /// There may be more.
    More,
    End,
    Cut,
}

/// Takes what a body has ready, at most a batch. A panic in it, which is the app's, cuts this response
/// and no other.
fn gather(mut visit: Pin<&mut dyn Visit>, gathered: &mut Gathered, cx: &mut Context<'_>) -> Found {
    // Empty frames count too: a body may have nothing else, without end.
    for _ in 0..BATCH_FRAMES_MAX {
        if gathered.is_full() {
            break;
        }
        match catch_unwind(AssertUnwindSafe(|| visit.as_mut().poll_body(cx))) {
            Ok(Poll::Ready(Some(Ok(frame)))) => gathered.push(frame),
            Ok(Poll::Ready(Some(Err(Cut)))) => return Found::Cut,
            Ok(Poll::Ready(None)) => return Found::End,
            Ok(Poll::Pending) => return Found::Nothing,
            Err(_) => {
                tracing::error!("a response body panicked; its connection is closed");
                return Found::Cut;
            }
        }
    }
    Found::More
}

/// Runs what drops the app's code: a panic in it ends no other stream.
pub(super) fn outlive(dropping: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(dropping)).is_err() {
        tracing::error!("a response body panicked when it was dropped");
    }
}

fn failed(error: &io::Error) -> Next {
    tracing::debug!(%error, "a stream ended early");
    Next::Over
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Stream>() == 64, "a stream is one cache line");
