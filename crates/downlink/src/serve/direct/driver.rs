//! The task that serves many streams: it looks who was woken, polls them in turn, and writes.
//!
//! Nothing here waits for a peer. After some streams it lets other tasks have their turn, so that a
//! publish, a new connection or a signal waits for a millisecond, not for ten thousand sends.

use std::future::poll_fn;
use std::hint::black_box;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use slab::Slab;
use smallvec::SmallVec;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, Sleep, sleep_until};

use super::chunk::Gathered;
use super::lanes::Lanes;
use super::mailbox::{Mail, Mailbox, StreamWaker};
use super::readiness::{Happening, Readiness};
use super::stream::{Found, Next, Open, Round, Stream, outlive};
use super::timers::{self, Ticks, Timers};
use super::visit::{Arrival, CLOSE_LINGER, Served};
use crate::http::driven::{PollRound, Schedule};
use crate::http::{Moment, Now};
use crate::serve::connection::Shared;
use crate::serve::drain::Begun;

/// How many streams have their turn together, before other tasks have theirs: some hundred microseconds
/// of writes. First all are looked at, so that their memory is fetched at the same time, then all bodies
/// are polled, then all is sent.
///
/// A send is so much of the kernel's code that what a body's poll had in the processor's caches is gone
/// after it, and the other way round: half as many would pay for that twice as often. Among the other
/// tasks are those that publish: the sooner they have their turn, the more events there are for the
/// streams that still wait. With twice as many a single publisher got fewer events through to 1,000
/// streams.
const STREAMS_PER_TURN: usize = 64;

/// One for each stream that has its turn.
type Together<T> = SmallVec<[T; STREAMS_PER_TURN]>;

/// The lane of streams that have not said yet where they belong.
const NEWCOMERS: u32 = 0;

/// See the module.
pub(super) struct Driver {
    mailbox: Arc<Mailbox>,
    shared: Arc<Shared>,
    /// Where connections go whose stream has ended.
    served_on: UnboundedSender<Served>,
    streams: Slab<Stream>,
    lanes: Lanes,
    timers: Timers,
    readiness: Readiness,
    mail: Mail,
    /// For the streams that have their turn together.
    gathered: Box<[Gathered]>,
    /// Completes when the earliest timer is due.
    sleep: Pin<Box<Sleep>>,
    draining: Option<Pin<Box<Begun>>>,
}

impl Driver {
    pub(super) fn new(
        mailbox: Arc<Mailbox>,
        readiness: Readiness,
        shared: Arc<Shared>,
        served_on: UnboundedSender<Served>,
    ) -> Self {
        let draining = Some(Box::pin(shared.drain.begun()));
        Self {
            mailbox,
            shared,
            served_on,
            streams: Slab::new(),
            lanes: Lanes::default(),
            timers: Timers::default(),
            readiness,
            mail: Mail::default(),
            gathered: iter::repeat_with(Gathered::default).take(STREAMS_PER_TURN).collect(),
            sleep: Box::pin(sleep_until(Instant::now())),
            draining,
        }
    }

    /// Serves streams until it is dropped, which closes them.
    pub(super) async fn run(mut self) {
        // Turns since other tasks had theirs. A body that wakes itself each time it is polled is
        // news without end, and no reason to keep them from it.
        let mut turns = 0;
        loop {
            let news = poll_fn(|cx| {
                let news = self.poll_news(cx);
                if news.is_pending() {
                    turns = 0;
                }
                news
            });
            news.await;
            turns += self.give_turns();
            if turns >= STREAMS_PER_TURN {
                turns = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Gives turns to the streams that are next, and says to how many.
    fn give_turns(&mut self) -> usize {
        let now = Instant::now();
        let mailbox = Arc::clone(&self.mailbox);
        let polls = PollRound::begin(Now::of(now), mailbox);
        let write_stall_max = self.shared.socket.write_stall_max;
        let round = Round { now, write_stall_max, drains: self.shared.drain.has_begun() };
        let next = iter::from_fn(|| self.lanes.pop()).take(STREAMS_PER_TURN);
        let keys: Together<u32> = next.collect();
        self.warm(&keys, &polls);
        self.give_turn(&keys, &round, &polls);
        drop(polls);
        keys.len()
    }

    /// Fetches what the turns of these streams will need.
    fn warm(&self, keys: &[u32], polls: &PollRound) {
        let waiting = keys.iter().filter_map(|key| self.streams.get(*key as usize));
        let warm = || {
            black_box(waiting.map(Stream::warm).sum::<usize>());
        };
        // A body that panics here does so again when it is polled, where it is dealt with.
        let _ = catch_unwind(AssertUnwindSafe(|| polls.prefetch(warm)));
    }

    /// Has these streams send what there is.
    fn give_turn(&mut self, keys: &[u32], round: &Round, polls: &PollRound) {
        let looked: Together<_> = keys
            .iter()
            .enumerate()
            .map(|(slot, key)| self.look(*key, slot, round, polls))
            .collect();
        // Not before: of a body that the server's drain ends, the peer is told that it is the last.
        let round = Round { drains: self.shared.drain.has_begun(), ..*round };
        for (slot, (key, looked)) in keys.iter().zip(looked).enumerate() {
            self.send(*key, slot, &round, looked);
        }
    }

    /// Gathers what a stream has to send.
    fn look(
        &mut self,
        key: u32,
        slot: usize,
        round: &Round,
        polls: &PollRound,
    ) -> Result<Found, Next> {
        let stream = self.streams.get_mut(key as usize).ok_or(Next::Over)?;
        let (found, Schedule { wake_at, lane }) =
            stream.look(key, round, polls, &mut self.gathered[slot]);
        if let Some(lane) = lane {
            self.lanes.assign(key, lane);
        }
        self.timers.set(key, wake_at, &mut stream.due);
        found
    }

    /// Sends what a stream has gathered.
    fn send(&mut self, key: u32, slot: usize, round: &Round, looked: Result<Found, Next>) {
        let gathered = &mut self.gathered[slot];
        let Some(stream) = self.streams.get_mut(key as usize) else {
            gathered.clear();
            return;
        };
        let (next, stalled_at) = stream.send(round, gathered, looked);
        if let Some(at) = stalled_at {
            self.timers.set(key, Moment::at(at), &mut stream.due);
        }
        match next {
            Next::Wait => self.ask_for_room(key),
            Next::Again => self.lanes.push(key),
            Next::Ended => self.end(key, round.now),
            Next::Cut => self.part(key, round.now),
            Next::Over => self.close(key),
        }
        let streams = &self.streams;
        self.timers.sweep(streams.len(), || dues(streams));
    }

    /// Takes all the news there is; waits for some if no stream waits for its turn.
    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.take_mail(cx);
        self.take_happenings(cx);
        self.take_due(cx);
        self.take_drain(cx);
        if self.lanes.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Takes in what other threads have left here.
    fn take_mail(&mut self, cx: &Context<'_>) {
        let mut mail = std::mem::take(&mut self.mail);
        // Twice, so that what streams left behind that are over is no reason to be woken for.
        for _ in 0..2 {
            if !self.mailbox.collect(&mut mail, cx.waker()) {
                self.mail = mail;
                return;
            }
            let there = mail.woken.iter().filter(|key| self.streams.contains(**key as usize));
            there.for_each(|key| self.lanes.push(*key));
            mail.arrived.drain(..).for_each(|arrival| self.begin(arrival));
            if !self.lanes.is_empty() {
                break;
            }
        }
        self.mail = mail;
        if self.lanes.is_empty() {
            // Whoever keeps waking them leaves the runtime to others.
            cx.waker().wake_by_ref();
        }
    }

    fn begin(&mut self, arrival: Arrival) {
        let entry = self.streams.vacant_entry();
        let Ok(key) = u32::try_from(entry.key()) else { return };
        let waker = StreamWaker::of(key, Arc::clone(&self.mailbox));
        let watched = self.readiness.watch(&arrival.socket, key);
        entry.insert(Stream::new(arrival, waker));
        self.lanes.assign(key, NEWCOMERS);
        self.lanes.push(key);
        if let Err(error) = watched {
            tracing::warn!(%error, "a stream cannot be watched; it is closed");
            self.close(key);
        }
    }

    /// Takes in what the kernel says.
    fn take_happenings(&mut self, cx: &mut Context<'_>) {
        let Self { readiness, streams, lanes, .. } = self;
        let mut gone = Vec::new();
        let taken = readiness.take(cx, |Happening { key, gone: is_gone }| {
            let stream = streams.get(key as usize);
            let Some(open) = stream.and_then(|stream| stream.open.as_ref()) else { return };
            if is_gone && !open.is_lingering() {
                gone.push(key);
            } else if open.is_lingering() || open.is_blocked() {
                lanes.push(key);
            }
        });
        if let Err(error) = taken {
            tracing::error!(%error, "the sockets of streams cannot be watched");
        }
        for key in gone {
            self.close(key);
        }
    }

    /// Takes in what is due.
    fn take_due(&mut self, cx: &mut Context<'_>) {
        let Some(next) = self.timers.next() else { return };
        if self.sleep.deadline() != next {
            self.sleep.as_mut().reset(next);
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Now::look();
            while let Some((key, due)) = self.timers.pop_due(now) {
                let stream = self.streams.get_mut(key as usize);
                let Some(stream) = stream.filter(|stream| stream.due == due) else { continue };
                stream.due = timers::NEVER;
                let lingers = stream.open.as_ref().is_some_and(Open::is_lingering);
                if lingers {
                    self.close(key);
                } else {
                    self.lanes.push(key);
                }
            }
            let Some(next) = self.timers.next() else { return };
            self.sleep.as_mut().reset(next);
        }
    }

    /// Has every stream polled once more when the server begins to drain.
    fn take_drain(&mut self, cx: &mut Context<'_>) {
        let Some(draining) = &mut self.draining else { return };
        if draining.as_mut().poll(cx).is_pending() {
            return;
        }
        self.draining = None;
        let Self { streams, lanes, .. } = self;
        keys(streams).into_iter().for_each(|key| lanes.push(key));
    }

    /// Has the kernel say when there is room in the socket, for as long as there is none.
    fn ask_for_room(&mut self, key: u32) {
        let open = self.streams.get_mut(key as usize).and_then(|stream| stream.open.as_mut());
        let Some(open) = open.filter(|open| open.is_blocked() != open.asked_for_room) else {
            return;
        };
        open.asked_for_room = open.is_blocked();
        let asked = self.readiness.watch_for_room(open.socket(), key, open.asked_for_room);
        if let Err(error) = asked {
            tracing::warn!(%error, "a stream cannot be watched; it is closed");
            self.close(key);
        }
    }

    /// A response is over: its connection serves on, or is closed with care.
    fn end(&mut self, key: u32, now: Instant) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        let Some(open) = &mut stream.open else { return };
        if open.may_serve_on() && self.readiness.forget(open.socket()).is_ok() {
            if let Some(open) = stream.open.take() {
                // Without a receiver the server is over, and so is the connection.
                let sent = self.served_on.send(open.serve_on(Arc::clone(&self.shared)));
                outlive(|| drop(sent));
                self.mailbox.note_end();
            }
            self.close(key);
        } else {
            self.part(key, now);
        }
    }

    /// Nothing follows on this connection: it is closed once the peer has closed it too.
    fn part(&mut self, key: u32, now: Instant) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        let Some(open) = &mut stream.open else { return };
        if open.linger() == Next::Over {
            self.close(key);
        } else {
            // What the body waited for is no reason to close sooner.
            stream.due = timers::NEVER;
            self.timers.set(key, Moment::at(now + CLOSE_LINGER), &mut stream.due);
        }
    }

    /// Closes a stream. Its name goes back once it does not wait for its turn.
    fn close(&mut self, key: u32) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        if let Some(open) = stream.open.take() {
            // The app's body is dropped here.
            outlive(|| drop(open));
            self.mailbox.note_end();
        }
        if !self.lanes.has(key) {
            self.streams.remove(key as usize);
            self.lanes.leave(key);
        }
    }
}

/// One by one, whatever the bodies do: a second panic while the first unwinds would end the program.
impl Drop for Driver {
    fn drop(&mut self) {
        for key in keys(&self.streams) {
            self.close(key);
        }
        self.mailbox.close();
    }
}

/// The names of all streams.
fn keys(streams: &Slab<Stream>) -> Vec<u32> {
    streams.iter().filter_map(|(key, _)| u32::try_from(key).ok()).collect()
}

/// When each stream is due that is in the timers.
fn dues(streams: &Slab<Stream>) -> impl Iterator<Item = (Ticks, u32)> {
    let dues = streams.iter().filter(|(_, stream)| stream.due != timers::NEVER);
    dues.filter_map(|(key, stream)| Some((stream.due, u32::try_from(key).ok()?)))
}
