//! What a reader that is behind has in memory: one page, however far it is behind.

use std::{future::poll_fn, task::Poll};

use downlink_log::{
    Address, Batch, Draft, Epoch, Fingerprint, Log, LogOptions, Payload, Read, Reader, Retention,
    RetentionRules, Start, StoreOptions,
};

use crate::{
    allocation::live_bytes,
    files::{self, Folder},
    support::{Stamp, block_on, ms, selection, topic},
};

/// What a response asks for at a time.
const PAGE: Batch = Batch { events_max: 64, bytes_max: 64 << 10 };

const EVENT_BYTES: usize = 1_500;
const EVENTS: usize = 600;
const READERS: usize = 32;

/// What each event of a page costs besides its bytes: as much as in a ring.
const EVENT_COST_BYTES: usize = 96;

/// What is one reader's or thread's and no page: requests, answers, lists that have grown.
const SLACK_BYTES: usize = 2 << 10;

#[derive(Clone, Debug)]
struct Body(Vec<u8>);

impl Payload for Body {
    fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// Each reader has asked for its next page, has it, and does not look at it.
pub(crate) fn one_page_each() {
    let folder = Folder::new();
    let log = log(&folder);
    fill(&log);
    // What the threads keep for good they have by then.
    assert_eq!(read_all(&mut open(&log)), EVENTS);
    let mut readers: Vec<_> = (0..READERS).map(|_| open(&log)).collect();
    let before = live_bytes();
    readers.iter_mut().for_each(fetch);
    let used = usize::try_from(live_bytes() - before).expect("pages are made");
    let events = PAGE.bytes_max.div_ceil(EVENT_BYTES);
    // The last event of a page may begin within the bound and end beyond it.
    let bound = PAGE.bytes_max + EVENT_BYTES + events * EVENT_COST_BYTES + SLACK_BYTES;
    println!("{READERS} readers hold {} bytes each, at most {bound}", used / READERS);
    assert!(used <= READERS * bound, "{} bytes each, at most {bound}", used / READERS);
    assert!(used >= READERS * (PAGE.bytes_max / 2), "{used}: nobody holds a page");
    readers.iter_mut().for_each(|reader| assert!(read_all(reader) > EVENTS / 2));
    let left = live_bytes() - before;
    assert!(left <= (READERS * SLACK_BYTES) as isize, "{left} bytes are left of the pages");
}

fn log(folder: &Folder) -> Log<Body> {
    let store = files::open_with(&folder.file("memory.db"), files::keeping(files::ALL));
    let mut options = LogOptions::new(Epoch::from_random(1));
    let ring = Retention { events_max: 4, ..files::ALL };
    options.retention = RetentionRules { default: ring, ..options.retention };
    let side = StoreOptions::new(|stored| Some(Body(stored.payload)), || ms(1_000));
    Log::with_store(options, store, side).unwrap()
}

fn fill(log: &Log<Body>) {
    for _ in 0..EVENTS / 100 {
        let batch = (0..100).map(|_| draft()).collect();
        let (submitted, _) = log.submit(ms(1_000), batch).unwrap();
        let commit = submitted.commit.unwrap();
        block_on(poll_fn(|task| commit.poll(task.waker()))).unwrap();
    }
}

fn draft() -> Draft<Stamp<Body>> {
    Draft {
        to: [topic("past")].into_iter().collect::<Vec<Address>>().into(),
        id: None,
        key: None,
        fingerprint: Fingerprint::default(),
        finish: false,
        body: Some(vec![7; EVENT_BYTES]),
        stamp: Some(Box::new(|_, _| Body(vec![7; EVENT_BYTES]))),
    }
}

fn open(log: &Log<Body>) -> Reader<Body> {
    let mut reader = log.open(ms(1_000), &selection(&["past"]), &Start::Earliest).unwrap();
    block_on(poll_fn(|task| reader.poll_begun(task.waker()))).unwrap();
    reader
}

/// Asks for a page and waits until it is there.
fn fetch(reader: &mut Reader<Body>) {
    let mut asked = false;
    block_on(poll_fn(|task| {
        if asked {
            return Poll::Ready(());
        }
        asked = true;
        reader.register(task.waker());
        // A page may be there at once.
        while reader.read(ms(1_000), PAGE, &mut Vec::new()) != Read::Fetching {}
        Poll::Pending
    }));
}

/// Reads what there is, to the last event, and counts.
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
