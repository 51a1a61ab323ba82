//! A replica: a log that gets its events from the feed of another log.
#![cfg(not(downlink_loom))]

mod applying;
mod cached;
mod cutting;
mod feed;
mod lost;
mod node;
mod restarts;
mod stress;
#[path = "../support/mod.rs"]
mod support;
mod waiting;
