//! Tests of access control through the public API.

#![allow(clippy::unwrap_used)]

mod access;
mod containment;
mod credentials;
mod grants;
mod key_sets;
mod keys;
mod revocations;
mod streams;
mod support;
mod tickets;
mod tokens;
mod untrusted;
