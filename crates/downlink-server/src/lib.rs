//! The downlink server: one program to which apps publish with POST and browsers subscribe with
//! `EventSource`.
//!
//! This crate is a library only so that its tests can call the server's functions. Do not depend on
//! this library, because any version may change its items. To use the server, install the
//! program `downlink`. To serve events from your own app, use the crate `downlink`.
//!
//! ```sh
//! cargo install downlink-server
//! downlink
//! curl -N 'http://127.0.0.1:8080/events?topic=news'
//! curl -d 'hello' 'http://127.0.0.1:8080/events?topic=news'
//! ```
//!
//! [`command`] is the command line. [`app`] serves the HTTP API of one hub, which is the log of
//! events and its subscriptions. [`config`] has the settings. This example reads them from flags:
//!
//! ```
//! use clap::{Args, Command, FromArgMatches};
//! use downlink_server::config::Settings;
//!
//! # fn main() -> Result<(), clap::Error> {
//! let command = Settings::augment_args(Command::new("serve"));
//! let matches = command.try_get_matches_from(["serve", "--listen", "127.0.0.1:0"])?;
//! let settings = Settings::from_arg_matches(&matches)?;
//! assert!(settings.listen.is_local());
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `https` | `https` addresses for `publish`, `subscribe`, `--jwks-url` and `--authorize-url`, with a TLS library in C | yes |
//!
//! # Limits
//!
//! The server does not support TLS. `downlink dev` accepts requests only from programs on this
//! machine and from its own page. `downlink serve` needs credentials. Every buffer, count and wait
//! has a limit. `docs/LIMITS.md` in the repository lists the limits and their flags.
//!
//! # Platforms
//!
//! The server runs on Linux, and its tests run there. Other Unix systems should work, but are not
//! tested. Building the server needs a C compiler.
#![doc = concat!("The minimum Rust version is ", env!("CARGO_PKG_RUST_VERSION"), ".")]
//!
//! # Guide
//!
//! `docs/HTTP.md` in the repository describes every request and answer. The
//! [guide](https://docs.rs/downlink/latest/downlink/guide/) describes the library. Its chapters on
//! the browser, proxies, durability and shutdown also apply to the server.

pub mod access;
pub mod address;
pub mod app;
pub mod cluster;
pub mod command;
pub mod config;

/// The version that the program reports.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

mod duration;
mod host;
mod logs;
mod memory;
mod retain;
mod size;
mod socket_file;
mod values;
