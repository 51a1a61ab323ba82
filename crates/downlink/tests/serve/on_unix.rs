//! Runs the tests on Unix sockets. The server writes their streams itself.

use super::wire::{Unix as Here, Wire};
use super::{Answer, DropSignal, body_of, goodbye_in, patiently};

type Running = super::Running<Here>;
type Client = super::Client<<Here as Wire>::Io>;

#[path = "drain.rs"]
mod drain;
#[path = "limits.rs"]
mod limits;
#[path = "mixed.rs"]
mod mixed;
#[path = "peers.rs"]
mod peers;
#[path = "requests.rs"]
mod requests;
#[path = "stall.rs"]
mod stall;
