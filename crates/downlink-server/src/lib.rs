//! The downlink server: publish by POST, subscribe by `EventSource`, in one program.
//!
//! This is a library only so that its tests can drive it. No other crate depends on it, and its
//! items may change with any version. Install the program `downlink`, or use the crate `downlink` in
//! an app of your own.
//!
//! ```sh
//! cargo install downlink-server
//! downlink serve
//! curl -N 'http://127.0.0.1:8080/events?topic=news'
//! curl -d 'hello' 'http://127.0.0.1:8080/events?topic=news'
//! ```
//!
//! [`command`] is the command line, [`config`] the settings, and [`app`] the HTTP API over one hub:
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
//! | `https` | `https` addresses for `downlink publish` and `subscribe`, with a TLS library in C | yes |
//!
//! # Limits
//!
//! The server has no credentials and no TLS: it serves this machine and its own pages. Every buffer,
//! count and wait has a limit, and `docs/LIMITS.md` in the repository lists them with their flags.
//!
//! # Platforms
//!
//! Linux, where its tests run. Other Unix systems are expected to work, and are not tested. Building
//! it needs a C compiler.
#![doc = concat!("The minimum Rust version is ", env!("CARGO_PKG_RUST_VERSION"), ".")]
//!
//! # Guide
//!
//! `docs/HTTP.md` in the repository describes every request and answer. The
//! [guide](https://docs.rs/downlink/latest/downlink/guide/) is about the library; its chapters on the
//! browser, proxies, durability and shutdown are about the server too.

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
