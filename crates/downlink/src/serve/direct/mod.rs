//! The direct path: event streams that are served without hyper, many by one task.
//!
//! Once the head of an event stream is written, hyper only adds buffers. So the connection hands
//! its socket and the response's body over to a driver (see `handover`). The driver polls woken
//! bodies, and writes their frames without copying them into a buffer. An idle stream then needs
//! only the memory of its body and a few words. The protocol between driver and bodies is in
//! `http::driven`.
//!
//! Read the files in this order: `handed_over` (what a driver gets) → `stream` (one stream) →
//! `chunk` (the write) → `driver` (many streams) → `lanes` (their order), `timers`, `readiness`,
//! `mailbox` (the sources of wake-ups). The module `serve::handover` chooses the responses that are
//! served directly. Except for the chunks, nothing here deals with HTTP.

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
