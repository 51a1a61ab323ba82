//! Memory that nobody uses goes back to the system.
//!
//! A connection needs a hundred times as much while its request is read as when its stream idles,
//! and a storm of them leaves behind what it needed at its height. The allocator gives such memory
//! back when it is asked to, each thread for itself.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// How often a thread gives memory back, at most: it takes some tens of microseconds. Half would pay
/// for it more often in the middle of a storm; double would keep for longer what nobody uses.
const EVERY: Duration = Duration::from_millis(500);

thread_local! {
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Gives back what this thread has no use for, if it has not done so lately. For threads that are
/// about to wait.
pub(crate) fn give_back_sometimes() {
    let now = Instant::now();
    if LAST.get().is_none_or(|last| now.duration_since(last) >= EVERY) {
        LAST.set(Some(now));
        give_back();
    }
}

/// Wakes a thread now and then, so that one that has nothing to do comes to give memory back.
pub(crate) async fn keep_giving_back() {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
    }
}

/// Asks the system for memory in pages of 4 KiB, as far as it goes: a huge page is resident whole as
/// soon as one byte of it is used, and given back never while one is. It made the program larger by
/// five megabytes before its first connection.
pub(crate) fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        // A system without them, or one that lets nobody ask.
        tracing::debug!(%error, "huge pages stay as the system has them");
    }
}

#[expect(unsafe_code, reason = "the allocator has no safe name for it")]
fn give_back() {
    // SAFETY: it may be called at any time from any thread, and touches no block that is in use.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
