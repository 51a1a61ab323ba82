//! The downlink server: publish by POST, subscribe by `EventSource`, in one program.
//!
//! [`app`] is the HTTP API over one hub, [`command`] the command line. A library only so that its
//! tests can drive it; nothing else depends on it.

pub mod address;
pub mod app;
pub mod command;
pub mod config;

/// Said wherever the program names itself.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

mod duration;
mod memory;
mod retain;
