//! A journal in virtual time, with the faults of real engines.
//!
//! The handles of all nodes share the state. Only [`Engine::advance`] lets time pass, and all
//! random numbers come from one generator with a seed, so a run can be repeated exactly.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use downlink_cluster::{
    Bounds, EntryName, Journal, JournalDurability, JournalError, JournalId, Opened, Position,
    RawEntry, Tail, TailItem,
};
use downlink_log::Timestamp;

/// How often the network and the engine fail. Each probability is a number of thousandths.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates {
    /// The longest usual delay of a message in milliseconds.
    pub(crate) delay_max: u64,
    /// The probability that the acknowledgement of an append is lost.
    pub(crate) lost_acknowledgement: u32,
    /// The probability that an append is lost.
    pub(crate) lost_append: u32,
    /// The probability that an append arrives twice.
    pub(crate) repeated: u32,
    /// The probability that an append returns an error and arrives seconds later.
    pub(crate) late: u32,
    /// The longest delay of a late append in milliseconds.
    pub(crate) late_max: u64,
    /// The probability that a repeated append is refused for good.
    pub(crate) refused_repeat: u32,
    /// The probability that a tail pauses at an entry.
    pub(crate) tail_pause: u32,
}

/// The number of faults in a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Happened {
    pub(crate) lost_acknowledgements: u64,
    pub(crate) reordered: u64,
    pub(crate) repeats: u64,
    pub(crate) late: u64,
    pub(crate) refused_repeats: u64,
}

/// The largest entry in bytes.
const ENTRY_BYTES_MAX: usize = 16_384;

struct Delivery {
    due: u64,
    name: EntryName,
    bytes: Vec<u8>,
    only_if_last: Option<u64>,
    call: Option<u64>,
}

pub(crate) struct Engine {
    pub(crate) now: u64,
    pub(crate) rng: fastrand::Rng,
    pub(crate) rates: Rates,
    pub(crate) happened: Happened,
    pub(crate) id: JournalId,
    /// Whether the engine skips copies of an entry that it still has.
    pub(crate) skips_copies: bool,
    /// The entries that the engine keeps.
    pub(crate) entries: BTreeMap<u64, RawEntry>,
    /// All entries of the current history, also those that a hole or a purge has removed.
    pub(crate) truth: BTreeMap<u64, RawEntry>,
    names: BTreeMap<EntryName, u64>,
    /// The names of all entries that a node has tried to append.
    attempted: BTreeSet<EntryName>,
    pub(crate) last: u64,
    deliveries: Vec<Delivery>,
    /// The answers to the calls. An error contains the last position of the journal.
    answers: BTreeMap<u64, Result<u64, u64>>,
    calls: u64,
    /// The newest answered call of each node.
    newest_answered: [u64; 4],
    /// The number of milliseconds by which the engine's clock is ahead.
    pub(crate) skew: i64,
    /// For each node, the time until which it cannot reach the engine.
    pub(crate) cut_off_until: [u64; 4],
}

impl Engine {
    fn chance(&mut self, per_mille: u32) -> bool {
        self.rng.u32(0..1_000) < per_mille
    }

    fn delay(&mut self) -> u64 {
        let max = self.rates.delay_max;
        // Most messages are fast, and a few are slow.
        if self.rng.u8(0..8) == 0 { self.rng.u64(0..=max * 4) } else { self.rng.u64(0..=max) }
    }

    /// Lets time pass, and appends the entries that have arrived.
    pub(crate) fn advance(&mut self, now: u64) {
        self.now = now;
        loop {
            let due = self.deliveries.iter().enumerate().filter(|(_, d)| d.due <= now);
            let Some((at, _)) = due.min_by_key(|(_, delivery)| delivery.due) else { return };
            let Delivery { name, bytes, only_if_last, call, .. } = self.deliveries.remove(at);
            let answer = match only_if_last.is_none_or(|last| last == self.last) {
                true => Ok(self.append(name, bytes)),
                false => Err(self.last),
            };
            if let Some(call) = call {
                self.answers.insert(call, answer);
            }
        }
    }

    pub(crate) fn append(&mut self, name: EntryName, bytes: Vec<u8>) -> u64 {
        if let Some(position) = self.names.get(&name).filter(|_| self.skips_copies) {
            return *position;
        }
        self.happened.repeats += u64::from(self.names.contains_key(&name));
        self.last += 1;
        let time = Timestamp::from_millis((self.now as i64 + self.skew) as u64);
        let entry = RawEntry { position: Position::new(self.last), time, bytes };
        self.entries.insert(self.last, entry.clone());
        self.truth.insert(self.last, entry);
        self.names.insert(name, self.last);
        self.last
    }

    /// Loses the newest entries. Some of them arrive again, because the clients of the engine send
    /// an entry again if it was not acknowledged.
    pub(crate) fn roll_back(&mut self, count: u64) {
        let last = self.last.saturating_sub(count).max(1);
        let lost: Vec<u64> = self.truth.keys().copied().filter(|at| *at > last).collect();
        for position in lost {
            let Some(entry) = self.truth.remove(&position) else { continue };
            self.entries.remove(&position);
            let name = self.names.iter().find(|(_, at)| **at == position).map(|(name, _)| *name);
            if let Some(name) = name {
                self.names.remove(&name);
                if self.rng.u8(0..3) == 0 {
                    let due = self.now + self.rng.u64(0..1_500);
                    let bytes = entry.bytes;
                    let again = Delivery { due, name, bytes, only_if_last: None, call: None };
                    self.deliveries.push(again);
                }
            }
        }
        self.last = last;
    }

    /// Forgets everything, as if the stream was deleted and made again.
    pub(crate) fn vanish(&mut self) {
        self.entries.clear();
        self.truth.clear();
        self.names.clear();
        self.deliveries.clear();
        self.last = 0;
        self.replace();
    }

    /// Gives the journal another identity.
    pub(crate) fn replace(&mut self) {
        self.id = JournalId(self.id.0 + 1);
    }

    /// Loses entries in the middle of the journal.
    pub(crate) fn make_hole(&mut self, range: Range<u64>) {
        range.for_each(|position| {
            self.entries.remove(&position);
        });
    }

    fn bounds(&self) -> Bounds {
        let first = self.entries.keys().next().copied().unwrap_or(self.last + 1);
        Bounds { first: Position::new(first), last: Position::new(self.last) }
    }

    fn is_cut_off(&self, node: usize) -> bool {
        self.cut_off_until[node] > self.now
    }

    /// Notes an acknowledgement, which may arrive before that of an earlier call.
    fn note_answer(&mut self, node: usize, call: u64) {
        self.happened.reordered += u64::from(call < self.newest_answered[node]);
        self.newest_answered[node] = self.newest_answered[node].max(call);
    }
}

/// The handle of one node.
#[derive(Clone)]
pub(crate) struct SimulatedJournal {
    engine: Arc<Mutex<Engine>>,
    node: usize,
    opened: Option<JournalId>,
}

impl SimulatedJournal {
    pub(crate) fn new(rng: fastrand::Rng, rates: Rates, skips_copies: bool) -> Self {
        let engine = Engine {
            now: 0,
            rng,
            rates,
            happened: Happened::default(),
            id: JournalId(1),
            skips_copies,
            entries: BTreeMap::new(),
            truth: BTreeMap::new(),
            names: BTreeMap::new(),
            attempted: BTreeSet::new(),
            last: 0,
            deliveries: Vec::new(),
            answers: BTreeMap::new(),
            calls: 0,
            newest_answered: [0; 4],
            skew: 0,
            cut_off_until: [0; 4],
        };
        Self { engine: Arc::new(Mutex::new(engine)), node: 0, opened: None }
    }

    /// A handle for another node.
    pub(crate) fn for_node(&self, node: usize) -> Self {
        Self { engine: Arc::clone(&self.engine), node, opened: None }
    }

    pub(crate) fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap()
    }

    /// Answers at `due`, unless the engine cannot be reached then.
    fn at<T>(
        &self,
        due: u64,
        answer: impl FnMut(&mut Engine) -> Result<T, JournalError> + Send + 'static,
    ) -> Due<T> {
        let answer = Box::new(answer);
        Due { engine: Arc::clone(&self.engine), node: self.node, due, answer }
    }
}

type MakeAnswer<T> = dyn FnMut(&mut Engine) -> Result<T, JournalError> + Send;

/// An answer of the engine. The node gets it at the time `due`.
struct Due<T> {
    engine: Arc<Mutex<Engine>>,
    node: usize,
    due: u64,
    answer: Box<MakeAnswer<T>>,
}

impl<T> Future for Due<T> {
    type Output = Result<T, JournalError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut engine = this.engine.lock().unwrap();
        if engine.now < this.due {
            return Poll::Pending;
        }
        if engine.is_cut_off(this.node) {
            return Poll::Ready(Err(JournalError::Unavailable));
        }
        Poll::Ready((this.answer)(&mut engine))
    }
}

impl Journal for SimulatedJournal {
    type Tail = SimulatedTail;

    fn open(&mut self) -> impl Future<Output = Result<Opened, JournalError>> + Send + 'static {
        let mut engine = self.engine.lock().unwrap();
        let due = engine.now + engine.delay();
        self.opened = Some(engine.id);
        let opened = engine.id;
        drop(engine);
        self.at(due, move |engine| {
            if engine.id != opened {
                return Err(JournalError::Replaced);
            }
            Ok(Opened {
                id: engine.id,
                bounds: engine.bounds(),
                entry_bytes_max: ENTRY_BYTES_MAX,
                durability: JournalDurability::Relaxed,
            })
        })
    }

    fn append(
        &mut self,
        name: EntryName,
        bytes: Vec<u8>,
        only_if_last: Option<Position>,
    ) -> impl Future<Output = Result<Position, JournalError>> + Send + 'static {
        let (node, opened) = (self.node, self.opened);
        let mut engine = self.engine.lock().unwrap();
        engine.calls += 1;
        let call = engine.calls;
        let rates = engine.rates.clone();
        let arrives = engine.now + engine.delay();
        // A repeated attempt may reach a server with lower limits, which refuses the entry.
        let is_repeated = !engine.attempted.insert(name);
        let is_refused = is_repeated && engine.chance(rates.refused_repeat);
        engine.happened.refused_repeats += u64::from(is_refused);
        let is_too_large = is_refused || bytes.len() > ENTRY_BYTES_MAX;
        let is_reachable = !is_too_large && !engine.is_cut_off(node) && opened == Some(engine.id);
        let is_late = engine.chance(rates.late);
        let only_if_last = only_if_last.map(Position::get);
        let delivery = |due, call| Delivery { due, name, bytes: bytes.clone(), only_if_last, call };
        if is_reachable && is_late {
            engine.happened.late += 1;
            let due = arrives + engine.rng.u64(0..=rates.late_max);
            engine.deliveries.push(delivery(due, None));
        } else if is_reachable && !engine.chance(rates.lost_append) {
            engine.deliveries.push(delivery(arrives, Some(call)));
        }
        if engine.is_cut_off(node) && opened == Some(engine.id) && engine.rng.bool() {
            // The client of the engine keeps the entry, and sends it when it is connected again.
            let due = engine.cut_off_until[node] + engine.delay();
            engine.happened.late += 1;
            engine.deliveries.push(delivery(due, None));
        }
        if is_reachable && engine.chance(rates.repeated) {
            let due = arrives + engine.rng.u64(0..=rates.late_max);
            engine.deliveries.push(delivery(due, None));
        }
        let is_lost = engine.chance(rates.lost_acknowledgement);
        engine.happened.lost_acknowledgements += u64::from(is_lost);
        let due = arrives + engine.delay();
        let gives_up = engine.now + 2_000;
        let answers = !is_lost && is_reachable && !is_late;
        drop(engine);
        self.at(if answers { due } else { gives_up }, move |engine| {
            if opened != Some(engine.id) {
                return Err(JournalError::Replaced);
            }
            if is_too_large {
                return Err(JournalError::Refused);
            }
            // An entry without any delay arrives now.
            engine.advance(engine.now);
            match engine.answers.get(&call).copied().filter(|_| answers) {
                Some(Ok(position)) => {
                    engine.note_answer(node, call);
                    Ok(Position::new(position))
                }
                Some(Err(last)) => Err(JournalError::NotLast { last: Position::new(last) }),
                None => Err(JournalError::Unavailable),
            }
        })
    }

    fn read(
        &mut self,
        range: Range<Position>,
    ) -> impl Future<Output = Result<(Vec<RawEntry>, Bounds), JournalError>> + Send + 'static {
        let opened = self.opened;
        let mut engine = self.engine.lock().unwrap();
        let due = engine.now + engine.delay();
        drop(engine);
        self.at(due, move |engine| {
            if opened != Some(engine.id) {
                return Err(JournalError::Replaced);
            }
            let entries = engine.entries.range(range.start.get()..range.end.get());
            Ok((entries.map(|(_, entry)| entry.clone()).collect(), engine.bounds()))
        })
    }

    fn bounds(&mut self) -> impl Future<Output = Result<Bounds, JournalError>> + Send + 'static {
        let opened = self.opened;
        let mut engine = self.engine.lock().unwrap();
        let due = engine.now + engine.delay();
        drop(engine);
        self.at(due, move |engine| match opened == Some(engine.id) {
            true => Ok(engine.bounds()),
            false => Err(JournalError::Replaced),
        })
    }

    fn tail(&mut self, from: Position) -> SimulatedTail {
        let (engine, node) = (Arc::clone(&self.engine), self.node);
        let (opened, next) = (self.opened, from.get());
        SimulatedTail { engine, node, opened, next, ready_at: None, caught_up_at: None }
    }
}

/// This tail behaves like a consumer of a broker: if the journal is rolled back, the tail waits for
/// a position after the new end, and reports no error.
pub(crate) struct SimulatedTail {
    engine: Arc<Mutex<Engine>>,
    node: usize,
    opened: Option<JournalId>,
    next: u64,
    ready_at: Option<u64>,
    /// The last position at which the tail has said that it has yielded everything.
    caught_up_at: Option<u64>,
}

impl Tail for SimulatedTail {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Result<TailItem, JournalError>> {
        let mut engine = self.engine.lock().unwrap();
        if engine.is_cut_off(self.node) {
            return Poll::Pending;
        }
        if self.opened != Some(engine.id) {
            return Poll::Ready(Err(JournalError::Replaced));
        }
        let Some((position, entry)) = engine.entries.range(self.next..).next() else {
            let is_new = self.caught_up_at != Some(engine.last);
            if is_new && engine.last + 1 == self.next {
                self.caught_up_at = Some(engine.last);
                return Poll::Ready(Ok(TailItem::CaughtUp(Position::new(engine.last))));
            }
            return Poll::Pending;
        };
        let (position, entry) = (*position, entry.clone());
        if position > self.next {
            let hole = Position::new(self.next)..Position::new(position);
            self.next = position;
            return Poll::Ready(Ok(TailItem::Hole(hole)));
        }
        let now = engine.now;
        let ready_at = *self.ready_at.get_or_insert_with(|| {
            let pauses = engine.rates.tail_pause;
            // An entry that is already there is read at once, except in a pause.
            let is_old = entry.time.as_millis() + 1_000 < now;
            let pause = if engine.chance(pauses) { engine.rng.u64(0..3_000) } else { 0 };
            now + pause + if is_old { 0 } else { engine.delay() / 2 }
        });
        if now < ready_at {
            return Poll::Pending;
        }
        self.next += 1;
        self.ready_at = None;
        Poll::Ready(Ok(TailItem::Entry(entry)))
    }
}
