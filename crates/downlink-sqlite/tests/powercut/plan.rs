//! In each run, a child process writes to a store until its power is cut. The plan of a run has the
//! `Sort` (the kind of failure) and a seed. The seed determines the disk call at which the power is
//! cut, and the first disk call that may fail. The child process gets its plan from the parent
//! process. This module also makes the events that the child process writes. These events are the
//! same in every run.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use downlink_log::{
    Address, ClockState, Fingerprint, Floor, Offset, Retention, RetentionRules, Timestamp, Topic,
    store::{FeedChunk, Link, Mark, Marks, NodeState, StoredEvent},
};
use downlink_sqlite::SqliteOptions;

/// The number of commits in a run. Calls to the disk are numbered. The plan picks a number below
/// `CALLS_MAX`, and the power is cut at the call with this number. A whole run has slightly fewer
/// than `CALLS_MAX` calls. If a run ends before the picked call, the power is cut at the end of the
/// run.
pub(crate) const COMMITS: u64 = 60;
const CALLS_MAX: u64 = 5_200;

/// The time of the wall clock that the test passes when it opens a store.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_000_000);

/// `TOPICS` is the number of topics of a run, and `EVENTS_MAX` is the number of events that each
/// topic keeps. Both numbers are small, so that topics evict events all the time.
pub(crate) const TOPICS: u64 = 5;
pub(crate) const EVENTS_MAX: usize = 40;

/// The kind of failure in a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sort {
    /// Durable commits, and then a power cut.
    Durable,
    /// Relaxed commits, and then a power cut. The newest events may be lost. But if an event
    /// survives, all earlier events must survive too.
    Relaxed,
    /// A write fails before the power cut.
    FailedWrite,
    /// A flush fails before the power cut.
    FailedFlush,
    /// The cache of a replica, and then a power cut. The newest chunks may be lost. But the
    /// position and the events in the file must agree.
    Cache,
    /// Durable commits on a disk that reports every flush as successful but does not flush.
    Pretending,
}

impl Sort {
    pub(crate) const ALL: [Self; 6] = [
        Self::Durable,
        Self::Relaxed,
        Self::FailedWrite,
        Self::FailedFlush,
        Self::Cache,
        Self::Pretending,
    ];

    /// Whether the newest events may be lost.
    pub(crate) fn may_lose(self) -> bool {
        matches!(self, Self::Relaxed | Self::Cache)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) sort: Sort,
    pub(crate) seed: u64,
    /// The folder in which the child writes the store. `after` is the folder for the files that
    /// survive the power cut.
    pub(crate) folder: PathBuf,
    pub(crate) after: PathBuf,
}

impl Plan {
    pub(crate) fn from_environment() -> Option<Self> {
        let variable = |name: &str| std::env::var(format!("POWERCUT_CHILD_{name}")).ok();
        let sort = variable("SORT")?;
        Some(Self {
            sort: Sort::ALL.into_iter().find(|known| format!("{known:?}") == sort)?,
            seed: variable("SEED")?.parse().ok()?,
            folder: variable("FOLDER")?.into(),
            after: variable("AFTER")?.into(),
        })
    }

    pub(crate) fn child(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .env("POWERCUT_CHILD_SORT", format!("{:?}", self.sort))
            .env("POWERCUT_CHILD_SEED", self.seed.to_string())
            .env("POWERCUT_CHILD_FOLDER", &self.folder)
            .env("POWERCUT_CHILD_AFTER", &self.after);
        command
    }

    pub(crate) fn path(folder: &Path) -> PathBuf {
        folder.join("a.db")
    }

    /// The number of the disk call at which the power is cut.
    pub(crate) fn cut_at(&self) -> u64 {
        fastrand::Rng::with_seed(self.seed).u64(1..CALLS_MAX)
    }

    /// The number of the first disk call that may fail. It is at most the number of the call at
    /// which the power is cut.
    pub(crate) fn fail_at(&self) -> u64 {
        fastrand::Rng::with_seed(self.seed ^ 0xfa11).u64(1..=self.cut_at())
    }
}

pub(crate) fn options() -> SqliteOptions {
    let keep = Retention { events_max: EVENTS_MAX, bytes_max: usize::MAX, age_max: None };
    let mut options = SqliteOptions::default();
    options.retention =
        RetentionRules { default: keep, inbox: keep, everyone: keep, ..Default::default() };
    options
}

pub(crate) fn topic(number: u64) -> Address {
    Address::Topic(Topic::new(&format!("t/{number}")).unwrap())
}

/// The 16 events of the batch with this number. Each batch has 20 offsets, of which the last 4 are
/// not used.
pub(crate) fn batch(number: u64) -> Vec<StoredEvent> {
    (1..=16).map(|n| event(number * 20 + n)).collect()
}

/// The chunk of a feed with the events of the batch with this number.
pub(crate) fn chunk(number: u64) -> FeedChunk {
    let links = vec![link(number)];
    FeedChunk {
        floors: Vec::new(),
        others: Floor::NONE,
        events: batch(number),
        next: Offset::new((number + 1) * 20),
        clock: ClockState { at: Timestamp::from_millis(number * 20), delta_ms: 0 },
        marks: Marks { base: 1, first: number, marks: vec![Mark::new(!number)] },
        node: Some(NodeState { hub: is_new_state(number).then(|| state(number)), links }),
    }
}

/// The link of the chunk with this number.
pub(crate) fn link(number: u64) -> Link {
    Link { position: number, mark: !number, time: Timestamp::from_millis(number) }
}

/// Whether the state of the hub changes with the chunk of this number.
fn is_new_state(number: u64) -> bool {
    number.is_multiple_of(3)
}

/// The state of the hub after the chunk with this number.
pub(crate) fn state(number: u64) -> Vec<u8> {
    vec![7; 100 * (1 + number / 3) as usize]
}

/// The event at an offset. The offset determines all of its fields.
pub(crate) fn event(offset: u64) -> StoredEvent {
    let mut to = vec![topic(offset % TOPICS)];
    if offset.is_multiple_of(3) {
        to.push(topic((offset + 1) % TOPICS));
    }
    let length = (offset * 7_919 % 6_000) as usize;
    StoredEvent {
        offset: Offset::new(offset),
        at: Timestamp::from_millis(offset),
        to: to.into(),
        id: offset.is_multiple_of(5).then(|| format!("given {offset}").into()),
        key: None,
        fingerprint: Fingerprint::default(),
        finish: false,
        payload: Some(vec![offset as u8; length]),
    }
}
