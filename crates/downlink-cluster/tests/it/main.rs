//! Tests of the data types: the bytes of entries, and the window.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod allocation;
mod entries;
mod window;
mod wire;
