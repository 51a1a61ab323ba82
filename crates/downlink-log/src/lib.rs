//! See the crate's manifest; written with its first module.
