//! The client over real sockets, against a server that sends exact bytes.

// clippy.toml allows it in test functions; the functions they share are tests too.
#![allow(clippy::unwrap_used)]

mod build;
mod connection;
mod control;
mod publisher;
mod reconnect;
mod request;
mod scripted;
mod waits;
