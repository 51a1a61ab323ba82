//! The patterns of a log: one for each distinct selector with `*` or braces, with its readers.

pub(crate) mod evictions;
pub(crate) mod pattern;
pub(crate) mod table;

pub(crate) use evictions::Evictions;
pub(crate) use pattern::Pattern;
pub(crate) use table::{Held, Matching, PatternSeat, PatternSeats, Patterns};
