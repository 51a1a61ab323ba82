//! A client that comes back: it keeps its last event id over its connections, and what it got.

use std::io;

use mio::{Registry, Token, event::Event, net::TcpStream};

use downlink_proto::{Decoder, Item};

use super::{
    plan::Plan,
    record::{Carry, Scanner},
    response::Response,
    socket::{self, Failure, Ready},
    stalled::GAP,
};

/// What the types of the server's own events begin with.
const OWN: &str = "downlink.";

/// One of the clients.
#[derive(Debug)]
pub(super) struct Client {
    number: usize,
    connection: Option<Connection>,
    decoder: Decoder,
    /// How often each event came, by its number.
    got: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    unsent: Vec<u8>,
    response: Response,
}

/// What is odd over all clients.
#[derive(Debug)]
pub(super) struct Witness {
    run: u32,
    scanner: Scanner,
    pub(super) gaps: u64,
    pub(super) foreign: u64,
    pub(super) out_of_order: u64,
    /// The first answer that was none to a subscription.
    pub(super) problem: Option<String>,
}

impl Witness {
    pub(super) fn new(run: u32) -> Self {
        let scanner = Scanner::new();
        Self { run, scanner, gaps: 0, foreign: 0, out_of_order: 0, problem: None }
    }
}

impl Client {
    pub(super) fn new(number: usize) -> Self {
        Self { number, connection: None, decoder: Decoder::default(), got: Vec::new() }
    }

    /// Begins to connect, after the last id it has.
    pub(super) fn connect(&mut self, plan: &Plan, registry: &Registry) -> io::Result<()> {
        self.decoder.handle_end();
        let last = Some(self.decoder.last_event_id()).filter(|id| !id.is_empty());
        let unsent = plan.resume_request(self.number, last);
        let stream = socket::open(plan.subscribe_address, Token(self.number), registry)?;
        self.connection = Some(Connection { stream, unsent, response: Response::new() });
        Ok(())
    }

    /// Whether its stream was answered and lasts.
    pub(super) fn is_up(&self) -> bool {
        let head = self.connection.as_ref().and_then(|connection| connection.response.head());
        head.is_some_and(|head| head.status == 200 && head.is_event_stream)
    }

    /// The number of the newest event it has.
    pub(super) fn newest(&self) -> Option<u64> {
        (self.got.len() as u64).checked_sub(1)
    }

    /// How often this event came.
    pub(super) fn copies(&self, number: usize) -> u8 {
        self.got.get(number).copied().unwrap_or_default()
    }

    /// Whether an event came beyond those published, of which there were so many.
    pub(super) fn has_beyond(&self, published: usize) -> bool {
        self.got.len() > published
    }

    /// Writes and reads what can be; without a connection if that was its end.
    pub(super) fn ready(
        &mut self,
        event: &Event,
        registry: &Registry,
        buffer: &mut [u8],
        witness: &mut Witness,
    ) {
        let start = std::time::Instant::now();
        let mut ready = Ready { registry, event, buffer, start };
        let lasts = self.advance(&mut ready, witness).unwrap_or(false);
        let status = self.connection.as_ref().and_then(|one| one.response.head());
        if let Some(head) = status.filter(|head| head.status != 200) {
            witness.problem.get_or_insert(format!("answered with {}", head.status));
        }
        if !lasts {
            self.connection = None;
        }
        self.take_events(witness);
    }

    fn advance(&mut self, ready: &mut Ready<'_>, witness: &mut Witness) -> Result<bool, Failure> {
        let Some(connection) = &mut self.connection else { return Ok(false) };
        if let Some(error) = connection.stream.take_error()? {
            return Err(error.into());
        }
        if ready.event.is_writable() {
            socket::flush(&mut connection.stream, &mut connection.unsent)?;
        }
        if !ready.event.is_readable() {
            return Ok(true);
        }
        let Connection { stream, response, .. } = connection;
        let decoder = &mut self.decoder;
        let mut refused = None;
        let ended = socket::drain(stream, ready, |bytes| {
            response.feed(bytes, &mut |body| {
                if let Err(error) = decoder.handle_bytes(body) {
                    refused = Some(error);
                }
            })?;
            Ok(())
        })?;
        if let Some(error) = refused {
            witness.problem.get_or_insert(format!("a stream cannot be read: {error}"));
        }
        Ok(!ended && !connection.response.is_ended())
    }

    fn take_events(&mut self, witness: &mut Witness) {
        while let Some(item) = self.decoder.poll_item() {
            let Item::Event(event) = item else { continue };
            if event.event_type.starts_with(OWN) {
                witness.gaps += u64::from(event.event_type == GAP);
                continue;
            }
            let mut found = None;
            witness.scanner.scan(&mut Carry::default(), event.data.as_bytes(), |record| {
                found = Some(record);
            });
            match found.filter(|record| record.run == witness.run) {
                Some(record) => self.note(record.number, witness),
                None => witness.foreign += 1,
            }
        }
    }

    /// An event of the run has come.
    pub(super) fn note(&mut self, number: u64, witness: &mut Witness) {
        let at = number as usize;
        if at < self.got.len() {
            let copies = &mut self.got[at];
            witness.out_of_order += u64::from(*copies == 0);
            *copies = copies.saturating_add(1);
            return;
        }
        self.got.resize(at, 0);
        self.got.push(1);
    }
}
