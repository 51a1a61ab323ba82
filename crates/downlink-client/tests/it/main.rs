//! Tests of the client over real sockets. The server sends exactly the bytes that a test gives it.

// clippy.toml allows `unwrap` only in test functions. The functions that the tests share are test
// code too, so they may also use it.
#![allow(clippy::unwrap_used)]

mod build;
mod connection;
mod control;
mod credentials;
mod json;
mod publisher;
mod reconnect;
mod renewal;
mod request;
mod scripted;
mod urls;
mod waits;
