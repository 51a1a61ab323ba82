//! Tests of the crate through its public API. They use no threads, and their only I/O is to read
//! the files with example streams.
//!
//! A block is the lines up to a blank line. Many test names begin with a number. The numbers are
//! used only in these tests. `rule_01` to `rule_35` are rules for a decoder, from the section
//! "Server-sent events" of the WHATWG HTML standard. `e01` to `e25` are hazards for an encoder:
//! values that a reader could misread. `v01` to `v25` are example streams. Some of them are from
//! the web platform tests, and the others were written for this crate. The module `naive` is a
//! simple reader that shares no code with the decoder. The module `check` compares the items of the
//! decoder with the expected items and with the items of the naive reader.

#![allow(clippy::unwrap_used)]

mod allocation;
mod check;
mod naive;
mod reader;

mod facts;
mod fields;
mod fixtures;
mod hazards;
mod limits;
mod properties;
mod rules_dispatch;
mod rules_fields;
mod rules_lines;
mod stamps;
mod vectors;
