//! The driver: a task that serves many streams. Other threads put new and woken streams into its
//! mailbox. The driver collects these streams, polls their bodies one after the other, and writes
//! the frames of the bodies.
//!
//! The task never waits for a peer. After a limited number of streams, it yields to other tasks.
//! Without this limit, a publish, a new connection or a signal could wait for ten thousand sends.
//! With the limit, they wait for about a millisecond.

use std::any::Any;
use std::cell::Cell;
use std::future::poll_fn;
use std::hint::black_box;
use std::io;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{JoinSet, unconstrained, yield_now};
use tokio::time::{Instant, Sleep, sleep_until};

use super::chunk::Chunk;
use super::handed_over::{Arrival, ConnectionFuture};
use super::lanes::Lanes;
use super::mailbox::{DirectStreams, Mailbox, MailboxItems, StreamWaker, outlive};
use super::readiness::Readiness;
use super::socket::Socket;
use super::stream::{BodyState, NextStep, Round, Stream};
use super::timers::{self, Timers};
use crate::http::driven::PollRound;
use crate::http::{Moment, Now};
use crate::serve::drain::Drain;
use crate::serve::stats::{DriverBytes, ServeStats};

/// How many streams a driver serves in one round before other tasks run. The writes of a round take
/// a few hundred microseconds. In each round, the driver first prefetches the memory of all streams
/// of the round, then polls all bodies, then sends all frames.
///
/// A send runs so much of the kernel's code that it evicts the code and data of a body's poll from
/// the processor's caches. A poll likewise evicts the code and data of a send. With half as many
/// streams in a round, these evictions would happen twice as often.
///
/// The tasks that run between two rounds include the publishers. The sooner the publishers run, the
/// more events the waiting streams find when they are polled. With twice as many streams in a
/// round, a single publisher delivered fewer events per second to 1,000 streams (the measurement
/// `window` of `cargo xtask bench`).
const STREAMS_PER_ROUND: usize = 64;

/// One value for each stream of a round.
type PerStream<T> = SmallVec<[T; STREAMS_PER_ROUND]>;

/// The lane of new streams. A lane is a queue of streams (see `lanes`). A new stream has not chosen
/// its lane yet.
const NEWCOMERS: u32 = 0;

/// Starts the drivers of a server, one for each thread of the runtime. Starts none if `Io` is not
/// one of tokio's TCP and Unix sockets, because no other connection can be handed over (see
/// `handover`). Starts fewer if the system has too few resources. The drivers run until they are
/// aborted.
///
/// # Panics
///
/// If it is not called in a tokio runtime, or if drivers are started in a runtime without IO.
pub(in crate::serve) fn start<Io: Any>(
    tasks: &mut JoinSet<()>,
    drain: &Arc<Drain>,
    write_stall_max: Duration,
    resumed: &UnboundedSender<ConnectionFuture>,
    stats: &ServeStats,
) -> DirectStreams {
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    let count = if Socket::can_be::<Io>() { workers } else { 0 };
    let mut mailboxes = Vec::with_capacity(count);
    while mailboxes.len() < count {
        let warn = |error: &_| tracing::warn!(%error, "cannot start another driver for event streams; continuing with fewer drivers");
        let Ok(readiness) = Readiness::new().inspect_err(warn) else { break };
        let mailbox = Arc::<Mailbox>::default();
        mailboxes.push(Arc::clone(&mailbox));
        let driver = Driver {
            mailbox,
            drain: Arc::clone(drain),
            write_stall_max,
            resumed: resumed.clone(),
            streams: Slab::new(),
            lanes: Lanes::default(),
            timers: Timers::default(),
            readiness,
            sent: stats.of_driver(),
            mail: MailboxItems::default(),
            gathered: iter::repeat_with(Chunk::default).take(STREAMS_PER_ROUND).collect(),
            sleep: Box::pin(sleep_until(Instant::now())),
            draining: Some(Box::pin(drain.begun())),
        };
        // A driver limits its rounds itself, so it opts out of tokio's budget for each task. With
        // this budget, a body might have to wait because other bodies were polled.
        tasks.spawn(unconstrained(driver.run()));
    }
    DirectStreams(mailboxes.into())
}

/// The state of the task that serves many streams.
struct Driver {
    mailbox: Arc<Mailbox>,
    drain: Arc<Drain>,
    write_stall_max: Duration,
    /// The channel through which the driver gives back the connections whose stream has ended. The
    /// server continues to serve these connections.
    resumed: UnboundedSender<ConnectionFuture>,
    streams: Slab<Stream>,
    lanes: Lanes,
    timers: Timers,
    readiness: Readiness,
    /// The number of bytes that the driver has sent.
    sent: DriverBytes,
    mail: MailboxItems,
    /// The gathered frames of each stream of a round.
    gathered: Box<[Chunk]>,
    /// Completes when the earliest timer is due.
    sleep: Pin<Box<Sleep>>,
    /// `None` once the drain has begun.
    draining: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Driver {
    /// Serves streams until the driver is dropped. Dropping the driver closes the streams.
    async fn run(mut self) {
        // The number of streams that were served since other tasks last ran. If a body wakes itself
        // in each poll, this count makes the driver yield to other tasks.
        let mut turns = 0;
        loop {
            poll_fn(|cx| {
                let news = self.poll_news(cx);
                if news.is_pending() {
                    turns = 0;
                }
                news
            })
            .await;
            turns += self.serve_round();
            if turns >= STREAMS_PER_ROUND {
                turns = 0;
                yield_now().await;
            }
        }
    }

    /// Serves the streams of one round, and returns how many there were.
    fn serve_round(&mut self) -> usize {
        let now = Instant::now();
        let mailbox = Arc::clone(&self.mailbox);
        let mut round = Round {
            polls: PollRound::begin(Now::of(now), mailbox),
            now,
            write_stall_max: self.write_stall_max,
            drains: false,
            sent: Cell::new(0),
        };
        let next = iter::from_fn(|| self.lanes.pop()).take(STREAMS_PER_ROUND);
        let keys: PerStream<u32> = next.collect();
        self.prefetch(&keys, &round);
        let slots = keys.iter().enumerate();
        let found: PerStream<_> =
            slots.map(|(slot, key)| self.poll_body(*key, slot, &round)).collect();
        // The flag is read after the polls, because a drain may begin during the polls and end a
        // body. The response of this body must then be the last response of its connection.
        round.drains = self.drain.has_begun();
        for (slot, (key, found)) in keys.iter().zip(found).enumerate() {
            self.send(*key, slot, &round, found);
        }
        self.sent.add(round.sent.get());
        keys.len()
    }

    /// Loads the memory of these streams into the processor's cache, in parallel. Without the
    /// prefetch, each poll would wait for memory, since few of ten thousand streams are in the
    /// cache. The prefetch saves a third of the processor time that a delivery takes outside the
    /// kernel (the measurement `topics` of `cargo xtask bench`).
    fn prefetch(&self, keys: &[u32], round: &Round) {
        let streams = keys.iter().filter_map(|key| self.streams.get(*key as usize)?.open.as_ref());
        let prefetch = || {
            round.polls.prefetch(|| {
                black_box(streams.filter(|open| open.stream.prefetch()).count());
            });
        };
        // A body that panics here panics again in its poll. The driver then cuts the stream.
        let _ = catch_unwind(AssertUnwindSafe(prefetch));
    }

    /// Gathers the frames that a stream has to send. If the body must not be polled now, returns
    /// the next step as `Err`.
    fn poll_body(&mut self, key: u32, slot: usize, round: &Round) -> Result<BodyState, NextStep> {
        let stream = self.streams.get_mut(key as usize);
        let Some(Stream { open: Some(open), waker, due }) = stream else {
            return Err(NextStep::Close);
        };
        open.flush(round)?;
        let (mut cx, gathered) = (Context::from_waker(waker), &mut self.gathered[slot]);
        let (found, schedule) = round.polls.poll(key, &mut cx, |cx| open.gather(gathered, cx));
        if let Some(lane) = schedule.lane {
            self.lanes.assign(key, lane);
        }
        self.timers.set(key, schedule.wake_at, due);
        Ok(found)
    }

    /// Sends the frames that a stream has gathered.
    fn send(&mut self, key: u32, slot: usize, round: &Round, found: Result<BodyState, NextStep>) {
        let mut next = NextStep::Close;
        if let Some(Stream { open: Some(open), due, .. }) = self.streams.get_mut(key as usize) {
            let gathered = &mut self.gathered[slot];
            next = found.map_or_else(|next| next, |found| open.send(gathered, found, round));
            if let Some(at) = open.stalls_at(round) {
                self.timers.set(key, Moment::at(at), due);
            }
        }
        match next {
            NextStep::Wait => self.watch_for_room(key),
            NextStep::Again => self.lanes.push(key),
            NextStep::GiveBack => self.give_back(key),
            NextStep::Close => self.close(key),
            NextStep::CloseStalled => self.close_stalled(key),
        }
    }

    /// Queues all streams that must be polled because of a wake-up, an event of the kernel, a timer
    /// or the drain. Returns `Pending` if no stream is queued.
    fn poll_news(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.take_mail(cx);
        self.take_events(cx);
        self.take_due(cx);
        self.take_drain(cx);
        if self.lanes.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Queues the streams that other threads have woken, and begins to serve the new streams in the
    /// mailbox.
    fn take_mail(&mut self, cx: &Context<'_>) {
        let mut mail = std::mem::take(&mut self.mail);
        let any = self.mailbox.collect(&mut mail, cx.waker());
        let there = mail.woken.iter().filter(|key| self.streams.contains(**key as usize));
        there.for_each(|key| self.lanes.push(*key));
        mail.arrived.drain(..).for_each(|arrival| self.begin(arrival));
        self.mail = mail;
        if any && self.lanes.is_empty() {
            // All items were stale wake-ups of ended streams. Other tasks run before the driver
            // collects more items.
            cx.waker().wake_by_ref();
        }
    }

    fn begin(&mut self, arrival: Arrival) {
        let entry = self.streams.vacant_entry();
        let Ok(key) = u32::try_from(entry.key()) else { return };
        let mailbox = Arc::clone(&self.mailbox);
        let waker = Waker::from(Arc::new(StreamWaker { mailbox, key }));
        let watched = self.readiness.watch(&arrival.socket, key);
        entry.insert(Stream::new(arrival, waker));
        self.lanes.assign(key, NEWCOMERS);
        self.lanes.push(key);
        self.close_unless(watched, key);
    }

    /// Handles the kernel's events for the sockets. Closes the streams whose peers are gone, and
    /// queues the streams that wait for room in their sockets.
    fn take_events(&mut self, cx: &mut Context<'_>) {
        let Self { readiness, streams, lanes, .. } = self;
        let mut gone = Vec::new();
        let taken = readiness.take(cx, |key, is_gone| {
            let stream = streams.get(key as usize);
            let Some(open) = stream.and_then(|stream| stream.open.as_ref()) else { return };
            if is_gone {
                gone.push((key, open.end_of_gone()));
            } else if open.is_blocked() {
                lanes.push(key);
            }
        });
        if let Err(error) = taken {
            tracing::error!(%error, "the sockets of streams cannot be watched");
        }
        for (key, end) in gone {
            match end {
                NextStep::CloseStalled => self.close_stalled(key),
                _ => self.close(key),
            }
        }
    }

    /// Queues the streams whose timer is due.
    fn take_due(&mut self, cx: &mut Context<'_>) {
        while let Some(next) = self.timers.next() {
            if self.sleep.deadline() != next {
                self.sleep.as_mut().reset(next);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return;
            }
            let now = Now::look();
            while let Some(key) = self.timers.pop_due(now) {
                let Some(stream) = self.streams.get_mut(key as usize) else { continue };
                stream.due = timers::NEVER;
                self.lanes.push(key);
            }
        }
    }

    /// When the drain of the server begins, queues every stream for a poll.
    fn take_drain(&mut self, cx: &mut Context<'_>) {
        if self.draining.as_mut().is_some_and(|drain| drain.as_mut().poll(cx).is_ready()) {
            self.draining = None;
            keys(&self.streams).into_iter().for_each(|key| self.lanes.push(key));
        }
    }

    /// Lets the kernel report when the stream's socket has room, but only while the socket is full.
    fn watch_for_room(&mut self, key: u32) {
        let open = self.streams.get_mut(key as usize).and_then(|stream| stream.open.as_mut());
        let Some(open) = open.filter(|open| open.is_blocked() != open.watches_room) else { return };
        open.watches_room = open.is_blocked();
        let watched = self.readiness.watch_for_room(&open.socket, key, open.watches_room);
        self.close_unless(watched, key);
    }

    fn close_unless(&mut self, watched: io::Result<()>, key: u32) {
        if let Err(error) = watched {
            tracing::warn!(%error, "a stream cannot be watched; it is closed");
            self.close(key);
        }
    }

    /// Gives back the connection of a response that has ended, so that the server continues it. The
    /// connection's own task then serves more requests or closes the connection carefully.
    fn give_back(&mut self, key: u32) {
        let stream = self.streams.get_mut(key as usize);
        let Some(open) = stream.and_then(|stream| stream.open.take()) else { return };
        let forgotten = self.readiness.forget(&open.socket);
        outlive(|| match forgotten.and_then(|()| open.into_connection()) {
            // If there is no receiver, the server has ended, and the connection ends too.
            Ok(connection) => drop(self.resumed.send(connection)),
            Err(error) => tracing::debug!(%error, "a stream ended early"),
        });
        self.mailbox.note_end();
        self.close(key);
    }

    /// Closes a stream whose peer has stalled, and tells the app's body the reason.
    fn close_stalled(&mut self, key: u32) {
        let stream = self.streams.get_mut(key as usize);
        if let Some(open) = stream.and_then(|stream| stream.open.as_mut()) {
            let stream = open.stream.as_mut();
            outlive(|| stream.drop_stalled());
        }
        self.close(key);
    }

    /// Closes a stream. If the stream still waits in a lane, its key stays in use until the driver
    /// takes it from the lane.
    fn close(&mut self, key: u32) {
        let Some(stream) = self.streams.get_mut(key as usize) else { return };
        if let Some(open) = stream.open.take() {
            // This drops the app's body.
            outlive(|| drop(open));
            self.mailbox.note_end();
        }
        self.timers.forget(key, std::mem::replace(&mut stream.due, timers::NEVER));
        if !self.lanes.has(key) {
            self.streams.remove(key as usize);
        }
    }
}

/// Closes the streams one by one, and catches the panic of each body. If a second body panicked
/// while the first panic unwinds, the program would abort.
impl Drop for Driver {
    fn drop(&mut self) {
        for key in keys(&self.streams) {
            self.close(key);
        }
        self.mailbox.close();
    }
}

/// The keys of all streams.
fn keys(streams: &Slab<Stream>) -> Vec<u32> {
    streams.iter().filter_map(|(key, _)| u32::try_from(key).ok()).collect()
}
