//! Unused memory goes back to the system.
//!
//! A connection needs a hundred times as much memory while its request is read as when its stream
//! idles. After a storm of connections, the allocator still holds the memory of the peak. It gives
//! that memory back on request, separately in each thread.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// The shortest time between two requests of one thread. Each takes some tens of microseconds. Half
/// of it would cost more in the middle of a storm; double would keep unused memory for longer.
const EVERY: Duration = Duration::from_millis(500);

thread_local! {
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Gives back this thread's unused memory, unless it has done so recently. For threads that are
/// about to wait.
pub(crate) fn give_back_sometimes() {
    let now = Instant::now();
    if LAST.get().is_none_or(|last| now.duration_since(last) >= EVERY) {
        LAST.set(Some(now));
        give_back();
    }
}

/// Wakes a thread now and then, so that an idle thread gives memory back too.
pub(crate) async fn keep_giving_back() {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
    }
}

/// Asks the system for memory in pages of 4 KiB where it can. A huge page is resident as a whole as
/// soon as one byte of it is used, and the allocator cannot give back a part of it. Huge pages made
/// the program five megabytes larger before its first connection.
pub(crate) fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        // The system has no huge pages, or does not allow this request.
        tracing::debug!(%error, "huge pages stay as the system has them");
    }
}

#[expect(unsafe_code, reason = "the allocator has no safe name for it")]
fn give_back() {
    // SAFETY: any thread may call it at any time, and it touches no block that is in use.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
