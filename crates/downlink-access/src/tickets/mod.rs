//! Tickets. A ticket is a sealed grant to read, for a client that cannot send headers. A registry
//! holds the streams that were opened with tickets.

pub(crate) mod seal;
pub(crate) mod streams;
pub(crate) mod ticket;
