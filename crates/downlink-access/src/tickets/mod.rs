//! Tickets: sealed grants to read, for clients that cannot send headers, and the registry of the
//! streams that they opened.

pub(crate) mod seal;
pub(crate) mod streams;
pub(crate) mod ticket;
