//! An allocator that counts the memory of the current thread.

#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

thread_local! {
    /// The bytes in use, and the most bytes that were in use.
    static LIVE: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// Runs `work`. Returns its result, the bytes that are in use afterwards, and the most bytes that
/// were in use at one time.
pub(crate) fn measure<T>(work: impl FnOnce() -> T) -> (T, usize, usize) {
    let (before, _) = LIVE.get();
    LIVE.set((before, before));
    let result = work();
    let (after, most) = LIVE.get();
    (result, (after - before).max(0) as usize, (most - before).max(0) as usize)
}

fn note(allocated: usize, freed: usize) {
    // The value has no destructor, so it can be used until the thread has ended.
    let (live, most) = LIVE.get();
    let live = live + allocated as isize - freed as isize;
    LIVE.set((live, most.max(live)));
}

// SAFETY: every call goes to the system's allocator unchanged. Counting changes two numbers of the
// thread and allocates nothing.
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
