//! A connection that subscribes: request, head, then records until the end of the run.

use std::io;

use mio::{Interest, Registry, Token, net::TcpStream};

use super::{
    books::Reading,
    plan::Plan,
    record::Carry,
    response::Response,
    socket::{self, Ready, nanos_since},
    tally::Seen,
};

/// One of the connections.
#[derive(Debug)]
pub(super) struct Subscriber {
    topic: usize,
    token: Token,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not up yet: connecting, sending the request, or waiting for the head.
    Asking {
        stream: TcpStream,
        unsent: Vec<u8>,
        response: Response,
    },
    Up(Up),
    Over,
}

#[derive(Debug)]
struct Up {
    stream: TcpStream,
    response: Response,
    carry: Carry,
    seen: Seen,
}

impl Subscriber {
    /// Begins to connect.
    pub(super) fn open(plan: &Plan, number: usize, registry: &Registry) -> io::Result<Self> {
        let token = Token(number);
        let stream = socket::open(plan.subscribe_address, token, registry)?;
        let unsent = plan.subscribe_request(number);
        let state = State::Asking { stream, unsent, response: Response::new() };
        Ok(Self { topic: number % plan.topics, token, state })
    }

    /// Whether it is decided that this connection is up, or will not be.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(self.state, State::Asking { .. })
    }

    /// Writes and reads what can be. Fails once, with the reason, when the connection is over.
    pub(super) fn ready(&mut self, ready: Ready<'_>, reading: &mut Reading) -> Result<(), String> {
        let step = match &mut self.state {
            State::Asking { .. } => self.ask(ready, reading),
            State::Up(up) => up.read(ready, self.topic, reading),
            State::Over => return Ok(()),
        };
        if step.is_err() {
            if matches!(self.state, State::Up(_)) {
                reading.books.down(self.topic);
            }
            self.state = State::Over;
        }
        step
    }

    /// Sends the request and reads the head.
    fn ask(&mut self, mut ready: Ready<'_>, reading: &mut Reading) -> Result<(), String> {
        let State::Asking { stream, unsent, response } = &mut self.state else { return Ok(()) };
        let said = |error: io::Error| format!("a subscription failed: {error}");
        if let Some(error) = stream.take_error().map_err(said)? {
            return Err(said(error));
        }
        if !unsent.is_empty() && ready.event.is_writable() {
            socket::flush(stream, unsent).map_err(said)?;
            if unsent.is_empty() {
                let interest = Interest::READABLE;
                ready.registry.reregister(stream, self.token, interest).map_err(said)?;
            }
        }
        if !ready.event.is_readable() {
            return Ok(());
        }
        // Nothing is published before all are up, so no record can be in here.
        let ended =
            socket::drain(stream, &mut ready, |bytes| Ok(response.feed(bytes, &mut |_| ())?));
        let ended = ended.map_err(|error| format!("a subscription failed: {error}"))?;
        let Some(head) = response.head() else {
            return if ended { Err("a subscription got no answer".to_owned()) } else { Ok(()) };
        };
        if head.status != 200 || !head.is_event_stream {
            let what = if head.is_event_stream { "an" } else { "no" };
            let status = head.status;
            return Err(format!(
                "a subscription was answered with {status} and {what} event stream"
            ));
        }
        if ended || response.is_ended() {
            return Err("a subscription was ended at once".to_owned());
        }
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Asking { stream, response, .. } => {
                let seen = reading.books.up(self.topic);
                State::Up(Up { stream, response, carry: Carry::default(), seen })
            }
            other => other,
        };
        Ok(())
    }
}

impl Up {
    fn read(
        &mut self,
        mut ready: Ready<'_>,
        topic: usize,
        reading: &mut Reading,
    ) -> Result<(), String> {
        let Self { stream, response, carry, seen } = self;
        let start = ready.start;
        let ended = socket::drain(stream, &mut ready, |bytes| {
            let now_ns = nanos_since(start);
            let Reading { books, scanner } = &mut *reading;
            let mut any = false;
            response.feed(bytes, &mut |body| {
                scanner.scan(carry, body, |record| {
                    books.deliver(seen, topic, record, now_ns);
                    any = true;
                });
            })?;
            if any {
                books.read(now_ns);
            }
            Ok(())
        });
        match ended {
            Ok(false) if !response.is_ended() => Ok(()),
            Ok(_) => Err("the server ended a subscription".to_owned()),
            Err(failure) => Err(format!("a subscription broke: {failure}")),
        }
    }
}
