//! The direct path: event streams that are served without hyper, many of them by one task.
//!
//! After hyper (the HTTP library) has written the head of an event stream, its buffers are no
//! longer needed but still occupy memory. So the connection drops hyper, and hands its socket and
//! the response's body over to a driver (see `handover`). A driver is a task that polls the bodies
//! of many streams when they are woken, and writes their frames to the sockets itself. An idle
//! stream then needs only the memory of its body and a few machine words. `http::driven` describes
//! the protocol between drivers and bodies.
//!
//! Read the files in this order: `handed_over` (the values that a driver gets) → `stream` (one
//! stream) → `chunk` (the write) → `driver` (many streams) → `lanes` (the order of the streams) →
//! `timers`, `readiness` and `mailbox` (the sources of wake-ups). The module `serve::handover`
//! chooses the responses that are served directly. Only `chunk` deals with HTTP.

mod chunk;
mod driver;
mod handed_over;
mod lanes;
mod mailbox;
mod readiness;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod timers;

pub(super) use driver::start;
pub(super) use handed_over::{Arrival, ConnectionFuture, HandedOver, PolledBytes};
pub(super) use mailbox::DirectStreams;
pub(super) use socket::Socket;
