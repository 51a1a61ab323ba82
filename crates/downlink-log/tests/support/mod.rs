//! The tests of the log share this code: a payload, functions that make drafts, and the record of a
//! client.
#![allow(dead_code, reason = "each test binary uses only a part of this module")]

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use downlink_log::{
    Address, Answers, AppendError, Batch, ClientId, Cursor, Draft, EndReason, Entry, Epoch,
    Fingerprint, Log, LogOptions, Next, Payload, Read, Reader, Selection, Submitted, Timestamp,
    Topic, TopicSelector,
};

/// A payload of one byte.
#[derive(Clone, Debug)]
pub(crate) struct Load;

impl Payload for Load {
    type Draft = Self;

    fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
        draft
    }

    fn bytes(&self) -> usize {
        1
    }
}

/// The number of bytes that the log counts for one event with a [`Load`]. The payload has one byte,
/// and the log documents that it counts 96 more bytes for each event.
pub(crate) const EVENT_COST_BYTES: usize = 97;

/// A batch of one event.
pub(crate) const SINGLY: Batch = Batch { events_max: 1, bytes_max: usize::MAX };

pub(crate) const ALL: Batch = Batch { events_max: usize::MAX, bytes_max: usize::MAX };

pub(crate) fn options() -> LogOptions {
    LogOptions::new(Epoch::from_random(7))
}

pub(crate) fn ms(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn topic(name: &str) -> Address {
    Address::Topic(Topic::new(name).expect("a valid topic"))
}

pub(crate) fn client(name: &str) -> ClientId {
    ClientId::new(name).expect("a valid client id")
}

pub(crate) fn selection(selectors: &[&str]) -> Selection {
    let selectors = selectors
        .iter()
        .map(|text| TopicSelector::parse(text).expect("a valid selector"))
        .collect();
    Selection { selectors, client: None }
}

/// Makes a draft, which is an unpublished event, with this payload for these addresses.
pub(crate) fn draft_of<P: Payload<Draft = P>>(to: &[Address], payload: P) -> Draft<P> {
    Draft {
        to: to.iter().cloned().collect(),
        id: None,
        key: None,
        fingerprint: Fingerprint::default(),
        finish: false,
        body: None,
        payload: Some(payload),
    }
}

pub(crate) fn draft(to: &[Address]) -> Draft<Load> {
    draft_of(to, Load)
}

/// Appends one event to topics and returns its offset.
pub(crate) fn append(log: &Log<Load>, now: u64, topics: &[&str]) -> Result<u64, AppendError> {
    let to: Vec<Address> = topics.iter().map(|name| topic(name)).collect();
    append_all(log, now, [draft(&to)]).map(|answers| answers[0].offset.get())
}

pub(crate) fn append_all<P: Payload, const N: usize>(
    log: &Log<P>,
    now: u64,
    drafts: [Draft<P>; N],
) -> Result<Answers, AppendError> {
    match log.append(ms(now), drafts.into_iter().collect())? {
        Submitted::Appended(answers) => Ok(answers),
        Submitted::Queued(commit) => {
            block_on(poll_fn(|task| commit.poll(task.waker(), Answers::clone)))
        }
    }
}

/// A fingerprint: a number that is the same for equal contents.
pub(crate) fn fingerprint(content: &impl std::fmt::Debug) -> Fingerprint {
    Fingerprint::keyed(&[7; 16], format!("{content:?}").as_bytes())
}

/// The numbers of subscribers, topics, events and bytes in the log.
pub(crate) fn sizes<P: Payload>(log: &Log<P>, now: Timestamp) -> (usize, usize, usize, usize) {
    let totals = log.totals(now);
    (totals.subscribers, totals.topics, totals.events, totals.bytes)
}

/// The record of one client across all its connections.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) offsets: Vec<u64>,
    /// Each gap as `(after, until)`. The offsets above `after` and up to `until` are missing.
    pub(crate) gaps: Vec<(u64, u64)>,
    pub(crate) end: Option<EndReason>,
}

impl Seen {
    /// Reads once and records the result. For batches of one event, this calls `read_next`, so the
    /// tests cover `read_next` and `read`. Asserts that events come in order, and that a gap has a
    /// start and an end.
    pub(crate) fn read<P: Payload>(
        &mut self,
        reader: &mut Reader<P>,
        now: u64,
        batch: Batch,
    ) -> Read {
        let mut out: Vec<Entry<P>> = Vec::new();
        let next = if batch.events_max == 1 { reader.read_next(|| ms(now)) } else { Next::Other };
        let read = match next {
            Next::Event(event) => {
                out.push(event);
                Read::Events
            }
            Next::CaughtUp => Read::CaughtUp,
            _ => reader.read(ms(now), batch, &mut out),
        };
        for entry in &out {
            let offset = entry.offset.get();
            assert!(
                self.offsets.last().is_none_or(|last| *last < offset),
                "event {offset} came out of order: {self:?}"
            );
            self.offsets.push(offset);
        }
        match &read {
            Read::Gap(gap) => {
                let after = gap.after.expect("the start of the gap is known").get();
                self.gaps.push((after, gap.until.expect("the end of the gap is known").get()));
            }
            Read::Ended(reason) => self.end = Some(*reason),
            _ => {}
        }
        read
    }

    /// Reads until there is nothing more to read now.
    pub(crate) fn read_all<P: Payload>(&mut self, reader: &mut Reader<P>, now: u64) -> Read {
        self.read_by(reader, now, ALL)
    }

    /// Reads in batches of this size until there is nothing more to read now.
    pub(crate) fn read_by<P: Payload>(
        &mut self,
        reader: &mut Reader<P>,
        now: u64,
        batch: Batch,
    ) -> Read {
        loop {
            let read = self.read(reader, now, batch);
            if !matches!(read, Read::Events | Read::Gap(_)) {
                return read;
            }
        }
    }

    /// Whether each of these offsets was delivered or lies in a reported gap.
    pub(crate) fn covers(&self, mut offsets: impl Iterator<Item = u64>) -> bool {
        offsets.all(|offset| {
            self.offsets.binary_search(&offset).is_ok()
                || self.gaps.iter().any(|&(after, until)| after < offset && offset <= until)
        })
    }
}

/// The maximum duration of a wait. A wait that succeeds takes less than a second.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

struct Signal(Mutex<bool>, Condvar);

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        *self.0.lock().expect("no panic under the lock") = true;
        self.1.notify_all();
    }
}

/// A waker that counts how often it is woken.
#[derive(Default)]
pub(crate) struct Count(pub(crate) AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs a future on this thread. Panics if the future is not ready within [`DEADLINE`].
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let signal = Arc::new(Signal(Mutex::new(false), Condvar::new()));
    let waker = Waker::from(Arc::clone(&signal));
    let mut future = pin!(future);
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = signal.0.lock().expect("no panic under the lock");
        while !*woken {
            let left = deadline
                .checked_duration_since(Instant::now())
                .expect("the future was not woken in time");
            woken = signal.1.wait_timeout(woken, left).expect("no panic under the lock").0;
        }
        *woken = false;
    }
}
