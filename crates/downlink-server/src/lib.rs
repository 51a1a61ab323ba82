//! The downlink server: publish by POST, subscribe by `EventSource`, in one program.
//!
//! [`app`] is the HTTP API over one hub, and [`command`] is the command line. This is a library
//! only so that its tests can drive it. No other crate depends on it.

pub mod address;
pub mod app;
pub mod command;
pub mod config;

/// The version that the program reports.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

mod duration;
mod host;
mod memory;
mod retain;
mod size;
mod socket_file;
