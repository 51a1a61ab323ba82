//! One log over one shelf, and readers whose waits have a deadline.

use std::{future::Future, task::Poll};

use downlink_log::{
    Address, Answers, AppendError, Batch, Commit, Draft, EndReason, Entry, Epoch, Fingerprint, Gap,
    IdempotencyKey, Log, LogOptions, Offset, Payload, Read, Reader, Retention, Start, StoreOptions,
    Submitted, Timestamp, WakeCommitted,
    store::{Durability, StoreError},
};

pub(crate) use crate::support::{DEADLINE, block_on};

use crate::{
    shelf::Shelf,
    support::{ms, selection, topic},
};

/// A payload that says its number, and its id on the wire.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Note {
    pub(crate) number: u64,
    pub(crate) given: Option<Box<str>>,
}

impl Payload for Note {
    fn bytes(&self) -> usize {
        8
    }

    fn given_id(&self) -> Option<&str> {
        self.given.as_deref()
    }
}

/// What can not be decoded any more.
pub(crate) const BROKEN: u64 = u64::MAX;

pub(crate) type Stamp = Box<dyn FnOnce(Offset, Timestamp) -> Note + Send>;

pub(crate) struct World {
    pub(crate) shelf: Shelf,
    pub(crate) log: Log<Note>,
    lives: u64,
    options: LogOptions,
    durability: Durability,
}

impl World {
    /// A log whose rings keep five events for a topic.
    pub(crate) fn new(durability: Durability) -> Self {
        let mut options = LogOptions::new(Epoch::from_random(1));
        let small = Retention { events_max: 5, ..Retention::DEFAULT };
        options.retention.default = small;
        options.retention.everyone = small;
        let shelf = Shelf::default();
        let log = open(&shelf, &options, durability, 1);
        Self { shelf, log, lives: 1, options, durability }
    }

    /// A log whose commits leave it to somebody else to wake readers.
    pub(crate) fn waking(wake: Box<WakeCommitted<Note>>) -> Self {
        let mut world = Self::new(Durability::Commit);
        let side = StoreOptions { wake: Some(wake), ..side(world.durability) };
        world.shelf = Shelf::default();
        let store = world.shelf.open(Epoch::from_random(1));
        world.log = Log::with_store(world.options.clone(), store, side).expect("a readable shelf");
        world
    }

    /// Closes the log, waits for its store to be let go of, and opens it again.
    pub(crate) fn reopen(&mut self) {
        self.log.close();
        block_on(std::future::poll_fn(|cx| self.log.poll_closed(cx.waker())));
        self.begin_again();
    }

    /// Goes on with another log, as after a crash.
    pub(crate) fn begin_again(&mut self) {
        self.lives += 1;
        self.log = open(&self.shelf, &self.options, self.durability, self.lives);
    }

    pub(crate) fn submit(&self, drafts: Vec<Draft<Stamp>>) -> Result<Submitted, AppendError> {
        let submitted = self.log.submit(ms(1_000), drafts.into_iter().collect());
        submitted.map(|(submitted, _wakes)| submitted)
    }

    /// Publishes numbers to a topic and waits for their commit.
    pub(crate) fn publish(&self, name: &str, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let notes = numbers.into_iter().map(|number| {
            let submitted = self.submit(vec![note(name, number)]).expect("room");
            durable(&submitted).expect("a commit")[0].offset.get()
        });
        notes.collect()
    }

    pub(crate) fn open(&self, selectors: &[&str], start: Start) -> Reader<Note> {
        let mut reader = self.log.open(ms(1_000), &selection(selectors), &start).expect("room");
        block_on(std::future::poll_fn(|cx| reader.poll_begun(cx.waker())))
            .expect("a readable store");
        reader
    }
}

fn open(shelf: &Shelf, options: &LogOptions, durability: Durability, life: u64) -> Log<Note> {
    Log::with_store(options.clone(), shelf.open(Epoch::from_random(life)), side(durability))
        .expect("a readable shelf")
}

/// How the log uses the shelf.
fn side(durability: Durability) -> StoreOptions<Note> {
    let decode = |stored: downlink_log::Stored| {
        let number = u64::from_le_bytes(stored.payload.try_into().ok()?);
        (number != BROKEN).then_some(Note { number, given: stored.given })
    };
    StoreOptions { durability, ..StoreOptions::new(decode, || ms(1_000)) }
}

pub(crate) fn id(life: u64, offset: u64) -> Start {
    Start::After(format!("{}-{offset}", Epoch::from_random(life)).into())
}

pub(crate) fn note(name: &str, number: u64) -> Draft<Stamp> {
    note_to(&[topic(name)], number, None)
}

pub(crate) fn note_to(to: &[Address], number: u64, id: Option<&str>) -> Draft<Stamp> {
    let given: Option<Box<str>> = id.map(Into::into);
    let id = given.clone();
    Draft {
        to: to.iter().cloned().collect(),
        id,
        key: None,
        fingerprint: Fingerprint::keyed(&[7; 16], &number.to_le_bytes()),
        finish: false,
        body: Some(number.to_le_bytes().to_vec()),
        stamp: Some(Box::new(move |_, _| Note { number, given })),
    }
}

pub(crate) fn with_key(name: &str, number: u64, key: &str) -> Draft<Stamp> {
    let key = Some(IdempotencyKey { credential: "".into(), key: key.into() });
    Draft { key, ..note(name, number) }
}

/// What became of a batch, once that is certain.
pub(crate) fn durable(submitted: &Submitted) -> Result<Answers, StoreError> {
    match &submitted.commit {
        None => Ok(submitted.answers.clone()),
        Some(commit) => block_on(committed(commit)),
    }
}

pub(crate) fn committed(commit: &Commit) -> impl Future<Output = Result<Answers, StoreError>> {
    std::future::poll_fn(move |cx| commit.poll(cx.waker()))
}

/// What a reader got: numbers, and gaps between them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Got {
    pub(crate) numbers: Vec<u64>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) end: Option<EndReason>,
}

/// Reads until there are so many events, or the end.
pub(crate) fn read(reader: &mut Reader<Note>, enough: usize) -> Got {
    let mut got = Got::default();
    block_on(std::future::poll_fn(|cx| {
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
                    reader.register(cx.waker());
                    registered = true;
                }
            }
        }
    }));
    got
}

/// Whether a reader has nothing more now.
pub(crate) fn is_caught_up(reader: &mut Reader<Note>) -> bool {
    let mut out = Vec::new();
    block_on(std::future::poll_fn(|cx| {
        reader.register(cx.waker());
        match reader.read(ms(1_000), Batch { events_max: 1, bytes_max: 1 }, &mut out) {
            Read::Fetching => Poll::Pending,
            read => Poll::Ready(read == Read::CaughtUp),
        }
    }))
}
