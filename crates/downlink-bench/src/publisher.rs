//! A connection that publishes. It sends a request, waits for the answer, and then sends the next
//! request over the same connection.

use std::{io, mem};

use mio::{Registry, Token};

use super::{
    books::TopicPosition,
    connection::{ConnectionError, HttpConnection, ReadOutcome, Ready},
    plan::Plan,
};

/// A connection that publishes.
#[derive(Debug)]
pub(super) struct PublisherConnection {
    connection: HttpConnection,
    state: PublisherState,
    /// The newest failure. The module `load` takes it out of this field.
    pub(super) failure: Option<Failure>,
    /// The acknowledged events that the module `load` has not yet taken out of this field.
    pub(super) acknowledged: Vec<TopicPosition>,
}

#[derive(Debug)]
enum PublisherState {
    Connecting,
    Idle,
    /// The server has not answered the request with these events yet.
    Waiting(Vec<TopicPosition>),
    Broken,
}

/// A request or a connection that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// The events of the request.
    pub(super) places: Vec<TopicPosition>,
    pub(super) reason: String,
}

impl PublisherConnection {
    /// Begins to connect.
    pub(super) fn open(plan: &Plan, token: Token, registry: &Registry) -> io::Result<Self> {
        let connection = HttpConnection::open(plan.publish_address, Vec::new(), token, registry)?;
        let (state, acknowledged) = (PublisherState::Connecting, Vec::new());
        Ok(Self { connection, state, failure: None, acknowledged })
    }

    /// True if the connection can send a request now.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, PublisherState::Idle)
    }

    /// True if a request is not answered yet.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, PublisherState::Waiting(_))
    }

    /// True if the connection has to be opened again.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.state, PublisherState::Broken)
    }

    /// Sends the request that publishes these events.
    pub(super) fn send(&mut self, places: Vec<TopicPosition>, request: Vec<u8>) {
        self.state = PublisherState::Waiting(places);
        if let Err(error) = self.connection.send(request) {
            self.fail(format!("publishing failed: {error}"), true);
        }
    }

    /// Writes and reads in the directions in which the socket is ready.
    pub(super) fn advance(&mut self, mut ready: Ready<'_>) {
        if let Err(error) = self.exchange(&mut ready) {
            self.fail(format!("publishing failed: {error}"), true);
        }
    }

    fn exchange(&mut self, ready: &mut Ready<'_>) -> Result<(), ConnectionError> {
        if matches!(self.state, PublisherState::Connecting) {
            self.connection.check()?;
            if ready.writable {
                self.state = PublisherState::Idle;
            }
        }
        self.connection.write(ready)?;
        if !ready.readable {
            return Ok(());
        }
        let read = loop {
            match self.connection.read(ready, |_, _| ())? {
                ReadOutcome::More => {}
                read => break read,
            }
        };
        self.take_answer(read == ReadOutcome::Closed);
        Ok(())
    }

    fn take_answer(&mut self, is_closed: bool) {
        let PublisherState::Waiting(places) = &mut self.state else {
            // Some servers send a response (408) before they close an idle connection. This
            // response answers no request, so it is ignored.
            if is_closed {
                self.state = PublisherState::Broken;
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
                self.acknowledged.append(places);
                self.state = if head.closes || is_closed {
                    PublisherState::Broken
                } else {
                    PublisherState::Idle
                };
            }
            Some(head) => {
                let reason = format!("publishing was answered with {}", head.status);
                self.fail(reason, head.closes || is_closed);
            }
            None if is_closed => self.fail("publishing got no answer".to_owned(), true),
            None => {}
        }
    }

    /// Records a failure. The end of an idle connection is not a failure.
    fn fail(&mut self, reason: String, is_broken: bool) {
        let next = if is_broken { PublisherState::Broken } else { PublisherState::Idle };
        let places = match mem::replace(&mut self.state, next) {
            PublisherState::Waiting(places) => places,
            PublisherState::Connecting => Vec::new(),
            PublisherState::Idle | PublisherState::Broken => return,
        };
        self.failure = Some(Failure { places, reason });
    }
}
