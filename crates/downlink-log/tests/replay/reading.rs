//! One reader of the test in which several publishers and readers use one log. The reader is opened
//! at a random time with a random start. It reads small batches, pauses and reconnects. At the end,
//! `check` asserts that each event for the reader was delivered or lies in a gap.

use std::{future::poll_fn, sync::Arc, task::Poll};

use downlink_log::{
    Address, Batch, Entry, EvictionNumber, Gap, Next, Offset, PatternSet, Read, Reader, Start,
    TopicSelector,
    store::{Range, Step, Wanted},
};
use fastrand::Rng;

use crate::{
    program::{LAST, Numbered, Published, World},
    support::{block_on, selection},
};

/// The record of one reader.
#[derive(Debug)]
pub(crate) struct Diary {
    wanted: Vec<&'static str>,
    /// Each event for the reader from this offset on must be delivered or lie in a gap.
    from: u64,
    /// Earlier events that the store kept when the reader opened. They must also be delivered or
    /// lie in a gap.
    kept: Vec<u64>,
    pages: Batch,
    delivered: Vec<(u64, u64)>,
    gaps: Vec<Gap>,
    /// The field `oldest` of the last gap: the offset of the next event that the reader gets.
    /// `None` after this event has arrived.
    oldest: Option<u64>,
    /// The offset at which the newest gap of this connection ended. 0 if there was no gap.
    reported: u64,
    /// Whether the last event of the run was delivered.
    is_over: bool,
}

/// The selections of readers. They name topics or have patterns. The last selection is empty, so
/// its reader gets only events to everyone.
const WANTED: [&[&str]; 12] = [
    &["a/1"],
    &["b"],
    &["c", "b"],
    &["a/*"],
    &["a/*", "c"],
    &["a/*", "b", "c"],
    &["*"],
    &["r/*"],
    &["r/*", "a/{n}"],
    &["r/7"],
    &["a/1", "a/2", "b", "c", "r/1", "r/2", "r/3", "r/4", "r/5", "r/6"],
    &[],
];

/// Opens a reader at a random time, and reads to the last event of the run.
pub(crate) fn follow(world: &World, mut rng: Rng) -> Diary {
    world.pause(rng.usize(0..120));
    let wanted = rng.choice(WANTED).unwrap().to_vec();
    let (mut reader, mut diary) = open(world, wanted, &mut rng);
    world.note_opened();
    while !diary.is_over {
        if rng.u8(0..4) == 0 {
            world.pause(rng.usize(1..25));
        }
        if rng.u8(0..12) == 0 {
            diary.come_back(world, &mut reader);
        }
        diary.read_once(world, &mut reader);
    }
    diary
}

fn open(world: &World, wanted: Vec<&'static str>, rng: &mut Rng) -> (Reader<Numbered>, Diary) {
    let start = match rng.u8(0..6) {
        0 => Start::Live,
        1 | 2 => Start::Earliest,
        3 => Start::Last(rng.usize(0..40)),
        _ => {
            let tail = world.log.tail();
            let after = rng.u64(0..tail.next.get());
            Start::After(format!("{}-{after}", tail.epoch).into())
        }
    };
    let reader = begin(world, &wanted, &start);
    let from = reader.cursor().next.get();
    let (from, kept) = match start {
        Start::Earliest | Start::Last(_) => {
            let tail = world.log.tail().next.get();
            // The reader must also get these events, because the store kept them when the reader
            // was opened.
            (tail, kept(world, &wanted, from, tail))
        }
        _ => (from, Vec::new()),
    };
    let pages = Batch { events_max: rng.usize(1..=6), bytes_max: usize::MAX };
    let (delivered, gaps) = (Vec::new(), Vec::new());
    let (oldest, reported, is_over) = (None, 0, false);
    let diary = Diary { wanted, from, kept, pages, delivered, gaps, oldest, reported, is_over };
    (reader, diary)
}

/// Opens a reader and waits until the log has found the reader's first offset.
fn begin(world: &World, wanted: &[&str], start: &Start) -> Reader<Numbered> {
    let mut reader =
        world.log.open(world.now(), &selection(wanted), start).expect("the log is open");
    block_on(poll_fn(|task| reader.poll_begun(task.waker()))).expect("a readable store");
    reader
}

/// The offsets in `from..until` that the wanted topics keep.
fn kept(world: &World, wanted: &[&str], mut from: u64, until: u64) -> Vec<u64> {
    let patterns = wanted.iter().map(|text| TopicSelector::parse(text).unwrap());
    let patterns = Arc::new(PatternSet::new(patterns));
    let mut replay = world.store.replay(Wanted { addresses: vec![Address::Everyone], patterns });
    let batch = Batch { events_max: 1_000, bytes_max: usize::MAX };
    let mut kept = Vec::new();
    while from < until {
        let range = Range { from: Offset::new(from), until: Offset::new(until) };
        if let Step::Done(page) = replay.page(range, EvictionNumber::NONE, batch).unwrap() {
            kept.extend(page.events.iter().map(|event| event.offset.get()));
            from = page.next.get();
        }
    }
    kept
}

impl Diary {
    /// Opens a new reader that resumes where the old reader stopped.
    fn come_back(&mut self, world: &World, reader: &mut Reader<Numbered>) {
        let start = Start::After(reader.cursor().to_string().into());
        *reader = begin(world, &self.wanted, &start);
        (self.oldest, self.reported) = (None, 0);
    }

    /// Reads until an event or a gap arrives.
    fn read_once(&mut self, world: &World, reader: &mut Reader<Numbered>) {
        block_on(poll_fn(|task| {
            if self.look(world, reader) {
                return Poll::Ready(());
            }
            reader.register(task.waker());
            if self.look(world, reader) { Poll::Ready(()) } else { Poll::Pending }
        }));
    }

    /// Reads once. Returns whether an event or a gap arrived.
    fn look(&mut self, world: &World, reader: &mut Reader<Numbered>) -> bool {
        let mut out = Vec::new();
        if self.pages.events_max == 1
            && let Next::Event(entry) = reader.read_next(|| world.now())
        {
            self.deliver(&entry);
            return true;
        }
        let from = reader.cursor().next.get();
        match reader.read(world.now(), self.pages, &mut out) {
            Read::Events => out.iter().for_each(|entry| self.deliver(entry)),
            Read::Gap(gap) => self.note_gap(gap, from),
            read => {
                assert!(matches!(read, Read::CaughtUp | Read::Fetching), "{read:?}");
                return false;
            }
        }
        assert!(out.len() <= self.pages.events_max, "too many events: {}", out.len());
        true
    }

    fn deliver(&mut self, entry: &Entry<Numbered>) {
        let offset = entry.offset.get();
        let last = self.delivered.last().map_or(0, |(last, _)| *last);
        assert!(offset > last, "event {offset} came after event {last}");
        if let Some(oldest) = self.oldest.take() {
            assert_eq!(
                offset, oldest,
                "the last gap announced a different event as the next event: {self:?}"
            );
        }
        self.delivered.push((offset, entry.payload.0));
        self.is_over = entry.payload.0 == LAST;
    }

    fn note_gap(&mut self, gap: Gap, from: u64) {
        let (after, until) = bounds(&gap);
        // One read may skip events for other readers before it finds a gap, so the gap may begin
        // after the cursor. If the read skipped an event for this reader, `check` would fail.
        assert!(after + 1 >= from, "the gap begins before the reader's cursor {from}: {gap:?}");
        assert!(
            until > self.reported.max(after),
            "{gap:?} is empty or reports nothing new: an earlier gap ended at offset {}",
            self.reported
        );
        self.reported = until;
        self.oldest = gap.oldest.map(|oldest| oldest.get());
        self.gaps.push(gap);
    }

    /// Compares the record with the published events. Returns the number of gaps.
    pub(crate) fn check(&self, published: &Published, is_exact: bool) -> usize {
        let wants = |to: &[Address]| to.iter().filter(|to| self.wants(to)).count();
        for (offset, number) in &self.delivered {
            let (expected, to) = &published[offset];
            assert!(
                expected == number && wants(to) > 0,
                "the reader got a wrong event at offset {offset}: {self:?}"
            );
        }
        let is_delivered =
            |offset| self.delivered.binary_search_by_key(&offset, |(offset, _)| *offset).is_ok();
        let kept = self.kept.iter().filter_map(|offset| published.get_key_value(offset));
        for (&offset, (_, to)) in published.range(self.from..).chain(kept) {
            let reported = || self.gaps.iter().map(bounds).any(|(a, b)| a < offset && offset <= b);
            assert!(
                wants(to) == 0 || is_delivered(offset) || reported(),
                "event {offset} is missing: {self:?}"
            );
        }
        for (_, until) in self.gaps.iter().map(bounds).filter(|_| is_exact) {
            // A gap ends at an event that one of the reader's topics has evicted, so this event
            // must be for the reader. The reader may still have got this event from another topic.
            let wanted = published.get(&until).map_or(0, |(_, to)| wants(to));
            let exact = wanted > usize::from(is_delivered(until));
            assert!(
                exact,
                "event {until} was not evicted (published: {:?}, delivered: {}): {self:?}",
                published.get(&until),
                is_delivered(until)
            );
        }
        self.gaps.len()
    }

    fn wants(&self, address: &Address) -> bool {
        let Some(topic) = address.topic() else { return true };
        self.wanted.iter().any(|text| TopicSelector::parse(text).unwrap().matches(topic))
    }
}

/// The last offset before a gap, and the last offset in the gap.
fn bounds(gap: &Gap) -> (u64, u64) {
    let (Some(after), Some(until)) = (gap.after, gap.until) else {
        panic!("the gap has no start or no end: {gap:?}")
    };
    (after.get(), until.get())
}
