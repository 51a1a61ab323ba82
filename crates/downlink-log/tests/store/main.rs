//! The store in one SQLite file: what it keeps, what it lets go, and what it says when it cannot.

#![allow(clippy::unwrap_used)]

mod failing;
mod keeping;
mod model;
mod reading;
mod sharing;
mod support;
mod trimming;
