//! Tests of a log with a store: commits, reading of events that are only in the store, restarts,
//! and failing disks.
#![cfg(not(downlink_loom))]

mod commits;
mod replays;
mod restarts;
mod shelf;
#[path = "../support/mod.rs"]
mod support;
mod world;
