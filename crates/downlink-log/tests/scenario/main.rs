//! What the random programs of the model do not reach, one fact after another.
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
