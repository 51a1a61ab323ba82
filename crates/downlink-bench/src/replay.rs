//! A reader that replays the events of an earlier run again and again while the main load runs.
//!
//! Each pass is a new connection, and has to get every event of the earlier run once and in order.
//! When a pass ends, the next pass begins at once, so a replay is in progress during the whole
//! load. During the passes, the tool measures the server's memory at intervals.

use std::{
    fmt, mem,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    books::{Books, SharedBooks},
    connection::{ReadOutcome, Ready},
    pace::Pace,
    plan::{EarlierRun, Plan},
    reader::SubscriptionError,
    server::ServerProcesses,
    subscriber::Subscriber,
};

/// The size of one read of the replay. After each read, the load reads its other connections.
const READ_BYTES: usize = 64 << 10;
/// A pass fails if nothing arrives for this long.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// The interval between two measurements of the server's memory. One measurement takes only some
/// tens of microseconds, so it hardly delays the load.
const SAMPLE: Duration = Duration::from_millis(20);

/// The results of the passes so far, and the current pass.
#[derive(Debug)]
pub(super) struct ReplayPasses<'a> {
    past: &'a EarlierRun,
    plan: &'a Plan,
    server: &'a ServerProcesses,
    pass: Option<Pass>,
    /// The books of the current pass.
    reading: SharedBooks,
    buffer: Box<[u8]>,
    sampled: Instant,
    replays: ReplayResults,
}

/// The results of all passes.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ReplayResults {
    /// The number of passes that have ended.
    passes: u64,
    /// The number of passes that got every event once and in order.
    pub(super) exact: u64,
    /// The number of events that each pass has to get.
    events: u64,
    received: u64,
    lost: u64,
    duplicated: u64,
    foreign: u64,
    /// The events per second of the slowest pass.
    events_per_s: f64,
    resident_before: u64,
    resident_max: u64,
    resident_growth: u64,
    pub(super) flawless: bool,
    pub(super) problem: Option<String>,
}

#[derive(Debug)]
struct Pass {
    subscriber: Subscriber,
    since: Instant,
    last_read: Instant,
}

impl<'a> ReplayPasses<'a> {
    /// Returns `None` if the plan has no replay.
    pub(super) fn new(plan: &'a Plan, server: &'a ServerProcesses) -> anyhow::Result<Option<Self>> {
        let Some(past) = &plan.past else { return Ok(None) };
        let resident = server.resident_bytes()?;
        let mut books = Books::new(past.run, 1, Pace::rate(1.0))?;
        books.published = past.events;
        Ok(Some(Self {
            past,
            plan,
            server,
            pass: None,
            reading: SharedBooks::new(books),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            sampled: Instant::now(),
            replays: ReplayResults {
                events: past.events,
                events_per_s: f64::INFINITY,
                resident_before: resident,
                resident_max: resident,
                ..ReplayResults::default()
            },
        }))
    }

    /// Begins a pass if none is in progress and no earlier pass has failed. Then reads once.
    /// Returns true if anything arrived.
    pub(super) fn step(&mut self) -> anyhow::Result<bool> {
        if self.pass.is_none() && self.replays.problem.is_none() {
            let request = self.past.request.clone();
            let subscriber = Subscriber::replay(self.plan, request).context("cannot replay")?;
            let now = Instant::now();
            self.pass = Some(Pass { subscriber, since: now, last_read: now });
        }
        self.read()
    }

    /// Waits for the end of the current pass, and returns the results.
    pub(super) fn end(mut self) -> anyhow::Result<ReplayResults> {
        while self.pass.is_some() {
            self.read()?;
        }
        let replays = &mut self.replays;
        replays.resident_growth = replays.resident_max - replays.resident_before;
        replays.flawless = replays.passes > 0 && replays.exact == replays.passes;
        if replays.passes == 0 {
            replays.events_per_s = 0.0;
        }
        Ok(self.replays)
    }

    fn read(&mut self) -> anyhow::Result<bool> {
        self.sample()?;
        let Some(pass) = &mut self.pass else { return Ok(false) };
        let mut ready = Ready::unregistered(&mut self.buffer);
        let read = pass.subscriber.read(&mut ready, &mut self.reading);
        let any = read.as_ref().is_ok_and(|read| *read != ReadOutcome::Empty);
        if any {
            pass.last_read = Instant::now();
        }
        let is_complete = pass.subscriber.has_reached(self.past.events);
        let is_silent = pass.last_read.elapsed() >= SILENCE_MAX;
        match read {
            _ if is_complete => self.close(),
            Err(SubscriptionError::Ended) => self.fail("the server ended a replay".to_owned()),
            Err(error) => self.fail(format!("a replay broke: {error}")),
            Ok(_) if is_silent => self.fail("a replay got nothing for 10 s".to_owned()),
            Ok(_) => {}
        }
        Ok(any)
    }

    fn sample(&mut self) -> anyhow::Result<()> {
        if self.sampled.elapsed() >= SAMPLE {
            self.sampled = Instant::now();
            let resident = self.server.resident_bytes()?;
            self.replays.resident_max = self.replays.resident_max.max(resident);
        }
        Ok(())
    }

    fn fail(&mut self, reason: String) {
        self.replays.problem.get_or_insert(reason);
        self.close();
    }

    /// Ends the pass and adds it to the results. A replay has to be in order. So if an event
    /// arrives after a later event, it counts as lost, and its late delivery counts as duplicated.
    fn close(&mut self) {
        let Some(pass) = self.pass.take() else { return };
        let counts = mem::take(&mut self.reading.books.counts);
        let received = counts.received - counts.out_of_order;
        let (lost, duplicated) =
            (self.past.events - received, counts.duplicated + counts.out_of_order);
        let replays = &mut self.replays;
        replays.passes += 1;
        replays.exact += u64::from(lost + duplicated + counts.foreign == 0);
        replays.received += received;
        replays.lost += lost;
        replays.duplicated += duplicated;
        replays.foreign += counts.foreign;
        let per_s = received as f64 / pass.since.elapsed().as_secs_f64().max(f64::EPSILON);
        replays.events_per_s = replays.events_per_s.min(per_s);
    }
}

impl fmt::Display for ReplayResults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passes, exact, events, lost, duplicated, foreign, .. } = self;
        write!(f, "{passes} passes over {events} events, {exact} exact; ")?;
        write!(f, "{lost} lost, {duplicated} repeated or late, {foreign} of another run, ")?;
        let (per_s, growth) = (self.events_per_s, self.resident_growth >> 10);
        write!(f, "{per_s:.0} events/s, server memory grew by {growth} KiB")
    }
}
