//! Runs the tests on foreign sockets. The server does not know the type of these sockets, so hyper
//! (the HTTP library) writes their streams.

use super::wire::{Foreign as Here, Wire};
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
