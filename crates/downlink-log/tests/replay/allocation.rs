//! An allocator that counts what the process has in use: a page is made by one thread and read by
//! another. What SQLite asks for is not counted.

#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicIsize, Ordering},
};

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

/// Bytes in use. Ordered with nothing: it is read while no thread allocates.
static LIVE: AtomicIsize = AtomicIsize::new(0);

pub(crate) fn live_bytes() -> isize {
    LIVE.load(Ordering::Relaxed)
}

fn note(allocated: usize, freed: usize) {
    LIVE.fetch_add(allocated as isize - freed as isize, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches one number and
// allocates nothing.
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
