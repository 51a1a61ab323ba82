//! A reader that reads from the store keeps at most one page of events in memory, no matter how
//! many events it still has to read.

use std::{future::poll_fn, task::Poll};

use downlink_log::{
    Batch, ClockState, Cursor, Draft, Epoch, Log, LogOptions, Payload, Read, Reader, Retention,
    Start, StoreOptions, Stored, Timestamp,
};
use downlink_sqlite::SqliteOptions;

use crate::{
    allocation::live_bytes,
    files::{ALL, Folder},
    support::{append_all, block_on, draft_of, ms, selection, topic},
};

/// The size of one page.
const PAGE: Batch = Batch { events_max: 64, bytes_max: 64 << 10 };

const EVENT_BYTES: usize = 1_500;
const EVENTS: usize = 600;
const READERS: usize = 32;

/// The memory that an event in a page takes in addition to the event's data.
const EVENT_COST_BYTES: usize = 96;

/// The maximum memory that one reader takes in addition to its page: requests to the store, answers
/// and lists.
const SLACK_BYTES: usize = 2 << 10;

/// The maximum memory that one reader still takes after it has caught up and has no page any more.
const LEFT_BYTES: usize = 64;

#[derive(Clone, Debug)]
struct Body(Vec<u8>);

impl Payload for Body {
    type Draft = Self;

    fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
        draft
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// Measures the memory when each reader has received one page and has not read the page.
pub(crate) fn one_page_each() {
    let folder = Folder::new();
    let log = log(&folder);
    fill(&log);
    // The first reader is a warm-up. After it, the threads of the log and the store have allocated
    // everything that they keep.
    assert_eq!(read_all(&mut open(&log)), EVENTS);
    let mut readers: Vec<_> = (0..READERS).map(|_| open(&log)).collect();
    let before = live_bytes();
    readers.iter_mut().for_each(fetch);
    let used = usize::try_from(live_bytes() - before).expect("the pages take memory");
    let events = PAGE.bytes_max.div_ceil(EVENT_BYTES);
    // The last event of a page may exceed the page's limit of bytes, so the bound allows one more
    // event.
    let bound = PAGE.bytes_max + EVENT_BYTES + events * EVENT_COST_BYTES + SLACK_BYTES;
    println!("{READERS} readers hold {} bytes each, at most {bound}", used / READERS);
    assert!(
        used <= READERS * bound,
        "each reader holds {} bytes, at most {bound} are allowed",
        used / READERS
    );
    assert!(
        used >= READERS * (PAGE.bytes_max / 2),
        "the readers hold only {used} bytes together, which is less than half a page for each"
    );
    readers.iter_mut().for_each(|reader| assert!(read_all(reader) > EVENTS / 2));
    let left = live_bytes() - before;
    println!(
        "after all pages were read, each reader still holds {} bytes",
        left / READERS as isize
    );
    assert!(
        left <= (READERS * LEFT_BYTES) as isize,
        "the readers still hold {left} bytes of the pages"
    );
}

fn log(folder: &Folder) -> Log<Body> {
    let mut stored = SqliteOptions::default();
    stored.retention.default = ALL;
    let mut options = LogOptions::new(Epoch::from_random(1));
    options.retention.default = Retention { events_max: 4, ..ALL };
    let clock = || ClockState { at: ms(1_000), delta_ms: 0 };
    let side = StoreOptions::new(|stored: Stored| Some(Body(stored.payload)), clock);
    Log::with_store(options, folder.open(stored), side).unwrap()
}

fn fill(log: &Log<Body>) {
    for _ in 0..EVENTS / 100 {
        append_all(log, 1_000, std::array::from_fn::<_, 100, _>(|_| draft())).unwrap();
    }
}

fn draft() -> Draft<Body> {
    let body = vec![7; EVENT_BYTES];
    Draft { body: Some(body.clone()), ..draft_of(&[topic("past")], Body(body)) }
}

fn open(log: &Log<Body>) -> Reader<Body> {
    let mut reader = log.open(ms(1_000), &selection(&["past"]), &Start::Earliest).unwrap();
    block_on(poll_fn(|task| reader.poll_begun(task.waker()))).unwrap();
    reader
}

/// Requests a page and waits until it has arrived.
fn fetch(reader: &mut Reader<Body>) {
    let mut asked = false;
    block_on(poll_fn(|task| {
        if asked {
            return Poll::Ready(());
        }
        asked = true;
        reader.register(task.waker());
        // The first page may have arrived already.
        while reader.read(ms(1_000), PAGE, &mut Vec::new()) != Read::Fetching {}
        Poll::Pending
    }));
}

/// Reads to the last event and returns the number of events.
fn read_all(reader: &mut Reader<Body>) -> usize {
    let mut events = 0;
    block_on(poll_fn(|task| {
        reader.register(task.waker());
        loop {
            let mut out = Vec::new();
            match reader.read(ms(1_000), PAGE, &mut out) {
                Read::Events => events += out.len(),
                Read::Fetching => return Poll::Pending,
                read => {
                    assert_eq!(read, Read::CaughtUp);
                    return Poll::Ready(());
                }
            }
        }
    }));
    events
}
