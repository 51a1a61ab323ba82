//! The client over real sockets, against a server that sends exact bytes.

// clippy.toml allows `unwrap` in test functions. The functions they share are test code too.
#![allow(clippy::unwrap_used)]

mod build;
mod connection;
mod control;
mod credentials;
mod json;
mod publisher;
mod reconnect;
mod request;
mod scripted;
mod waits;
