//! The load itself: one thread, one poll, all connections without blocking.
//!
//! Readiness is edge-triggered; a read that does not fill the buffer has emptied the socket, so that a
//! delivery costs one system call. Nothing is allocated for a delivery.

use std::{
    hash::{BuildHasher as _, RandomState},
    io::ErrorKind,
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use mio::{Events, Poll, Token, event::Event};

use super::{
    books::{Books, Place, Reading},
    plan::Plan,
    progress::Progress,
    publisher::Publisher,
    quiet::Quiet,
    record::Scanner,
    replay::{Replay, Replays},
    server::{Server, Usage},
    socket::{Ready, nanos_since},
    stalled::{Returns, Stalled},
    subscriber::Subscriber,
};

/// Connections in the making at a time: fewer than the shortest usual backlog of a listener (128).
const CONNECTING_MAX: usize = 100;
/// How long no further connection may come up before the rest is given up on.
const CONNECT_SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long the drain may last, however much still comes.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// Bytes read at a time: a few hundred events, so that a server that gathers them is not cut short.
const READ_BYTES: usize = 64 << 10;
/// Events of one poll.
const EVENTS: usize = 1_024;
/// Connections between two turns of the quiet topic: some tens of microseconds.
const BETWEEN_QUIET: usize = 32;
/// The longest wait: what only time changes (progress, stalls) is looked at this often.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// A wait ends this much early and the rest is polled through: the poll counts in milliseconds.
const WAIT_EARLY: Duration = Duration::from_millis(2);
/// Failures to publish in a row after which the server is not tried any more.
const FAILURES_MAX: u32 = 1_000;

/// A run in progress.
#[derive(Debug)]
pub(super) struct Load<'a> {
    plan: &'a Plan,
    poll: Poll,
    start: Instant,
    subscribers: Vec<Subscriber>,
    publishers: Vec<Publisher>,
    reading: Reading,
    buffer: Box<[u8]>,
    busy: Duration,
    opened: usize,
    settled: usize,
    ended_early: u64,
    failures: u32,
    problem: Option<String>,
    progress: Progress,
    quiet: Option<Box<Quiet<'a>>>,
    replay: Option<Box<Replay<'a>>>,
}

/// What came out of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) books: Books,
    pub(super) connections: u64,
    /// Connections that ended before the run did.
    pub(super) ended_early: u64,
    /// The length of the measured period.
    pub(super) seconds: f64,
    /// How much of it the generator was busy.
    pub(super) busy_share: f64,
    /// What the server used in it.
    pub(super) used: Option<Usage>,
    pub(super) resident_bytes: Option<Resident>,
    pub(super) connects: Connects,
    /// The books of the quiet topic.
    pub(super) quiet: Option<Books>,
    /// What the reader from the beginning got.
    pub(super) replay: Option<Replays>,
    /// How the readers that stalled came back.
    pub(super) returns: Option<Returns>,
    /// The first thing that went wrong.
    pub(super) problem: Option<String>,
}

/// The server's memory before the connections and with them, idle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resident {
    pub(super) before: u64,
    pub(super) connected: u64,
}

/// What it took until all connections were up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connects {
    pub(super) seconds: f64,
    /// The server's processor time.
    pub(super) cpu_s: Option<f64>,
}

/// Connects, publishes and counts as planned.
///
/// # Errors
///
/// If no connection comes up, or the operating system has no room for them.
pub(super) fn run<'a>(plan: &'a Plan, server: Option<&'a Server>) -> anyhow::Result<Outcome> {
    let mut load = Load::new(plan)?;
    let mut events = Events::with_capacity(EVENTS);
    let usage = || server.map(Server::usage).transpose();
    let before = usage()?;
    let connects = load.connect_all(&mut events, server)?;
    load.wait(&mut events, plan.timing.settle)?;
    let resident_bytes = before.zip(usage()?).map(|(before, now): (Usage, Usage)| Resident {
        before: before.resident_bytes,
        connected: now.resident_bytes,
    });
    let connections = load.reading.books.connections_up();
    load.quiet = plan.quiet.as_deref().map(Quiet::open).transpose()?.map(Box::new);
    let sockets = || server.map(Server::descriptors).transpose();
    let sockets_before = sockets()?;
    let stalled = Stalled::open(plan, load.reading.books.run)?;
    load.replay = Replay::new(plan, server)?.map(Box::new);
    let measured = load.publish(&mut events, &usage)?;
    let still_open = sockets()?.zip(sockets_before).map(|(now, before)| now.saturating_sub(before));
    let replay = load.replay.take().map(|replay| replay.end()).transpose()?;
    load.drain(&mut events)?;
    let quiet = load.quiet.take().map(|quiet| quiet.end()).transpose()?;
    load.progress.end();
    let returns = stalled.map(|stalled| stalled.come_back(plan, &load.reading.books, still_open));
    let (quiet, quiet_problem) = quiet.unzip();
    Ok(Outcome {
        connections,
        ended_early: load.ended_early,
        seconds: measured.seconds,
        busy_share: measured.busy.as_secs_f64() / measured.seconds,
        used: measured.used,
        resident_bytes,
        connects,
        quiet,
        replay,
        returns,
        problem: load.problem.or(quiet_problem.flatten()),
        books: load.reading.books,
    })
}

/// The measured period.
#[derive(Debug, Default)]
struct Period {
    seconds: f64,
    busy: Duration,
    used: Option<Usage>,
}

/// A point in it.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    busy: Duration,
    used: Option<Usage>,
}

impl<'a> Load<'a> {
    pub(super) fn new(plan: &'a Plan) -> anyhow::Result<Self> {
        let run = plan.run.unwrap_or_else(random_run);
        Ok(Self {
            plan,
            poll: Poll::new().context("cannot poll")?,
            start: Instant::now(),
            subscribers: Vec::with_capacity(plan.connections),
            publishers: Vec::with_capacity(plan.publishers),
            reading: Reading {
                books: Books::new(run, plan.topics, plan.pacing.start())?,
                scanner: Scanner::new(),
            },
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            busy: Duration::ZERO,
            opened: 0,
            settled: 0,
            ended_early: 0,
            failures: 0,
            problem: None,
            progress: Progress::new(),
            quiet: None,
            replay: None,
        })
    }

    /// Opens all connections, and says what that took.
    pub(super) fn connect_all(
        &mut self,
        events: &mut Events,
        server: Option<&Server>,
    ) -> anyhow::Result<Connects> {
        let usage = || server.map(Server::usage).transpose();
        let (before, started) = (usage()?, Instant::now());
        self.connect(events)?;
        let seconds = started.elapsed().as_secs_f64();
        let used = usage()?.zip(before).map(|(now, before)| now.since(before));
        Ok(Connects { seconds, cpu_s: used.map(|used| used.cpu_s) })
    }

    /// Opens all connections, a few at a time.
    pub(super) fn connect(&mut self, events: &mut Events) -> anyhow::Result<()> {
        for number in 0..self.plan.publishers {
            let token = Token(self.plan.connections + number);
            let publisher = Publisher::open(self.plan, token, self.poll.registry())?;
            self.publishers.push(publisher);
        }
        let mut last = (Instant::now(), 0);
        while self.settled < self.plan.connections {
            while self.opened < self.plan.connections && self.opened - self.settled < CONNECTING_MAX
            {
                let subscriber = Subscriber::open(self.plan, self.opened, self.poll.registry())
                    .with_context(|| format!("cannot open connection {}", self.opened))?;
                self.subscribers.push(subscriber);
                self.opened += 1;
            }
            self.turn(events, WAIT_MAX)?;
            if self.settled > last.1 {
                last = (Instant::now(), self.settled);
            } else if last.0.elapsed() > CONNECT_SILENCE_MAX {
                let left = self.plan.connections - self.settled;
                self.note(format!("{left} connections got no answer"));
                break;
            }
        }
        if self.reading.books.connections_up() == 0 {
            let why = self.problem.take().unwrap_or_default();
            bail!("no connection to {} came up: {why}", self.plan.subscribe_address);
        }
        self.wait_for_publishers(events)
    }

    fn wait_for_publishers(&mut self, events: &mut Events) -> anyhow::Result<()> {
        let since = Instant::now();
        while !self.publishers.iter().all(Publisher::is_idle) {
            if since.elapsed() > CONNECT_SILENCE_MAX || self.failures > 0 {
                let why = self.problem.take().unwrap_or_default();
                bail!("cannot connect to {} to publish: {why}", self.plan.publish_address);
            }
            self.turn(events, WAIT_MAX)?;
        }
        Ok(())
    }

    /// How much of the first seconds the generator was busy.
    pub(super) fn busy_share(&self, seconds: f64) -> f64 {
        self.busy.as_secs_f64() / seconds
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, events: &mut Events, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(events, end.saturating_duration_since(Instant::now()).min(WAIT_MAX))?;
        }
        Ok(())
    }

    /// Publishes through warm-up and measured period.
    fn publish(
        &mut self,
        events: &mut Events,
        usage: &dyn Fn() -> anyhow::Result<Option<Usage>>,
    ) -> anyhow::Result<Period> {
        let timing = self.plan.timing;
        let from = timing.warmup;
        let to = from + timing.measured;
        let period = from.as_nanos() as u64..to.as_nanos() as u64;
        self.begin(Instant::now(), period.clone());
        if let Some(quiet) = &mut self.quiet {
            quiet.start(self.start, period);
        }
        let mark = |load: &Self| -> anyhow::Result<Mark> {
            Ok(Mark { used: usage()?, at: Instant::now(), busy: load.busy })
        };
        let mut first = None;
        while self.start.elapsed() < to && !self.is_spent() {
            if first.is_none() && self.start.elapsed() >= from {
                first = Some(mark(self)?);
            }
            self.publish_due()?;
            let wait = self.time_to_next(to);
            self.turn(events, wait)?;
            let now_ns = self.now_ns();
            self.reading.books.pace.check_stall(now_ns);
        }
        let last = mark(self)?;
        let end_ns = self.now_ns().min(to.as_nanos() as u64);
        self.reading.books.measure(from.as_nanos() as u64..end_ns);
        if let Some(quiet) = &mut self.quiet {
            quiet.stop();
        }
        let first = first.unwrap_or(last);
        Ok(Period {
            seconds: last.at.duration_since(first.at).as_secs_f64().max(f64::EPSILON),
            busy: last.busy - first.busy,
            used: last.used.zip(first.used).map(|(last, first)| last.since(first)),
        })
    }

    /// Time begins to run.
    pub(super) fn begin(&mut self, at: Instant, period: Range<u64>) {
        self.start = at;
        self.reading.books.measure(period);
    }

    /// The books, and the first thing that went wrong.
    pub(super) fn into_books(self) -> (Books, Option<String>) {
        (self.reading.books, self.problem)
    }

    /// Whether nothing more is to be published: all of it is, or the server refuses.
    fn is_spent(&mut self) -> bool {
        if self.failures >= FAILURES_MAX {
            let why = self.problem.take().unwrap_or_default();
            self.note(format!("publishing failed {FAILURES_MAX} times in a row: {why}"));
            return true;
        }
        self.is_all_published() && self.publishers.iter().all(|one| !one.is_waiting())
    }

    fn is_all_published(&self) -> bool {
        self.plan.timing.events_max.is_some_and(|max| self.reading.books.published >= max)
    }

    /// Publishes what is due on the publishers that are idle.
    pub(super) fn publish_due(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let before = self.reading.books.published;
        for number in 0..self.publishers.len() {
            if self.publishers[number].is_idle() {
                let (places, payloads) = self.take_due();
                if places.is_empty() {
                    break;
                }
                let request = self.plan.publish_request(number, &payloads);
                self.publishers[number].send(places, request);
            }
            self.look_after(number)?;
        }
        if self.reading.books.published > before {
            self.busy += started.elapsed();
        }
        Ok(())
    }

    /// The events that are due now, a batch at most, and the topics and payloads of their request.
    fn take_due(&mut self) -> (Vec<Place>, Vec<(usize, String)>) {
        let now_ns = self.now_ns();
        let (mut places, mut payloads) = (Vec::new(), Vec::new());
        while places.len() < self.plan.batch && !self.is_all_published() {
            let Some(due_ns) = self.reading.books.pace.due(now_ns) else { break };
            let (place, record) = self.reading.books.publish(due_ns, now_ns);
            payloads.push((place.topic, record.payload(self.plan.payload_bytes)));
            places.push(place);
        }
        (places, payloads)
    }

    /// Counts a publish that failed, and opens the connection again.
    fn look_after(&mut self, number: usize) -> anyhow::Result<()> {
        let now_ns = self.now_ns();
        let publisher = &mut self.publishers[number];
        let acknowledged = publisher.take_acknowledged();
        if acknowledged > 0 {
            self.failures = 0;
            self.reading.books.acknowledge(acknowledged, now_ns);
        }
        while let Some(failure) = publisher.take_failure() {
            self.failures += 1;
            for place in failure.places {
                self.reading.books.refuse(place);
            }
            if self.problem.is_none() {
                self.problem = Some(failure.why);
            }
        }
        if publisher.is_broken() {
            let token = Token(self.plan.connections + number);
            *publisher = Publisher::open(self.plan, token, self.poll.registry())?;
        }
        Ok(())
    }

    /// How long to wait for readiness.
    fn time_to_next(&self, end: Duration) -> Duration {
        if self.plan.spin || self.quiet.is_some() || self.replay.is_some() {
            return Duration::ZERO;
        }
        let next = self.reading.books.pace.next_ns().map_or(end, Duration::from_nanos).min(end);
        let left = next.saturating_sub(self.start.elapsed());
        // A publisher that is not idle is what a late event waits for, not the time.
        if left.is_zero() && !self.publishers.iter().any(Publisher::is_idle) {
            return WAIT_MAX;
        }
        left.saturating_sub(WAIT_EARLY).min(WAIT_MAX)
    }

    /// Waits for what is still due.
    pub(super) fn drain(&mut self, events: &mut Events) -> anyhow::Result<()> {
        let since = Instant::now();
        let mut last = (since, self.reading.books.counts.received);
        loop {
            let idle = self.publishers.iter().all(|publisher| !publisher.is_waiting());
            let silent = last.0.elapsed() >= self.plan.timing.drain;
            if (idle && self.reading.books.is_complete()) || silent || since.elapsed() > DRAIN_MAX {
                break;
            }
            self.turn(events, WAIT_MAX)?;
            if self.reading.books.counts.received > last.1 {
                last = (Instant::now(), self.reading.books.counts.received);
            }
        }
        // What comes now was not asked for: a duplicate of the last event shows here.
        self.turn(events, WAIT_MAX)
    }

    /// Polls once and lets every ready connection read and write.
    fn turn(&mut self, events: &mut Events, wait: Duration) -> anyhow::Result<()> {
        match self.poll.poll(events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled.context("cannot poll")?,
        }
        let started = Instant::now();
        self.step_quiet()?;
        let has_replayed = self.step_replay()?;
        for (number, event) in events.iter().enumerate() {
            self.ready(event);
            if number % BETWEEN_QUIET == 0 {
                self.step_quiet()?;
            }
        }
        for number in 0..self.publishers.len() {
            self.look_after(number)?;
        }
        if !events.is_empty() || has_replayed {
            self.busy += started.elapsed();
        }
        self.progress.show(&self.reading.books, self.settled, self.plan.connections);
        Ok(())
    }

    /// As [`turn`](Self::turn), without waiting.
    pub(super) fn turn_at_once(&mut self, events: &mut Events) -> anyhow::Result<()> {
        self.turn(events, Duration::ZERO)
    }

    fn step_quiet(&mut self) -> anyhow::Result<()> {
        self.quiet.as_mut().map_or(Ok(()), |quiet| quiet.step())
    }

    /// Lets the replay read a buffer; says whether there is one.
    fn step_replay(&mut self) -> anyhow::Result<bool> {
        self.replay.as_mut().map_or(Ok(false), |replay| replay.step())
    }

    /// One connection is ready.
    fn ready(&mut self, event: &Event) {
        let Token(at) = event.token();
        let (registry, buffer) = (self.poll.registry(), &mut *self.buffer);
        let ready = Ready { registry, event, buffer, start: self.start };
        if let Some(subscriber) = self.subscribers.get_mut(at) {
            let was = subscriber.is_settled();
            let ended = subscriber.ready(ready, &mut self.reading).err();
            self.settled += usize::from(!was && subscriber.is_settled());
            if let Some(why) = ended {
                self.ended_early += u64::from(was);
                self.note(why);
            }
        } else if let Some(publisher) = self.publishers.get_mut(at - self.plan.connections) {
            publisher.ready(ready);
        }
    }

    /// Keeps the first thing that went wrong.
    fn note(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }

    fn now_ns(&self) -> u64 {
        nanos_since(self.start)
    }
}

/// What tells this run's events from those of another.
pub(super) fn random_run() -> u32 {
    RandomState::new().hash_one(std::process::id()) as u32
}
