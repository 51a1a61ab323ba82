//! A connection that publishes: one request at a time, kept alive.

use std::io;

use mio::{Registry, Token, net::TcpStream};

use super::{
    books::Place,
    plan::Plan,
    response::Response,
    socket::{self, Failure, Ready},
};

/// One of the publishing connections.
#[derive(Debug)]
pub(super) struct Publisher {
    stream: TcpStream,
    unsent: Vec<u8>,
    state: State,
    failure: Option<Failed>,
    /// Events acknowledged since last asked.
    acknowledged: usize,
}

#[derive(Debug)]
enum State {
    Connecting,
    Idle,
    /// The answer to the request with these events is awaited.
    Waiting {
        places: Vec<Place>,
        response: Response,
    },
    Broken,
}

/// A request, or a connection, that came to nothing.
#[derive(Debug)]
pub(super) struct Failed {
    /// The events that are not published, if it was about any.
    pub(super) places: Vec<Place>,
    pub(super) why: String,
}

impl Publisher {
    /// Begins to connect.
    pub(super) fn open(plan: &Plan, token: Token, registry: &Registry) -> io::Result<Self> {
        let stream = socket::open(plan.publish_address, token, registry)?;
        let (unsent, failure, acknowledged) = (Vec::new(), None, 0);
        Ok(Self { stream, unsent, state: State::Connecting, failure, acknowledged })
    }

    /// Whether it can send a request now.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether an answer is awaited.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Whether it has to be opened again.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.state, State::Broken)
    }

    /// What failed since the last call.
    pub(super) fn take_failure(&mut self) -> Option<Failed> {
        self.failure.take()
    }

    /// The events of requests that were answered well since the last call.
    pub(super) fn take_acknowledged(&mut self) -> usize {
        std::mem::take(&mut self.acknowledged)
    }

    /// Sends the request that publishes these events.
    pub(super) fn send(&mut self, places: Vec<Place>, request: Vec<u8>) {
        self.unsent = request;
        self.state = State::Waiting { places, response: Response::new() };
        if let Err(error) = socket::flush(&mut self.stream, &mut self.unsent) {
            self.fail(format!("publishing failed: {error}"), true);
        }
    }

    /// Writes and reads what can be.
    pub(super) fn ready(&mut self, mut ready: Ready<'_>) {
        if let Err(failure) = self.advance(&mut ready) {
            self.fail(format!("publishing failed: {failure}"), true);
        }
    }

    fn advance(&mut self, ready: &mut Ready<'_>) -> Result<(), Failure> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error.into());
        }
        if ready.event.is_writable() {
            if matches!(self.state, State::Connecting) {
                self.state = State::Idle;
            }
            socket::flush(&mut self.stream, &mut self.unsent)?;
        }
        if !ready.event.is_readable() {
            return Ok(());
        }
        let state = &mut self.state;
        let ended = socket::drain(&mut self.stream, ready, |bytes| match state {
            State::Waiting { response, .. } => Ok(response.feed(bytes, &mut |_| ())?),
            // Some servers say why they end an idle connection (408).
            _ => Ok(()),
        })?;
        self.look_at_answer(ended);
        Ok(())
    }

    fn look_at_answer(&mut self, ended: bool) {
        let State::Waiting { response, places } = &self.state else {
            if ended {
                self.state = State::Broken;
            }
            return;
        };
        let head = response.head().filter(|_| response.is_ended() || ended);
        match head {
            Some(head) if (200..300).contains(&head.status) => {
                self.acknowledged += places.len();
                self.state = if head.closes || ended { State::Broken } else { State::Idle };
            }
            Some(head) => {
                let why = format!("publishing was answered with {}", head.status);
                self.fail(why, head.closes || ended);
            }
            None if ended => self.fail("publishing got no answer".to_owned(), true),
            None => {}
        }
    }

    /// Notes a failure; a connection that was idle may end without one.
    fn fail(&mut self, why: String, is_broken: bool) {
        let next = if is_broken { State::Broken } else { State::Idle };
        let places = match std::mem::replace(&mut self.state, next) {
            State::Waiting { places, .. } => places,
            State::Connecting => Vec::new(),
            State::Idle | State::Broken => return,
        };
        self.failure = Some(Failed { places, why });
    }
}
