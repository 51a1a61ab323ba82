//! The direct path: streams that are served without hyper, many by one task.
//!
//! Once the head of an event stream is written, hyper has nothing to add to it but buffers. So the
//! connection gives its socket and the response's body away (see `handover`), and a driver goes on:
//! it polls the body where it was woken, and writes what it yields from where it lies. What is left
//! of an idle stream is its body and a few words.
//!
//! Read in this order: `stream` (one of them) → `chunk` (the write) → `driver` (many) → `lanes` (whose
//! turn it is), `timers`, `readiness`, `mailbox` (whence it is woken). Not here: whether a response
//! is served like this, and anything about HTTP but the chunks.

#[cfg(unix)]
mod chunk;
#[cfg(unix)]
mod driver;
#[cfg(unix)]
mod drivers;
#[cfg(unix)]
mod lanes;
#[cfg(unix)]
mod mailbox;
#[cfg(not(unix))]
mod none;
#[cfg(unix)]
mod readiness;
#[cfg(unix)]
mod socket;
#[cfg(unix)]
mod stream;
#[cfg(all(test, unix))]
mod tests;
#[cfg(unix)]
mod timers;
mod visit;

#[cfg(unix)]
pub(super) use drivers::{Drivers, Streams};
#[cfg(not(unix))]
pub(super) use none::{Drivers, Socket, Streams};
#[cfg(unix)]
pub(super) use socket::Socket;
pub(super) use visit::{Arrival, CLOSE_DISCARD_MAX, CLOSE_LINGER, Cut, Served, Visit};
