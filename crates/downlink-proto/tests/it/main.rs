//! Tests of the event stream through the public interface: one thread, no input or output.
//!
//! Names begin with an item of the checklist: `rule_…` (parsing and dispatch), `e…` (encoding
//! hazards), `v…` (vectors). `check` is the driver, and `naive` is the independent reader.

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
