//! The direct path: streams that are served without hyper, many by one task.
//!
//! Once the head of an event stream is written, hyper contributes only buffers. So the connection
//! gives its socket and the response's body to a driver (see `handover`). The driver polls woken
//! bodies and writes their frames from where they are in memory. An idle stream is then its body
//! and a few words. The protocol between driver and bodies is in `http::driven`.
//!
//! Read in this order: `handed_over` (what a driver gets) → `stream` (one stream) → `chunk` (the
//! write) → `driver` (many streams) → `lanes` (their order), `timers`, `readiness`, `mailbox` (the
//! sources of wake-ups). Not here: the choice of the responses that are served directly, and
//! anything about HTTP but the chunks.

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
