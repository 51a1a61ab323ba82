//! A connection that publishes: one request at a time, kept alive.

use std::{io, mem};

use mio::{Registry, Token};

use super::{
    books::Place,
    connection::{Connection, ConnectionError, Read, Ready},
    plan::Plan,
};

/// One of the publishing connections.
#[derive(Debug)]
pub(super) struct Publisher {
    connection: Connection,
    state: State,
    /// The newest failure, until the load takes it.
    pub(super) failure: Option<Failure>,
    /// Acknowledged events, until the load takes them.
    pub(super) acknowledged: usize,
}

#[derive(Debug)]
enum State {
    Connecting,
    Idle,
    /// The request with these events is not answered yet.
    Waiting(Vec<Place>),
    Broken,
}

/// A request or a connection that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// The events of the request.
    pub(super) places: Vec<Place>,
    pub(super) reason: String,
}

impl Publisher {
    /// Begins to connect.
    pub(super) fn open(plan: &Plan, token: Token, registry: &Registry) -> io::Result<Self> {
        let connection = Connection::open(plan.publish_address, Vec::new(), token, registry)?;
        Ok(Self { connection, state: State::Connecting, failure: None, acknowledged: 0 })
    }

    /// Whether it can send a request now.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether a request is not answered yet.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting(_))
    }

    /// Whether it has to be opened again.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken)
    }

    /// Sends the request that publishes these events.
    pub(super) fn send(&mut self, places: Vec<Place>, request: Vec<u8>) {
        self.state = State::Waiting(places);
        if let Err(error) = self.connection.send(request) {
            self.fail(format!("publishing failed: {error}"), true);
        }
    }

    /// Writes and reads as far as the socket is ready.
    pub(super) fn advance(&mut self, mut ready: Ready<'_>) {
        if let Err(error) = self.exchange(&mut ready) {
            self.fail(format!("publishing failed: {error}"), true);
        }
    }

    fn exchange(&mut self, ready: &mut Ready<'_>) -> Result<(), ConnectionError> {
        if matches!(self.state, State::Connecting) {
            self.connection.check()?;
            if ready.writable {
                self.state = State::Idle;
            }
        }
        self.connection.write(ready)?;
        if !ready.readable {
            return Ok(());
        }
        let read = loop {
            match self.connection.read(ready, |_, _| ())? {
                Read::More => {}
                read => break read,
            }
        };
        self.take_answer(read == Read::Closed);
        Ok(())
    }

    fn take_answer(&mut self, is_closed: bool) {
        let State::Waiting(places) = &self.state else {
            // Some servers explain the end of an idle connection with a response (408).
            if is_closed {
                self.state = State::Broken;
            }
            return;
        };
        let head = self
            .connection
            .response
            .head()
            .filter(|_| is_closed || self.connection.response.is_ended());
        match head {
            Some(head) if (200..300).contains(&head.status) => {
                self.acknowledged += places.len();
                self.state = if head.closes || is_closed { State::Broken } else { State::Idle };
            }
            Some(head) => {
                let reason = format!("publishing was answered with {}", head.status);
                self.fail(reason, head.closes || is_closed);
            }
            None if is_closed => self.fail("publishing got no answer".to_owned(), true),
            None => {}
        }
    }

    /// Notes a failure. An idle connection may end without one.
    fn fail(&mut self, reason: String, is_broken: bool) {
        let next = if is_broken { State::Broken } else { State::Idle };
        let places = match mem::replace(&mut self.state, next) {
            State::Waiting(places) => places,
            State::Connecting => Vec::new(),
            State::Idle | State::Broken => return,
        };
        self.failure = Some(Failure { places, reason });
    }
}
