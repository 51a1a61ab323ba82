//! Tests of the crate through its public interface. They use one thread, and no input or output.
//!
//! Many test names begin with a number from three lists, which exist only in these names. `rule_01`
//! to `rule_35` are the rules for a decoder, derived from the section "Server-sent events" of the
//! WHATWG HTML standard. `e01` to `e25` are hazards for an encoder: values that readers could
//! misread. `v01` to `v25` are example streams, from the web platform tests and our own. The module
//! `check` compares a decoder with the expected items and with the module `naive`, an independent
//! reader.

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
