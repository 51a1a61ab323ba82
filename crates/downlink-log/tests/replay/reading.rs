//! Readers that come at some moment, begin somewhere, read a little at a time, pause and come back;
//! and what they must have got in the end.

use std::{future::poll_fn, task::Poll};

use downlink_log::{
    Address, Batch, Entry, Gap, Next, Offset, Read, Reader, Start, TopicSelector, store::Wanted,
};
use fastrand::Rng;

use crate::{
    program::{LAST, Numbered, Published, World},
    support::{block_on, ms, selection},
};

/// What one reader wanted and got.
#[derive(Debug)]
pub(crate) struct Diary {
    wanted: Vec<&'static str>,
    /// From here on each event is delivered, or told to be gone.
    from: u64,
    /// What was kept below that when the reader opened: it comes as well, or is told to be gone.
    kept: Vec<u64>,
    pages: Batch,
    delivered: Vec<(u64, u64)>,
    gaps: Vec<Gap>,
    /// What the last gap said to follow it, until something does.
    oldest: Option<u64>,
    /// Up to where holes were told on this connection.
    told: u64,
    /// Whether the last event has come.
    is_over: bool,
}

/// What a reader may want: topics by name, by pattern, all of them.
const WANTED: [&[&str]; 6] =
    [&["a/1"], &["b"], &["c", "b"], &["a/*"], &["a/*", "c"], &["a/*", "b", "c"]];

/// Opens at some moment and reads to the last event.
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
        diary.read_once(&mut reader);
    }
    diary
}

fn open(world: &World, wanted: Vec<&'static str>, rng: &mut Rng) -> (Reader<Numbered>, Diary) {
    let start = match rng.u8(0..4) {
        0 => Start::Live,
        1 => Start::Earliest,
        _ => {
            let tail = world.log.tail();
            let after = rng.u64(0..tail.next.get());
            Start::After(format!("{}-{after}", tail.epoch).into())
        }
    };
    let tail = world.log.tail().next.get();
    let reader = begin(world, &wanted, &start);
    // What is kept now was kept when the reader opened.
    let (from, kept) = match start {
        Start::Earliest => (tail, kept(world, &wanted, reader.cursor().next.get(), tail)),
        _ => (reader.cursor().next.get(), Vec::new()),
    };
    let pages = Batch { events_max: rng.usize(1..=6), bytes_max: usize::MAX };
    let (delivered, gaps) = (Vec::new(), Vec::new());
    let diary =
        Diary { wanted, from, kept, pages, delivered, gaps, oldest: None, told: 0, is_over: false };
    (reader, diary)
}

/// Opens, and waits until it is known where the reader begins.
fn begin(world: &World, wanted: &[&str], start: &Start) -> Reader<Numbered> {
    let mut reader = world.log.open(ms(1_000), &selection(wanted), start).expect("an open log");
    block_on(poll_fn(|task| reader.poll_begun(task.waker()))).expect("a readable store");
    reader
}

/// The offsets that the wanted topics keep between two.
fn kept(world: &World, wanted: &[&str], mut from: u64, until: u64) -> Vec<u64> {
    let batch = Batch { events_max: 1_000, bytes_max: usize::MAX };
    let mut kept = Vec::new();
    while from < until {
        let (next, end) = (Offset::new(from), Offset::new(until));
        let page = world.store.page(&as_stored(wanted), next, end, batch).unwrap();
        kept.extend(page.events.iter().map(|event| event.offset.get()));
        from = page.next.get();
    }
    kept
}

fn as_stored(wanted: &[&str]) -> Wanted {
    let patterns = wanted.iter().map(|text| TopicSelector::parse(text).unwrap()).collect();
    Wanted { addresses: vec![Address::Everyone], patterns }
}

impl Diary {
    /// Leaves, and goes on from the last id.
    fn come_back(&mut self, world: &World, reader: &mut Reader<Numbered>) {
        let start = Start::After(reader.cursor().to_string().into());
        *reader = begin(world, &self.wanted, &start);
        (self.oldest, self.told) = (None, 0);
    }

    /// Reads until something comes.
    fn read_once(&mut self, reader: &mut Reader<Numbered>) {
        block_on(poll_fn(|task| {
            if self.look(reader) {
                return Poll::Ready(());
            }
            reader.register(task.waker());
            if self.look(reader) { Poll::Ready(()) } else { Poll::Pending }
        }));
    }

    /// Whether something has come.
    fn look(&mut self, reader: &mut Reader<Numbered>) -> bool {
        let mut out = Vec::new();
        if self.pages.events_max == 1
            && let Next::Event(entry) = reader.read_next(|| ms(1_000))
        {
            self.deliver(&entry);
            return true;
        }
        let from = reader.cursor().next.get();
        match reader.read(ms(1_000), self.pages, &mut out) {
            Read::Events => out.iter().for_each(|entry| self.deliver(entry)),
            Read::Gap(gap) => self.note_gap(gap, from),
            read => {
                assert!(matches!(read, Read::CaughtUp | Read::Fetching), "{read:?}");
                return false;
            }
        }
        assert!(out.len() <= self.pages.events_max, "a page of {}", out.len());
        true
    }

    fn deliver(&mut self, entry: &Entry<Numbered>) {
        let offset = entry.offset.get();
        let last = self.delivered.last().map_or(0, |(last, _)| *last);
        assert!(offset > last, "{offset} after {last}");
        if let Some(oldest) = self.oldest.take() {
            assert_eq!(offset, oldest, "what the gap said to follow");
        }
        self.delivered.push((offset, entry.payload.0));
        self.is_over = entry.payload.0 == LAST;
    }

    fn note_gap(&mut self, gap: Gap, from: u64) {
        let (after, until) = bounds(&gap);
        assert_eq!(after + 1, from, "a hole begins where the reader stands: {gap:?}");
        assert!(until > self.told.max(after), "said once: {gap:?} after {}", self.told);
        self.told = until;
        self.oldest = gap.oldest.map(|oldest| oldest.get());
        self.gaps.push(gap);
    }

    /// Compares with what was published, and says how many gaps there were.
    pub(crate) fn check(&self, published: &Published) -> usize {
        let wants = |to: &[Address]| to.iter().filter(|to| self.wants(to)).count();
        for (offset, number) in &self.delivered {
            let (expected, to) = &published[offset];
            assert!(expected == number && wants(to) > 0, "{offset}: {self:?}");
        }
        let is_delivered =
            |offset| self.delivered.binary_search_by_key(&offset, |(offset, _)| *offset).is_ok();
        let kept = self.kept.iter().filter_map(|offset| published.get_key_value(offset));
        for (&offset, (_, to)) in published.range(self.from..).chain(kept) {
            let told = || self.gaps.iter().map(bounds).any(|(a, b)| a < offset && offset <= b);
            assert!(wants(to) == 0 || is_delivered(offset) || told(), "{offset}: {self:?}");
        }
        for (_, until) in self.gaps.iter().map(bounds) {
            // The floor is exact: the last event below it is gone from a topic of this reader. If it
            // came all the same, it came by another one.
            let wanted = wants(&published[&until].1);
            let exact = wanted > usize::from(is_delivered(until));
            assert!(exact, "nothing was lost at {until}: {self:?}");
        }
        self.gaps.len()
    }

    fn wants(&self, address: &Address) -> bool {
        let Some(topic) = address.topic() else { return true };
        self.wanted.iter().any(|text| TopicSelector::parse(text).unwrap().matches(topic))
    }
}

/// The last offset before a hole, and the last in it.
fn bounds(gap: &Gap) -> (u64, u64) {
    let (Some(after), Some(until)) = (gap.after, gap.until) else { panic!("both ends: {gap:?}") };
    (after.get(), until.get())
}
