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
use super::stream::{Next, Open, Stream, Turn, outlive};
use super::timers::{self, Ticks, Timers};
use super::visit::{Arrival, CLOSE_LINGER, Served};
use crate::http::Asked;
use crate::serve::connection::Shared;
use crate::serve::drain::Begun;

/// How many streams have their turn before other tasks have theirs: some hundred microseconds of
/// writes.
///
/// Among the others are those that publish: the sooner they have their turn, the more events there are
/// for the streams that still wait. With twice as many a single publisher got fewer events through to
/// 1,000 streams; half would look at all the sources of news twice as often for nothing.
const STREAMS_PER_TURN: usize = 64;

/// How many streams are looked at before the first of them has its turn: their memory is fetched at
/// the same time then, and not one after the other. A processor has about as many fetches under way;
/// with half as many each stream waited longer.
const WARMED: usize = 16;

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
    gathered: Gathered,
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
            timers: Timers::new(),
            readiness,
            mail: Mail::default(),
            gathered: Gathered::default(),
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
        let mut turns = 0;
        while turns < STREAMS_PER_TURN {
            let streams = &self.streams;
            let next: SmallVec<[u32; WARMED]> =
                iter::from_fn(|| self.lanes.pop()).take(WARMED).collect();
            if next.is_empty() {
                break;
            }
            // A body that panics here does so again when it is polled, where it is dealt with.
            let waiting = || next.iter().filter_map(|key| streams.get(*key as usize));
            let warm = || waiting().map(Stream::warm).sum::<usize>();
            black_box(catch_unwind(AssertUnwindSafe(warm)).unwrap_or(0));
            next.iter().for_each(|key| self.give_turn(*key, now));
            turns += next.len();
        }
        turns
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
        self.mailbox.collect(&mut mail, cx.waker());
        for key in &mail.woken {
            self.lanes.push(*key);
        }
        for arrival in mail.arrived.drain(..) {
            self.begin(arrival);
        }
        self.mail = mail;
    }

    fn begin(&mut self, arrival: Arrival) {
        let entry = self.streams.vacant_entry();
        let Ok(key) = u32::try_from(entry.key()) else { return };
        let waker = StreamWaker::new(Arc::clone(&self.mailbox), key);
        let watched = self.readiness.watch(&arrival.socket, key);
        entry.insert(Stream::new(arrival, waker));
        self.lanes.assign(key, NEWCOMERS);
        if let Err(error) = watched {
            tracing::warn!(%error, "a stream cannot be watched; it is closed");
            self.close(key);
        }
        // Also if it is closed: it counts as woken, so its name is given back at its turn.
        self.lanes.push(key);
    }

    /// Takes in what the kernel says.
    fn take_happenings(&mut self, cx: &mut Context<'_>) {
        let Self { readiness, streams, lanes, .. } = self;
        let mut gone = Vec::new();
        let taken = readiness.take(cx, |Happening { key, gone: is_gone }| {
            let Some(stream) = streams.get_mut(key as usize) else { return };
            let Some(open) = &stream.open else { return };
            if is_gone && !open.is_lingering() {
                gone.push(key);
            } else if (open.is_lingering() || open.is_blocked()) && stream.waker.mark() {
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
            let now = Instant::now();
            while let Some((key, due)) = self.timers.pop_due(now) {
                let stream = self.streams.get_mut(key as usize);
                let Some(stream) = stream.filter(|stream| stream.due == due) else { continue };
                stream.due = timers::NEVER;
                let lingers = stream.open.as_ref().is_some_and(Open::is_lingering);
                if lingers {
                    self.close(key);
                } else if stream.waker.mark() {
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
        for key in keys(streams) {
            if streams[key as usize].waker.mark() {
                lanes.push(key);
            }
        }
    }

    /// Has a stream send what there is.
    fn give_turn(&mut self, key: u32, now: Instant) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        let write_stall_max = self.shared.socket.write_stall_max;
        let drains = self.shared.drain.has_begun();
        let mut turn = Turn { gathered: &mut self.gathered, now, write_stall_max, drains };
        let (next, Asked { wake_at, lane }) = stream.advance(&mut turn);
        if let Some(lane) = lane {
            self.lanes.assign(key, lane);
        }
        if let Some(at) = wake_at {
            self.timers.set(key, at, &mut stream.due);
        }
        match next {
            Next::Wait => self.ask_for_room(key),
            Next::Again => {
                if stream.waker.mark() {
                    self.lanes.push(key);
                }
            }
            Next::Ended => self.end(key, now),
            Next::Cut => self.part(key, now),
            Next::Over => self.close(key),
        }
        let streams = &self.streams;
        self.timers.sweep(streams.len(), || dues(streams));
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
            self.timers.set(key, now + CLOSE_LINGER, &mut stream.due);
        }
    }

    /// Closes a stream. Its name goes back only once no list of the woken has it.
    fn close(&mut self, key: u32) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        if let Some(open) = stream.open.take() {
            // The app's body is dropped here.
            outlive(|| drop(open));
            self.mailbox.note_end();
        }
        if stream.waker.mark() {
            self.streams.remove(key as usize);
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
