//! Tests of a log with a store: commits, replays of events that the rings no longer have, restarts
//! and failing disks.
#![cfg(not(downlink_loom))]

mod commits;
mod replays;
mod restarts;
mod shelf;
#[path = "../support/mod.rs"]
mod support;
mod world;
