//! Tests of the store: keeping and reading events, evicting them (trimming), and failures.

#![allow(clippy::unwrap_used)]

mod cache;
mod failing;
mod holes;
mod keeping;
mod layout;
mod model;
mod node;
mod reading;
mod sharing;
mod support;
mod trimming;
