//! An allocator that counts the allocations of one thread, so that tests can check memory.
//!
//! Each thread has separate counts, so tests that run at the same time do not disturb each other.

#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

thread_local! {
    static USED: Cell<Used> = const { Cell::new(Used { count: 0, bytes: 0, live: 0, peak: 0 }) };
}

/// The memory that a piece of code has allocated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// The number of allocations. Each growth of a buffer counts as one.
    pub(crate) count: usize,
    /// The total bytes allocated.
    pub(crate) bytes: usize,
    /// The number of bytes that the code allocated, minus the number of bytes that it freed. The
    /// code may free memory that was allocated earlier, so the number can be negative.
    pub(crate) live: isize,
    /// The maximum number of bytes in use at the same time.
    pub(crate) peak: isize,
}

/// Runs the code and counts its allocations. The memory of the code's result counts in `live`,
/// because the result still exists.
pub(crate) fn allocations_of<R>(code: impl FnOnce() -> R) -> (R, Used) {
    USED.set(Used { count: 0, bytes: 0, live: 0, peak: 0 });
    let result = code();
    (result, USED.get())
}

/// The counts of this thread. Each call of [`allocations_of`] sets these counts to zero before it
/// runs its code. Code that awaits cannot run inside [`allocations_of`], so a test with such code
/// reads the counts with this function.
#[allow(dead_code, reason = "only some tests await")]
pub(crate) fn used() -> Used {
    USED.get()
}

fn note(allocated: usize, freed: usize) {
    // A thread that is ending may have dropped its counter already. Then nothing is counted.
    let _ = USED.try_with(|cell| {
        let mut used = cell.get();
        used.count += usize::from(allocated > 0);
        used.bytes += allocated;
        used.live += allocated as isize - freed as isize;
        used.peak = used.peak.max(used.live);
        cell.set(used);
    });
}

// SAFETY: every call is passed to the system's allocator unchanged. The counting changes only a
// cell of this thread and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller upholds the contract of this method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, layout.size());
        // SAFETY: the caller upholds the contract of this method.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, layout.size());
        // SAFETY: the caller upholds the contract of this method.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
