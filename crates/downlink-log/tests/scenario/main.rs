//! Cases that the random operations in `tests/model` do not reach. Each test covers one case.
#![cfg(not(downlink_loom))]

mod batches;
mod drops;
mod limits;
mod listing;
mod patterns;
mod reading;
mod retention;
#[path = "../support/mod.rs"]
mod support;
mod waking;
