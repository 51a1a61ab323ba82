//! A log over a store: commit first, then visible; replay of what the rings have lost; what a restart
//! keeps; and what happens when the disk does not play along.
#![cfg(not(downlink_loom))]

mod commits;
mod replays;
mod restarts;
mod shelf;
#[path = "../support/mod.rs"]
mod support;
mod world;
