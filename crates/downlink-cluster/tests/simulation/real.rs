//! Repeats the calls that the log of a node got in a run, with the real log. The real log must give
//! the same answers, and must have the same events with the same ids.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    task::{Poll, Waker},
    time::Duration,
};

use downlink_cluster::{HistoryStart, Node, Plan, Record, Refusal, Resume};
use downlink_log::{
    AppendError, Applied, Applier, Batch, ClockState, Cursor, Draft, Drafts, Epoch, Floor,
    FollowerTask, GapReason, KEY_WINDOW, Log, LogOptions, Offset, POSITION_OFFSETS, Payload, Read,
    Retention, RetentionRules, Selection, Start, StoreOptions, Stored, Timestamp, TopicSelector,
    store::{Cache, FeedChunk, FeedStart, Link, Marks, NodeState},
};
use downlink_sqlite::{SqliteCache, SqliteOptions};

use super::model::{Call, ModelLog};

/// A payload with its bytes and the id that its publisher chose.
#[derive(Clone, Debug)]
struct Bytes(Vec<u8>, Option<Box<str>>);

impl Payload for Bytes {
    type Draft = Self;

    fn stamp(draft: Self, _: Cursor, _: Timestamp) -> Self {
        draft
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn publisher_id(&self) -> Option<&str> {
        self.1.as_deref()
    }
}

/// How the real log differs from the model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Difference(pub(crate) String);

struct RealLog {
    log: Log<Bytes>,
    applier: Applier<Bytes>,
    /// The latest time of an event.
    at: Timestamp,
    /// The folder of the cache, if there is one.
    folder: Option<Folder>,
    /// Whether the cache may have a newer state than the model. A power cut removes the newest
    /// states of the model. The real log does a cut in its place, which keeps the newest state.
    has_newer_state: bool,
}

/// A folder that is removed with its files.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("simulation-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn cache(&self) -> SqliteCache {
        let mut options = SqliteOptions::default();
        options.retention = keep_all();
        SqliteCache::open(&self.0.join("cache.db"), options).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Repeats the calls that the log of `node` got, and compares the events at the end. With a cache,
/// the memory of the log keeps almost nothing, so most answers come from the cache.
/// `resumes` are the answers of the node to readers of some ids.
pub(crate) fn repeat(
    node: &Node<ModelLog>,
    has_cache: bool,
    resumes: Vec<(&str, Resume)>,
) -> Result<(), Difference> {
    let mut real = RealLog::open(has_cache.then(Folder::new));
    let mut times = BTreeMap::new();
    for call in &node.log().calls {
        match call {
            Call::Plan(records, answer) => real.compare_plan(records, answer, &times)?,
            Call::Apply(applied) => {
                times.extend(applied.events.iter().map(|event| (event.offset, event.at)));
                real.apply(applied);
            }
            Call::Delete => real.delete_cache(),
            Call::Reopen(links, state) => real.reopen(links, state.as_deref())?,
            Call::PowerCut(from) => {
                real.applier.cut_to(*from);
                real.has_newer_state = true;
            }
            Call::CutTo(from, ids) => {
                let mut removed = real.applier.cut_to(*from);
                let mut ids = ids.clone();
                removed.sort();
                ids.sort();
                if removed != ids {
                    return Err(Difference(format!("removed ids: {removed:?}, {ids:?}")));
                }
            }
            Call::Restart(start) => real.begin(start.as_ref()),
        }
    }
    real.compare_events(node)?;
    // With a cache, other threads read, and they need other clocks than the simulation. So the
    // answers to readers are compared only without a cache.
    let resumes = resumes.into_iter().filter(|_| !has_cache);
    { resumes }.try_for_each(|(id, expected)| real.compare_resume(node, id, expected))
}

/// Rules by which no event is evicted.
fn keep_all() -> RetentionRules {
    let default = Retention { events_max: usize::MAX, bytes_max: usize::MAX, age_max: None };
    RetentionRules {
        default,
        inbox: default,
        everyone: default,
        finished_keep: Duration::from_secs(1 << 30),
        ..RetentionRules::default()
    }
}

/// The real log. With a cache, its memory keeps one event.
fn open_log(cache: Option<SqliteCache>) -> (Log<Bytes>, Applier<Bytes>) {
    let mut options =
        LogOptions { retention: keep_all(), ..LogOptions::new(Epoch::from_random(7)) };
    if cache.is_some() {
        options.limits.bytes_max = 1;
    }
    let decode = |stored: Stored| Some(Bytes(stored.payload, stored.publisher_id));
    let side = StoreOptions::new(decode, ClockState::default);
    let cache = cache.map(|cache| Box::new(cache) as Box<dyn Cache>);
    Log::replica(options, side, cache).unwrap()
}

impl RealLog {
    fn open(folder: Option<Folder>) -> Self {
        let cache = folder.as_ref().map(Folder::cache);
        let (log, applier) = open_log(cache);
        Self { log, applier, at: Timestamp::default(), folder, has_newer_state: false }
    }

    /// Deletes the cache. The node is down.
    fn delete_cache(&mut self) {
        (self.log, self.applier) = open_log(None);
        let folder = self.folder.take().map(|_| Folder::new());
        (self.log, self.applier) = open_log(folder.as_ref().map(Folder::cache));
        (self.folder, self.has_newer_state) = (folder, false);
    }

    /// Opens the cache again, and compares its state with the expected state.
    fn reopen(&mut self, links: &[Link], state: Option<&[u8]>) -> Result<(), Difference> {
        if links.is_empty() {
            // The node has begun a history, but has applied nothing. The cache may still have the
            // history before.
            self.delete_cache();
        }
        let Some(folder) = &self.folder else { return Ok(()) };
        // The old log releases the file.
        (self.log, self.applier) = open_log(None);
        let cache = folder.cache();
        let node = cache.opened().node.clone();
        if node.links != links || (node.hub.as_deref() != state && !self.has_newer_state) {
            let NodeState { hub, links: own } = node;
            return Err(Difference(format!(
                "after a restart: {hub:?} {own:?}, {state:?} {links:?}"
            )));
        }
        (self.log, self.applier) = open_log(Some(cache));
        Ok(())
    }

    /// Begins a history. If its start is not known yet, the log becomes empty.
    fn begin(&mut self, start: Option<&HistoryStart>) {
        let (epochs, from) =
            start.map_or((Vec::new(), Offset::FIRST), |start| (start.epochs.clone(), start.first));
        self.has_newer_state = false;
        assert!(self.applier.begin(FeedStart { epochs, from, resumed: false }));
    }

    fn apply(&mut self, applied: &downlink_cluster::Applied) {
        let first = applied.first.get();
        let position = applied.position.get();
        let link = Link { position, mark: applied.mark.get(), time: applied.time };
        let next = Offset::new(first + POSITION_OFFSETS);
        // The node knows no events of a position that it does not show.
        let floor = Floor { offset: next, at: self.at };
        self.at = applied.events.iter().map(|event| event.at).fold(self.at, Timestamp::max);
        let chunk = FeedChunk {
            floors: Vec::new(),
            others: if applied.is_shown { Floor::NONE } else { floor },
            events: applied.events.clone(),
            next,
            clock: ClockState { at: self.at, delta_ms: 0 },
            marks: Marks {
                base: first - position * POSITION_OFFSETS,
                first: position,
                marks: vec![applied.mark.in_log()],
            },
            node: Some(NodeState { hub: applied.state.clone(), links: vec![link] }),
        };
        assert_eq!(self.applier.apply(chunk), Applied::Next);
        assert_eq!(self.log.store_error(), None);
        self.has_newer_state &= applied.state.is_none();
        if let Some(ends) = &applied.lost_ends {
            self.applier.set_lost_ends(ends.clone());
        }
    }

    fn compare_plan(
        &mut self,
        records: &[Record],
        answer: &Result<Plan, Refusal>,
        times: &BTreeMap<Offset, Timestamp>,
    ) -> Result<(), Difference> {
        let drafts: Drafts<Bytes> = records.iter().map(draft).collect();
        let own = match self.applier.plan(self.at, &drafts) {
            Ok(repeats) => Ok(Plan { repeats: repeats.to_vec() }),
            Err(AppendError::KeyReused { draft }) => Err(Refusal::KeyReused { record: draft }),
            Err(AppendError::IdTaken { draft }) => Err(Refusal::IdTaken { record: draft }),
            Err(AppendError::Finished { draft }) => Err(Refusal::Finished { record: draft }),
            Err(error) => return Err(Difference(format!("the real log refuses: {error}"))),
        };
        // The real log forgets a key after `KEY_WINDOW`, and the model never does.
        let is_forgotten =
            |offset: &Offset| times.get(offset).is_some_and(|at| at.after(KEY_WINDOW) <= self.at);
        let forgets =
            answer.as_ref().is_ok_and(|plan| plan.repeats.iter().flatten().any(is_forgotten));
        if own == *answer || forgets {
            return Ok(());
        }
        Err(Difference(format!("a plan: {own:?}, {answer:?}")))
    }

    /// Opens a reader with an id, and compares the place where it begins with the node's answer.
    fn compare_resume(
        &self,
        node: &Node<ModelLog>,
        id: &str,
        expected: Resume,
    ) -> Result<(), Difference> {
        let Some(history) = node.history() else { return Ok(()) };
        let selectors = vec![TopicSelector::parse("*").unwrap()];
        let selection = Selection { selectors, client: None };
        let start = Start::After(id.into());
        let mut reader = self.log.open(self.at, &selection, &start).unwrap();
        if !reader.has_begun()
            && let Poll::Ready(FollowerTask::AskForEnd(question)) =
                self.applier.follower().poll_task(Waker::noop())
        {
            self.applier.follower().confirm(question, self.log.tail());
        }
        while reader.poll_begun(Waker::noop()).is_pending() {}
        let next = reader.cursor().next;
        let batch = Batch { events_max: 1, bytes_max: 1 };
        let gap = match reader.read(self.at, batch, &mut Vec::new()) {
            Read::Gap(gap) => Some(gap.reason),
            _ => None,
        };
        // The log has no mark of the position at which the history begins, so it cannot check ids
        // of this position.
        let after_first = history.first_offset(history.chain().first().next());
        let is_older = Cursor::parse_id(id).is_some_and(|id| id.next <= after_first);
        let is_equal = match expected {
            Resume::After(last) => gap.is_none() && next.get() == last.get() + 1,
            // The log does not tell an older id from an id of another history.
            Resume::Gap { reason: GapReason::Evicted, .. } if is_older => gap.is_some(),
            Resume::Gap { reason: GapReason::Lost, next: expected } => {
                let has_end = history.lost_ends().iter().any(|end| end.from <= next);
                gap == Some(GapReason::Lost) && (next == expected || !has_end)
            }
            Resume::Gap { reason, .. } => gap == Some(reason),
            Resume::Wait | Resume::Unavailable => true,
        };
        let own = (gap, next);
        let error = || Difference(format!("a reader of {id}: {own:?}, {expected:?}"));
        if is_equal { Ok(()) } else { Err(error()) }
    }

    fn compare_events(&mut self, node: &Node<ModelLog>) -> Result<(), Difference> {
        for id in node.log().events.values().filter_map(|event| event.id.as_deref()) {
            let [own, expected] = [self.applier.publisher_id(id), node.log().offset_of(id)];
            if own != expected {
                return Err(Difference(format!("the id {id}: {own:?}, {expected:?}")));
            }
        }
        let mut own = BTreeMap::new();
        let mut feed = self.log.feed(None, |payload| payload.0.clone());
        while feed.next() < feed.tail() {
            let chunk = feed.read(ClockState::default()).unwrap().expect("the log is open");
            for event in chunk.events.into_iter().filter(|event| event.payload.is_some()) {
                let id = self.log.id_of(event.offset).to_string();
                own.insert(event.offset, (id, event.payload, event.id));
            }
        }
        let events = node.log().events.iter().filter(|(_, event)| event.payload.is_some());
        let expected: BTreeMap<_, _> = events
            .map(|(offset, event)| {
                let offset = Offset::new(*offset);
                let id = node.id(offset).map(|id| id.to_string()).unwrap_or_default();
                (offset, (id, event.payload.clone(), event.id.clone()))
            })
            .collect();
        let differs = |offset: &&Offset| own.get(*offset) != expected.get(*offset);
        match own.keys().chain(expected.keys()).find(differs) {
            None => Ok(()),
            Some(at) => {
                let [own, expected] = [own.get(at), expected.get(at)];
                Err(Difference(format!("the event at {at:?}: {own:?}, {expected:?}")))
            }
        }
    }
}

fn draft(record: &Record) -> Draft<Bytes> {
    let payload = record.payload.clone();
    Draft {
        to: record.to.iter().cloned().collect(),
        id: record.id.clone(),
        key: record.key.clone(),
        fingerprint: record.fingerprint,
        finish: record.finish,
        body: None,
        payload: payload.map(|payload| Bytes(payload, record.id.clone())),
    }
}
