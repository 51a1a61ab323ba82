//! A replica: a log that gets its events from the feed of another log.
#![cfg(not(downlink_loom))]

mod applying;
mod feed;
mod restarts;
#[path = "../support/mod.rs"]
mod support;
mod waiting;
