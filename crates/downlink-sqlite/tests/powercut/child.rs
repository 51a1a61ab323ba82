//! The child process writes events to a store until its power is cut. It prints a line for each
//! outcome that the store reports.

use std::io::Write;

use downlink_log::{
    Batch, Epoch, Offset, Timestamp,
    store::{Cache, Durability, Losses, Store, StoreError, Trimmed},
};
use downlink_sqlite::{SqliteCache, SqliteStore};

use crate::{
    disk,
    plan::{COMMITS, NOW, Plan, Sort, batch, chunk, options},
};

/// Sends a line to the parent process at once, because the power may be cut right after this.
fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    output.write_all(format!("{line}\n").as_bytes()).unwrap();
    output.flush().unwrap();
}

pub(crate) fn run(plan: &Plan) -> ! {
    disk::attach(plan);
    if plan.sort == Sort::Cache {
        write_cache(plan);
        disk::cut()
    }
    let epoch = Epoch::from_random(plan.seed);
    match SqliteStore::open(&Plan::path(&plan.folder), epoch, NOW, options()) {
        Ok(mut store) => write(plan, &mut store),
        Err(error) => say(&format!("refused {error}")),
    }
    disk::cut()
}

fn write(plan: &Plan, store: &mut SqliteStore) {
    let durability = match plan.sort {
        Sort::Relaxed => Durability::Relaxed,
        _ => Durability::Commit,
    };
    for number in 0..COMMITS {
        match store.commit(&batch(number), durability) {
            Ok(()) => say(&format!("kept {number}")),
            Err(StoreError::OutcomeUnknown) => {
                say(&format!("unknown {number}"));
                check_readable(store, number);
            }
            Err(StoreError::Stopped) => say(&format!("stopped {number}")),
            Err(_) => say(&format!("failed {number}")),
        }
        if plan.sort == Sort::Relaxed && number % 8 == 7 && store.flush().is_ok() {
            say(&format!("flushed {number}"));
        }
        while let Ok(Trimmed::More) = store.trim(Timestamp::from_millis(0)) {}
    }
    say("done");
}

/// Writes the chunks of a feed to a cache.
fn write_cache(plan: &Plan) {
    let mut cache = match SqliteCache::open(&Plan::path(&plan.folder), options()) {
        Ok(cache) => cache,
        Err(error) => return say(&format!("refused {error}")),
    };
    cache.begin(&[(Epoch::from_random(plan.seed), Offset::FIRST)], false);
    for number in 0..COMMITS {
        match cache.apply(&chunk(number), &Losses::default()) {
            Ok(()) => say(&format!("kept {number}")),
            Err(_) => say(&format!("failed {number}")),
        }
        if number % 8 == 7 && cache.flush().is_ok() {
            say(&format!("flushed {number}"));
        }
        while let Ok(Trimmed::More) = cache.trim(Timestamp::from_millis(0)) {}
    }
    say("done");
}

/// After a failed flush, the events of earlier batches must still be readable. If they are not,
/// this prints `unreadable`, and the parent process then panics.
fn check_readable(store: &SqliteStore, unknown: u64) {
    let batch = Batch { events_max: 1, bytes_max: usize::MAX };
    let newest = store.reader().newest(batch).map(|newest| newest.first().map(|e| e.offset.get()));
    let least = unknown.checked_sub(1).map(|last| last * 20 + 16);
    if newest.is_err() || newest.is_ok_and(|newest| newest < least) {
        say("unreadable");
    }
}
