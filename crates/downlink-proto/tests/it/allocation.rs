//! An allocator that counts what one thread asks for, so that memory is a number in a test.
//!
//! Counts are per thread: tests that run beside each other do not disturb one another.

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

/// What a piece of code asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// Allocations, each growth counted as one.
    pub(crate) count: usize,
    /// Bytes asked for in all.
    pub(crate) bytes: usize,
    /// Bytes in use at the end; negative if it freed what others had allocated.
    pub(crate) live: isize,
    /// The most bytes in use at one time.
    pub(crate) peak: isize,
}

/// Runs the code and says what it allocated. What it returns counts as in use.
pub(crate) fn allocations_of<R>(code: impl FnOnce() -> R) -> (R, Used) {
    USED.set(Used { count: 0, bytes: 0, live: 0, peak: 0 });
    let result = code();
    (result, USED.get())
}

fn note(allocated: usize, freed: usize) {
    // After the thread's end there is nothing left to count.
    let _ = USED.try_with(|cell| {
        let mut used = cell.get();
        used.count += usize::from(allocated > 0);
        used.bytes += allocated;
        used.live += allocated as isize - freed as isize;
        used.peak = used.peak.max(used.live);
        cell.set(used);
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches only a cell of this
// thread and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
