//! An allocator that counts the memory of the whole process. It cannot count per thread, because
//! one thread allocates a page and another thread reads and frees it. SQLite's own memory is not
//! counted.

#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicIsize, Ordering},
};

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

/// The number of bytes in use. Relaxed ordering is enough, because a test reads the number only
/// while no thread allocates.
static LIVE: AtomicIsize = AtomicIsize::new(0);

pub(crate) fn live_bytes() -> isize {
    LIVE.load(Ordering::Relaxed)
}

fn note(allocated: usize, freed: usize) {
    LIVE.fetch_add(allocated as isize - freed as isize, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged. Counting changes one number and
// allocates nothing.
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
