//! Compares the file that survived the power cut with the output of the child process, which wrote
//! to the file until the power was cut.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use downlink_log::{
    Batch, Epoch, EvictionNumber, Offset, PatternSet,
    store::{Cache, NodeState, Range, Step, Store, StoreReader, StoredEntry, Wanted},
};
use downlink_sqlite::{SqliteCache, SqliteStore};

use crate::plan::{
    COMMITS, EVENTS_MAX, NOW, Plan, Sort, TOPICS, batch, event, link, options, state, topic,
};

/// The output of the child process: the numbers of the batches for each outcome, and how the child
/// ended.
#[derive(Debug, Default)]
pub(crate) struct Said {
    kept: BTreeSet<u64>,
    failed: BTreeSet<u64>,
    /// The last batch that the child has flushed.
    flushed: Option<u64>,
    unknown: Option<u64>,
    stopped: bool,
    done: bool,
}

impl Said {
    /// Whether the run proves something. At least one batch must have been kept. If a failure was
    /// planned, it must have happened. If no failure was planned, the power must have been cut
    /// before the child was done.
    pub(crate) fn is_conclusive(&self, sort: Sort) -> bool {
        let failed = match sort {
            Sort::FailedWrite => !self.failed.is_empty(),
            Sort::FailedFlush => self.unknown.is_some() || self.stopped,
            _ => !self.done,
        };
        failed && !self.kept.is_empty()
    }
}

/// Runs the child with one seed. Returns the output of the child, and a message if the file does
/// not match this output.
pub(crate) fn run(sort: Sort, seed: u64) -> (Said, Option<String>) {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("powercut-{}-{sort:?}-{seed}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    let plan = Plan { sort, seed, folder: root.join("before"), after: root.join("after") };
    fs::create_dir_all(&plan.folder).unwrap();
    let output = plan.child().output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && plan.after.exists(),
        "the child ended without a power cut: {said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = listen(&said);
    let wrong = judge(sort, &said, &plan.after).err();
    let _ = fs::remove_dir_all(&root);
    (said, wrong)
}

fn listen(text: &str) -> Said {
    let mut said = Said::default();
    for line in text.lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number = || rest.parse::<u64>().unwrap();
        match word {
            "kept" => drop(said.kept.insert(number())),
            "failed" => drop(said.failed.insert(number())),
            "flushed" => said.flushed = Some(number()),
            "unknown" => said.unknown = Some(number()),
            "stopped" => said.stopped = true,
            "done" => said.done = true,
            "refused" => {}
            "unreadable" => panic!("earlier events cannot be read after a failed flush:\n{text}"),
            other => panic!("the child printed `{other}`, which is not an outcome of a batch"),
        }
    }
    if let Some(unknown) = said.unknown {
        assert!(
            said.kept.iter().all(|&kept| kept < unknown),
            "the store confirmed a batch after a batch with an unknown outcome"
        );
    }
    said
}

/// Returns the contents that the file may have. Each content is a set of batches.
fn acceptable(sort: Sort, said: &Said) -> Vec<BTreeSet<u64>> {
    let kept = &said.kept;
    // The outcome of one batch may be open. This is the batch that the child was writing when the
    // power was cut, or the batch whose outcome the store has reported as unknown. The file may or
    // may not have this batch.
    let last = kept.iter().chain(&said.failed).next_back().map_or(0, |number| number + 1);
    let open = if said.stopped || said.unknown.is_some() {
        said.unknown
    } else {
        (!said.done && last < COMMITS).then_some(last)
    };
    let mut all = vec![kept.clone()];
    if let Some(open) = open {
        all.push(kept.iter().copied().chain([open]).collect());
    }
    if sort.may_lose() {
        let least = said.flushed.map_or(0, |number| number + 1);
        all.extend((least..last).map(|end| (0..end).collect()));
    }
    all
}

fn judge(sort: Sort, said: &Said, after: &Path) -> Result<(), String> {
    let path = Plan::path(after);
    if sort == Sort::Cache {
        return judge_cache(said, &path);
    }
    let store = open(&path)?;
    let highest = said.kept.last().map_or(0, |number| number * 20 + 16);
    if !sort.may_lose() && store.opened().next_offset.get() <= highest {
        return Err(format!("offset {highest} would be assigned again"));
    }
    let mut reasons = Vec::new();
    for batches in acceptable(sort, said) {
        match compare(&*store.reader(), &batches) {
            Ok(()) => return check_integrity(&path),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(format!("{reasons:?}"))
}

/// The position in the cache tells which chunks the cache has. The file must have exactly the
/// events and marks of these chunks.
fn judge_cache(said: &Said, path: &Path) -> Result<(), String> {
    let cache = SqliteCache::open(path, options()).map_err(|error| error.to_string())?;
    let opened = cache.opened().clone();
    if let Some(error) = opened.discarded {
        return Err(format!("the cache was discarded: {error}"));
    }
    let chunks = opened.position.map_or(0, |position| position.get() / 20);
    let batches: BTreeSet<u64> = (0..chunks).collect();
    if !acceptable(Sort::Cache, said).contains(&batches) {
        return Err(format!("the cache has {chunks} chunks after {said:?}"));
    }
    let marks: Vec<u64> = opened.marks.marks.iter().map(|mark| mark.get()).collect();
    let node =
        NodeState { hub: chunks.checked_sub(1).map(state), links: (0..chunks).map(link).collect() };
    if opened.node != node {
        return Err(format!("the cache has {:?} after {chunks} chunks", opened.node));
    }
    if marks.len() as u64 != chunks || opened.epochs.is_empty() != (chunks == 0) {
        return Err(format!("the cache has the marks {marks:?} and {:?}", opened.epochs));
    }
    compare(&*cache.reader(), &batches)?;
    drop(cache);
    check_integrity(path)
}

fn open(path: &Path) -> Result<SqliteStore, String> {
    SqliteStore::open(path, Epoch::from_random(u64::MAX), NOW, options())
        .map_err(|error| error.to_string())
}

/// Checks that the store has all events of these batches and no other events. An event may be
/// missing if the retention rule allows the store to evict it.
fn compare(reader: &dyn StoreReader, batches: &BTreeSet<u64>) -> Result<(), String> {
    for number in 0..TOPICS {
        let address = topic(number);
        let patterns = Arc::new(PatternSet::new([]));
        let wanted = Wanted { addresses: vec![address.clone()], patterns };
        let limits = Batch { events_max: usize::MAX, bytes_max: usize::MAX };
        let until = Offset::new(COMMITS * 20 + 20);
        let page = reader
            .replay(wanted)
            .page(Range { from: Offset::FIRST, until }, EvictionNumber::NONE, limits)
            .map_err(|error| error.to_string())?;
        let Step::Done(page) = page else {
            return Err("the replay of one topic read no page in its first call".into());
        };
        let committed: Vec<u64> = batches
            .iter()
            .flat_map(|&number| batch(number))
            .filter(|event| event.to.contains(&address))
            .map(|event| event.offset.get())
            .collect();
        let floor = page.hole.map_or(1, |hole| hole.get() + 1);
        let gone = committed.iter().filter(|&&offset| offset < floor).count();
        if gone > committed.len().saturating_sub(EVENTS_MAX) {
            return Err(format!(
                "topic {number} has evicted too many events: {gone} of {}",
                committed.len()
            ));
        }
        compare_topic(number, &page.events, &committed[gone..])?;
    }
    Ok(())
}

fn compare_topic(number: u64, found: &[StoredEntry], expected: &[u64]) -> Result<(), String> {
    let offsets: Vec<u64> = found.iter().map(|entry| entry.offset.get()).collect();
    if offsets != expected {
        return Err(format!("topic {number} has the events {offsets:?} instead of {expected:?}"));
    }
    for entry in found {
        let written = event(entry.offset.get());
        if written.payload != entry.payload || written.id != entry.id {
            return Err(format!("event {} differs from the committed event", entry.offset));
        }
    }
    Ok(())
}

fn check_integrity(path: &Path) -> Result<(), String> {
    let connection = rusqlite::Connection::open(path).map_err(|error| error.to_string())?;
    let answer: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .map_err(|error| error.to_string())?;
    if answer == "ok" { Ok(()) } else { Err(answer) }
}
