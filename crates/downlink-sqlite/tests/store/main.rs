//! Tests of the store in one SQLite file: keeping, reading, trimming, failing.

#![allow(clippy::unwrap_used)]

mod failing;
mod holes;
mod keeping;
mod layout;
mod model;
mod reading;
mod sharing;
mod support;
mod trimming;
