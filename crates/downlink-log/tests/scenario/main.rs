//! Cases that the random programs of the model do not reach, with one test for each.
#![cfg(not(downlink_loom))]

mod batches;
mod drops;
mod limits;
mod listing;
mod patterns;
mod reading;
#[path = "../support/mod.rs"]
mod support;
mod waking;
