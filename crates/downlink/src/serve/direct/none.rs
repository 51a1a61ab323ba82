//! Where the direct path is not available: no socket can be handed over, so every stream stays with
//! hyper.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

use super::visit::{Arrival, Served};
use crate::serve::connection::Shared;

/// There is none.
#[derive(Debug)]
pub(in crate::serve) struct Socket(Infallible);

impl Socket {
    pub(in crate::serve) fn from_io<Io>(_io: Io) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::serve) fn into_io<Io>(self) -> io::Result<Io> {
        match self.0 {}
    }
}

/// No drivers.
#[derive(Debug)]
pub(in crate::serve) struct Drivers;

impl Drivers {
    pub(in crate::serve) fn of<Io>() -> Self {
        Self
    }

    pub(in crate::serve) fn streams(&self) -> Streams {
        Streams
    }

    pub(in crate::serve) fn start(
        &mut self,
        _tasks: &mut JoinSet<()>,
        _shared: &Arc<Shared>,
        _served_on: &UnboundedSender<Served>,
    ) {
    }
}

/// Nowhere to send streams.
#[derive(Debug)]
pub(in crate::serve) struct Streams;

impl Streams {
    pub(in crate::serve) fn are_taken(&self) -> bool {
        false
    }

    pub(in crate::serve) fn push(&self, arrival: Arrival) {
        match arrival.socket.0 {}
    }

    pub(in crate::serve) fn len(&self) -> usize {
        0
    }

    pub(in crate::serve) async fn all_ended(&self) {}
}
