//! The load itself. One thread polls all connections, and no call blocks on a connection.
//!
//! Every kind of load is a [`LoadRun`], which records every publish and every delivery in its
//! [`Books`]. These are the kinds of load:
//!
//! - the main load;
//! - the quiet topic, a separate topic with one reader;
//! - storms, which open and close all connections;
//! - stalled readers, which read nothing during the main load;
//! - the clients of a comeback, which resume after the tool has killed the server.
//!
//! The poll is edge-triggered: it reports a socket only when new bytes arrive. If a read does not
//! fill the buffer, the socket is empty, and no second read is needed. So one system call reads a
//! delivery. A delivery allocates memory only if the subscriptions can resume, because the tool
//! then decodes the events.

use std::{
    io::ErrorKind,
    mem,
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use mio::{Events, Poll, Token, event::Event};

use super::{
    books::{Books, SharedBooks, TopicPosition},
    connection::{Ready, nanos_since},
    plan::Plan,
    progress::ProgressLine,
    publisher::PublisherConnection,
    replay::ReplayPasses,
    server::{ServerProcesses, Usage},
    subscriber::Subscriber,
};

/// The maximum number of connections that are being opened at the same time. The queue of a
/// listening socket usually has at least 128 places, so it does not overflow.
const CONNECTING_MAX: usize = 100;
/// If no further connection comes up (gets its event stream) for this long, the load begins without
/// the missing connections.
const CONNECT_SILENCE_MAX: Duration = Duration::from_secs(10);
/// The maximum duration of a drain, even if deliveries keep arriving. A drain is the wait for the
/// last deliveries at the end of a run.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// The size of one read. A few hundred events fit into it, so one read takes all events that the
/// server sends at once.
const READ_BYTES: usize = 64 << 10;
/// The maximum number of sockets that one poll reports.
const EVENTS: usize = 1_024;
/// The load reads this many connections, which takes some tens of microseconds. Then it lets the
/// load on the quiet topic read and publish.
const BETWEEN_QUIET: usize = 32;
/// The maximum wait of a poll. At least this often, the load checks its progress, and whether
/// deliveries have stopped arriving.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// The timeout of a poll is in whole milliseconds, which is not exact enough for the time of the
/// next event. So a poll ends this much before the next event is due. For the remaining time, the
/// load polls without waiting.
const WAIT_EARLY: Duration = Duration::from_millis(2);
/// The load stops publishing after this many failures in a row.
const FAILURES_MAX: u32 = 1_000;

/// A run in progress.
#[derive(Debug)]
pub(super) struct LoadRun<'a> {
    plan: &'a Plan,
    server: &'a ServerProcesses,
    sockets: Sockets,
    start: Instant,
    pub(super) subscribers: Vec<Subscriber>,
    publishers: Vec<PublisherConnection>,
    pub(super) reading: SharedBooks,
    busy: Duration,
    /// The number of connections that are up or have ended.
    settled: usize,
    pub(super) troubles: Troubles,
    pub(super) progress: ProgressLine,
    is_publishing: bool,
    /// The load on the quiet topic. It reads and publishes after every [`BETWEEN_QUIET`]
    /// connections of this load. If it had to wait for all connections, its latency would include
    /// this wait.
    pub(super) quiet: Option<Box<Self>>,
    pub(super) replay: Option<Box<ReplayPasses<'a>>>,
}

/// The poll, the sockets that it reported last, and the buffer for all reads.
#[derive(Debug)]
struct Sockets {
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
}

/// The problems with connections since they were opened.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    pub(super) ended_early: u64,
    /// The number of failed publishes since the last acknowledged event.
    failures: u32,
    /// The first problem.
    pub(super) problem: Option<String>,
}

/// The measurements at the beginning of a [`Period`], from which its figures are computed.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: Instant,
    busy: Duration,
    used: Option<Usage>,
}

/// A part of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Period {
    pub(super) seconds: f64,
    /// The share of the period in which the load tool was busy.
    pub(super) busy_share: f64,
    /// The processor time that the server used in the period, and its memory at the end.
    pub(super) used: Option<Usage>,
}

impl<'a> LoadRun<'a> {
    pub(super) fn new(plan: &'a Plan, server: &'a ServerProcesses) -> anyhow::Result<Self> {
        Ok(Self {
            plan,
            server,
            sockets: Sockets {
                poll: Poll::new().context("cannot poll")?,
                events: Events::with_capacity(EVENTS),
                buffer: vec![0; READ_BYTES].into_boxed_slice(),
            },
            start: Instant::now(),
            subscribers: Vec::with_capacity(plan.connections),
            publishers: Vec::with_capacity(plan.publishers),
            reading: SharedBooks::new(Books::new(plan.run, plan.topics, plan.pace.clone())?),
            busy: Duration::ZERO,
            settled: 0,
            troubles: Troubles::default(),
            progress: ProgressLine::new(),
            is_publishing: false,
            quiet: None,
            replay: None,
        })
    }

    /// Opens all connections, at most [`CONNECTING_MAX`] at the same time. If a subscription has
    /// ended before, this function resumes it.
    pub(super) fn connect(&mut self) -> anyhow::Result<Period> {
        let begin = self.mark()?;
        for number in self.publishers.len()..self.plan.publishers {
            let token = Token(self.plan.connections + number);
            let publisher =
                PublisherConnection::open(self.plan, token, self.sockets.poll.registry())?;
            self.publishers.push(publisher);
        }
        (self.settled, self.troubles) = (0, Troubles::default());
        let (mut opened, all) = (0, self.plan.connections);
        self.turn_until(CONNECT_SILENCE_MAX, Duration::MAX, |load| {
            while opened < all && opened - load.settled < CONNECTING_MAX {
                load.open(opened).with_context(|| format!("cannot open connection {opened}"))?;
                opened += 1;
            }
            Ok((load.settled < all).then_some(load.settled as u64))
        })?;
        if self.settled < all {
            self.note(format!("{} connections got no answer", all - self.settled));
        }
        if self.reading.books.connections_up() == 0 {
            let problem = self.troubles.problem.take().unwrap_or_default();
            bail!("no connection to {} came up: {problem}", self.plan.subscribe_address);
        }
        self.turn_until(CONNECT_SILENCE_MAX, Duration::MAX, |load| {
            Ok((load.troubles.failures == 0
                && !load.publishers.iter().all(PublisherConnection::is_idle))
            .then_some(0))
        })?;
        if !self.publishers.iter().all(PublisherConnection::is_idle) {
            let problem = self.troubles.problem.take().unwrap_or_default();
            bail!("cannot connect to {} to publish: {problem}", self.plan.publish_address);
        }
        self.since(begin)
    }

    /// Opens a subscription, or resumes it if it exists.
    fn open(&mut self, number: usize) -> anyhow::Result<()> {
        let (plan, registry) = (self.plan, self.sockets.poll.registry());
        match self.subscribers.get_mut(number) {
            Some(subscriber) => subscriber.resume(plan, registry)?,
            None => self.subscribers.push(Subscriber::open(plan, number, registry)?),
        }
        Ok(())
    }

    /// Resumes a subscription during the load.
    pub(super) fn resume(&mut self, number: usize) -> anyhow::Result<()> {
        self.settled -= 1;
        self.open(number)
    }

    fn mark(&self) -> anyhow::Result<Mark> {
        Ok(Mark { used: self.server.usage()?, at: Instant::now(), busy: self.busy })
    }

    fn since(&self, begin: Mark) -> anyhow::Result<Period> {
        let seconds = begin.at.elapsed().as_secs_f64().max(f64::EPSILON);
        let used = self.server.usage()?.zip(begin.used).map(|(now, begin)| now.since(begin));
        Ok(Period { seconds, busy_share: (self.busy - begin.busy).as_secs_f64() / seconds, used })
    }

    /// Runs turns (polls, reads and writes) for this time.
    pub(super) fn wait(&mut self, time: Duration) -> anyhow::Result<()> {
        self.turn_until(time, time, |_| Ok(Some(0))).map(drop)
    }

    /// Runs turns until `progress` returns `None`. Until then, `progress` must return a number that
    /// grows whenever something arrives. Returns false if the number does not grow for
    /// `silence_max`, or if `progress` does not return `None` within `total_max`.
    pub(super) fn turn_until(
        &mut self,
        silence_max: Duration,
        total_max: Duration,
        mut progress: impl FnMut(&mut Self) -> anyhow::Result<Option<u64>>,
    ) -> anyhow::Result<bool> {
        let start = Instant::now();
        let mut last = (start, 0);
        while let Some(now) = progress(self)? {
            if now > last.1 {
                last = (Instant::now(), now);
            }
            let left = silence_max
                .saturating_sub(last.0.elapsed())
                .min(total_max.saturating_sub(start.elapsed()));
            if left.is_zero() {
                return Ok(false);
            }
            self.turn(left.min(WAIT_MAX))?;
        }
        Ok(true)
    }

    /// Publishes during the warm-up and the measured period.
    pub(super) fn publish(&mut self) -> anyhow::Result<Period> {
        let timing = self.plan.timing;
        let from = timing.warmup;
        let to = from + timing.duration;
        let period = from.as_nanos() as u64..to.as_nanos() as u64;
        self.begin(Instant::now(), period.clone());
        if let Some(quiet) = &mut self.quiet {
            quiet.begin(self.start, period);
        }
        let mut begin = None;
        while self.start.elapsed() < to && !self.is_spent() {
            if begin.is_none() && self.start.elapsed() >= from {
                begin = Some(self.mark()?);
            }
            self.publish_due()?;
            self.turn(self.time_to_next(to))?;
            let now_ns = self.now_ns();
            self.reading.books.pace.check_stall(now_ns);
        }
        let measured = self.since(begin.map_or_else(|| self.mark(), Ok)?)?;
        let end_ns = self.now_ns().min(to.as_nanos() as u64);
        self.reading.books.measure(from.as_nanos() as u64..end_ns);
        if let Some(quiet) = &mut self.quiet {
            quiet.is_publishing = false;
        }
        Ok(measured)
    }

    /// Starts the clock of the run, sets the measured period, and begins to publish.
    pub(super) fn begin(&mut self, at: Instant, period: Range<u64>) {
        (self.start, self.is_publishing) = (at, true);
        self.reading.books.measure(period);
    }

    /// True if publishing is over: all events are published and answered, or the server refuses
    /// them.
    fn is_spent(&mut self) -> bool {
        if self.troubles.failures >= FAILURES_MAX {
            let problem = self.troubles.problem.take().unwrap_or_default();
            self.note(format!("publishing failed {FAILURES_MAX} times in a row: {problem}"));
            return true;
        }
        self.is_all_published() && !self.is_waiting()
    }

    fn is_all_published(&self) -> bool {
        self.plan.timing.events.is_some_and(|max| self.reading.books.published >= max)
    }

    /// True if a publisher is waiting for an answer.
    pub(super) fn is_waiting(&self) -> bool {
        self.publishers.iter().any(PublisherConnection::is_waiting)
    }

    /// True if a publisher can send a request.
    pub(super) fn is_idle(&self) -> bool {
        self.publishers.iter().any(PublisherConnection::is_idle)
    }

    /// Publishes the events that are due, on the publishers that are not waiting for an answer.
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
            self.settle_publisher(number)?;
        }
        if self.reading.books.published > before {
            self.busy += started.elapsed();
        }
        Ok(())
    }

    /// Takes the events that are due now, at most one batch. Returns their positions, and the
    /// topics and payloads for their request.
    fn take_due(&mut self) -> (Vec<TopicPosition>, Vec<(usize, String)>) {
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

    /// Counts the answers that a publisher got. If its connection is broken, opens it again.
    fn settle_publisher(&mut self, number: usize) -> anyhow::Result<()> {
        let now_ns = self.now_ns();
        let publisher = &mut self.publishers[number];
        let acknowledged = mem::take(&mut publisher.acknowledged);
        if !acknowledged.is_empty() {
            self.troubles.failures = 0;
            self.reading.books.acknowledge(&acknowledged, now_ns);
        }
        if let Some(failure) = publisher.failure.take() {
            self.troubles.failures += 1;
            for place in failure.places {
                self.reading.books.refuse(place);
            }
            self.troubles.problem.get_or_insert(failure.reason);
        }
        if publisher.is_broken() {
            let token = Token(self.plan.connections + number);
            *publisher = PublisherConnection::open(self.plan, token, self.sockets.poll.registry())?;
        }
        Ok(())
    }

    /// How long the next poll may wait.
    fn time_to_next(&self, end: Duration) -> Duration {
        if self.plan.spin || self.quiet.is_some() || self.replay.is_some() {
            return Duration::ZERO;
        }
        let next = self.reading.books.pace.next_ns().map_or(end, Duration::from_nanos).min(end);
        let left = next.saturating_sub(self.start.elapsed());
        // An event is due, but no publisher is idle: wait for a publisher.
        if left.is_zero() && !self.is_idle() {
            return WAIT_MAX;
        }
        left.saturating_sub(WAIT_EARLY).min(WAIT_MAX)
    }

    /// Waits for the deliveries that have not arrived yet.
    pub(super) fn drain(&mut self) -> anyhow::Result<()> {
        self.turn_until(self.plan.timing.drain, DRAIN_MAX, |load| {
            let is_complete = !load.is_waiting() && load.reading.books.is_complete();
            Ok((!is_complete).then_some(load.reading.books.counts.received))
        })?;
        // If the server sends the last event twice, this turn reads the second copy.
        self.turn(WAIT_MAX)
    }

    /// Polls once, and then reads from and writes to every connection that is ready.
    fn turn(&mut self, wait: Duration) -> anyhow::Result<()> {
        let mut events = mem::replace(&mut self.sockets.events, Events::with_capacity(0));
        let turned = self.poll_once(&mut events, wait);
        self.sockets.events = events;
        turned
    }

    fn poll_once(&mut self, events: &mut Events, wait: Duration) -> anyhow::Result<()> {
        match self.sockets.poll.poll(events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled.context("cannot poll")?,
        }
        let started = Instant::now();
        self.step_quiet()?;
        let has_replayed = self.replay.as_mut().map_or(Ok(false), |replay| replay.step())?;
        for (number, event) in events.iter().enumerate() {
            self.ready(event);
            if number % BETWEEN_QUIET == 0 {
                self.step_quiet()?;
            }
        }
        for number in 0..self.publishers.len() {
            self.settle_publisher(number)?;
        }
        if !events.is_empty() || has_replayed {
            self.busy += started.elapsed();
        }
        self.progress.show(&self.reading.books, self.settled, self.plan.connections);
        Ok(())
    }

    fn step_quiet(&mut self) -> anyhow::Result<()> {
        let Some(quiet) = &mut self.quiet else { return Ok(()) };
        if quiet.is_publishing {
            quiet.publish_due()?;
        }
        quiet.turn(Duration::ZERO)
    }

    /// Reads from and writes to a connection that is ready.
    fn ready(&mut self, event: &Event) {
        let Token(at) = event.token();
        let ready = Ready::from_event(event, &mut self.sockets.buffer, self.start);
        if let Some(subscriber) = self.subscribers.get_mut(at) {
            let was_settled = subscriber.is_settled();
            let ended = subscriber.read_all(ready, &mut self.reading).err();
            self.settled += usize::from(!was_settled && subscriber.is_settled());
            if let Some(reason) = ended {
                self.troubles.ended_early += u64::from(was_settled);
                self.note(reason.to_string());
            }
        } else if let Some(publisher) = self.publishers.get_mut(at - self.plan.connections) {
            publisher.advance(ready);
        }
    }

    /// Stores the problem if no problem has been stored before.
    fn note(&mut self, problem: String) {
        self.troubles.problem.get_or_insert(problem);
    }

    fn now_ns(&self) -> u64 {
        nanos_since(self.start)
    }
}
