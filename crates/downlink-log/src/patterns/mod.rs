//! The patterns of a log. A pattern is a selector with `*` or braces. All readers of equal patterns
//! share one entry.

pub(crate) mod evictions;
pub(crate) mod pattern;
pub(crate) mod table;

pub(crate) use evictions::Evictions;
pub(crate) use pattern::Pattern;
pub(crate) use table::{Held, Matching, PatternSeat, PatternSeats, Patterns};
