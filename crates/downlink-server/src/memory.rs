//! Returns unused memory to the operating system.
//!
//! While the server reads the request of a connection, the connection needs a hundred times as much
//! memory as an idle stream. After many clients have connected at once, the allocator still holds
//! the memory of the peak. It returns this memory to the system only when the program calls a
//! function of the allocator. Each thread must make this call for the memory that the thread used.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// The minimum time between two calls in which a thread returns memory. One such call takes some
/// tens of microseconds, so a much shorter time would slow the threads down while many clients
/// connect. With a longer time, the program would hold unused memory for longer.
const EVERY: Duration = Duration::from_millis(500);

thread_local! {
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Returns this thread's unused memory, unless the thread has already done so less than `EVERY`
/// ago. Threads call this function when they are about to wait.
pub(crate) fn give_back_sometimes() {
    let now = Instant::now();
    if LAST.get().is_none_or(|last| now.duration_since(last) >= EVERY) {
        LAST.set(Some(now));
        give_back();
    }
}

/// Wakes a thread at intervals. The thread then returns memory before it waits again, even while
/// the server is idle.
pub(crate) async fn keep_giving_back() {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
    }
}

/// Turns off huge pages of memory for this process, if the system allows it. A huge page takes its
/// whole size as soon as one byte of it is used, and the allocator cannot return a part of it. With
/// huge pages, the program used five more megabytes before its first connection.
pub(crate) fn keep_pages_small() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "cannot turn off huge pages");
    }
}

#[expect(unsafe_code, reason = "the allocator has no safe function for this")]
fn give_back() {
    // SAFETY: any thread may call this function at any time, and it does not change memory in use.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
