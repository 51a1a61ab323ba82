//! One log whose store is a shelf (a store in memory, see `shelf`), and functions that use the log.
//! A wait for a reader fails after a deadline, so that a test never hangs.

use std::{
    future::{Future, poll_fn},
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use downlink_log::{
    Address, Answers, AppendError, Batch, ClockState, Commit, Cursor, Draft, EndReason, Entry,
    Epoch, Fingerprint, Gap, IdempotencyKey, Log, LogOptions, OnUnreadable, Payload, Read, Reader,
    Retention, Start, StoreOptions, Stored, Submitted, Timestamp, store::Durability,
};

use crate::{
    shelf::Shelf,
    support::{block_on, ms, selection, topic},
};

/// A payload: a number, and the id that the publisher may have chosen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Note {
    pub(crate) number: u64,
    pub(crate) publisher_id: Option<Box<str>>,
}

impl Payload for Note {
    type Draft = Self;

    fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
        draft
    }

    fn bytes(&self) -> usize {
        8
    }

    fn publisher_id(&self) -> Option<&str> {
        self.publisher_id.as_deref()
    }
}

/// The log cannot decode the stored payload of an event with this number.
pub(crate) const BROKEN: u64 = u64::MAX;

/// The difference between the log's clock and the wall clock in milliseconds.
pub(crate) const CLOCK_DELTA_MS: i64 = -5_000;

/// Both values of [`Durability`]. With `Commit`, a commit succeeds when it is on the disk. With
/// `Relaxed`, it succeeds as soon as the operating system has it.
pub(crate) const BOTH: [Durability; 2] = [Durability::Commit, Durability::Relaxed];

pub(crate) struct World {
    pub(crate) shelf: Shelf,
    pub(crate) log: Log<Note>,
    /// The ids of the events that the log has reported as unreadable.
    unreadable: Arc<Mutex<Vec<Cursor>>>,
    epochs: u64,
    durability: Durability,
}

impl World {
    /// Opens a log that keeps the newest five events of each topic in memory.
    pub(crate) fn new(durability: Durability) -> Self {
        let (shelf, unreadable) = (Shelf::default(), Arc::default());
        let log = open(&shelf, durability, 1, &unreadable);
        Self { shelf, log, unreadable, epochs: 1, durability }
    }

    /// Closes the log, waits until the log has released the shelf, and opens a new log over the
    /// shelf.
    pub(crate) fn reopen(&mut self) {
        self.log.close();
        block_on(poll_fn(|task| self.log.poll_closed(task.waker())));
        self.begin_again();
    }

    /// Opens a new log over the same shelf without closing the old log, as after a crash.
    pub(crate) fn begin_again(&mut self) {
        self.epochs += 1;
        self.log = open(&self.shelf, self.durability, self.epochs, &self.unreadable);
    }

    pub(crate) fn submit(&self, drafts: Vec<Draft<Note>>) -> Result<Commit, AppendError> {
        match self.log.append(ms(1_000), drafts.into())? {
            Submitted::Queued(commit) => Ok(commit),
            Submitted::Appended(answers) => panic!("appended without a commit: {answers:?}"),
        }
    }

    /// Publishes a batch and waits for its commit.
    pub(crate) fn append(&self, drafts: Vec<Draft<Note>>) -> Result<Answers, AppendError> {
        block_on(committed(&self.submit(drafts)?))
    }

    /// Publishes one event for each number to a topic, one after another. Returns the offsets of
    /// the events.
    pub(crate) fn publish(&self, name: &str, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let append = |number| self.append(vec![note(name, number)]).expect("a commit");
        numbers.into_iter().map(|number| append(number)[0].offset.get()).collect()
    }

    pub(crate) fn open(&self, selectors: &[&str], start: Start) -> Reader<Note> {
        let mut reader =
            self.log.open(ms(1_000), &selection(selectors), &start).expect("room for a reader");
        block_on(poll_fn(|task| reader.poll_begun(task.waker()))).expect("a readable store");
        reader
    }

    /// The offsets of the events that the log has reported as unreadable.
    pub(crate) fn unreadable(&self) -> Vec<u64> {
        let reported = self.unreadable.lock().expect("no panic under the lock");
        reported.iter().map(|id| id.next.get() - 1).collect()
    }
}

fn open(
    shelf: &Shelf,
    durability: Durability,
    epoch: u64,
    unreadable: &Arc<Mutex<Vec<Cursor>>>,
) -> Log<Note> {
    let mut options = LogOptions::new(Epoch::from_random(epoch));
    let small = Retention { events_max: 5, ..Retention::DEFAULT };
    options.retention.default = small;
    options.retention.everyone = small;
    let decode = |stored: Stored| {
        let number = u64::from_le_bytes(stored.payload.try_into().ok()?);
        (number != BROKEN).then_some(Note { number, publisher_id: stored.publisher_id })
    };
    let clock = || ClockState { at: ms(1_000), delta_ms: CLOCK_DELTA_MS };
    let unreadable = Arc::clone(unreadable);
    let report: Box<OnUnreadable> =
        Box::new(move |id| unreadable.lock().expect("no panic under the lock").push(id));
    let on_unreadable = Some(report);
    let retry_every = Duration::from_millis(10);
    let side =
        StoreOptions { durability, on_unreadable, retry_every, ..StoreOptions::new(decode, clock) };
    let store = shelf.open(Epoch::from_random(epoch));
    Log::with_store(options, store, side).expect("a readable shelf")
}

/// A start after the event with this offset in this epoch.
pub(crate) fn id(epoch: u64, offset: u64) -> Start {
    Start::After(format!("{}-{offset}", Epoch::from_random(epoch)).into())
}

pub(crate) fn note(name: &str, number: u64) -> Draft<Note> {
    note_to(&[topic(name)], number, None)
}

pub(crate) fn note_to(to: &[Address], number: u64, id: Option<&str>) -> Draft<Note> {
    let id: Option<Box<str>> = id.map(Into::into);
    Draft {
        to: to.iter().cloned().collect(),
        id: id.clone(),
        key: None,
        fingerprint: Fingerprint::keyed(&[7; 16], &number.to_le_bytes()),
        finish: false,
        body: Some(number.to_le_bytes().to_vec()),
        payload: Some(Note { number, publisher_id: id }),
    }
}

pub(crate) fn with_id(name: &str, number: u64, id: &str) -> Draft<Note> {
    note_to(&[topic(name)], number, Some(id))
}

pub(crate) fn with_key(name: &str, number: u64, key: &str) -> Draft<Note> {
    let key = Some(IdempotencyKey { credential: "".into(), key: key.into() });
    Draft { key, ..note(name, number) }
}

pub(crate) fn last(name: &str, number: u64) -> Draft<Note> {
    Draft { finish: true, ..note(name, number) }
}

/// The outcome of the commit of a batch.
pub(crate) fn outcome(commit: &Commit) -> Result<Answers, AppendError> {
    block_on(committed(commit))
}

fn committed(commit: &Commit) -> impl Future<Output = Result<Answers, AppendError>> {
    poll_fn(move |task| commit.poll(task.waker(), Answers::clone))
}

/// The numbers and gaps that a reader got, and the reason why the log ended the reader.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Got {
    pub(crate) numbers: Vec<u64>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) end: Option<EndReason>,
}

/// Reads until the reader has got `enough` events or the log has ended the reader.
pub(crate) fn read(reader: &mut Reader<Note>, enough: usize) -> Got {
    let mut got = Got::default();
    block_on(poll_fn(|task| {
        let mut registered = false;
        loop {
            if got.numbers.len() >= enough || got.end.is_some() {
                return Poll::Ready(());
            }
            let mut out: Vec<Entry<Note>> = Vec::new();
            let batch = Batch { events_max: 3, bytes_max: usize::MAX };
            let read = reader.read(ms(1_000), batch, &mut out);
            got.numbers.extend(out.iter().map(|entry| entry.payload.number));
            match read {
                Read::Events => {}
                Read::Gap(gap) => got.gaps.push(gap),
                Read::Ended(reason) => got.end = Some(reason),
                _ if registered => return Poll::Pending,
                _ => {
                    reader.register(task.waker());
                    registered = true;
                }
            }
        }
    }));
    got
}

/// Whether a reader has read every event that it can get now.
pub(crate) fn is_caught_up(reader: &mut Reader<Note>) -> bool {
    let mut out = Vec::new();
    block_on(poll_fn(|task| {
        reader.register(task.waker());
        match reader.read(ms(1_000), Batch { events_max: 1, bytes_max: 1 }, &mut out) {
            Read::Fetching => Poll::Pending,
            read => Poll::Ready(read == Read::CaughtUp),
        }
    }))
}
