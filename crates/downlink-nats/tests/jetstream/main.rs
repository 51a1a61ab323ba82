//! The journal in streams of real NATS servers, which run on this machine. The tests check the
//! contract of a journal, and the faults of one server and of a cluster of three servers.
//!
//! The variable `DOWNLINK_NATS_SERVER` is the path of the program `nats-server`; `cargo xtask ci`
//! installs it and sets the variable. Without the variable, each test prints that it is skipped.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod checks;
mod cluster;
mod connections;
#[path = "../../../downlink-cluster/tests/contract/mod.rs"]
mod contract;
mod hubs;
mod lost;
mod nodes;
mod one;
mod pipe;
mod servers;
mod settings;
mod tails;
