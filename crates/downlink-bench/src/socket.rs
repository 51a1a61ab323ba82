//! Sockets that never wait: opening, writing what fits, reading what is there.

use std::{
    fmt,
    io::{self, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::Instant,
};

use mio::{Interest, Registry, Token, event::Event, net::TcpStream};

use super::response::BadResponse;

/// That a connection is ready, and what it needs to make use of it.
#[derive(Debug)]
pub(super) struct Ready<'a> {
    pub(super) registry: &'a Registry,
    pub(super) event: &'a Event,
    pub(super) buffer: &'a mut [u8],
    pub(super) start: Instant,
}

/// Nanoseconds since the start of a run: enough for 500 years.
pub(super) fn nanos_since(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64
}

/// Connects and registers for both directions; the request is written when the connection is there.
pub(super) fn open(
    address: SocketAddr,
    token: Token,
    registry: &Registry,
) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(stream)
}

/// Writes what the socket takes, and leaves the rest.
pub(super) fn flush(stream: &mut TcpStream, unsent: &mut Vec<u8>) -> io::Result<()> {
    while !unsent.is_empty() {
        match stream.write(unsent) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => drop(unsent.drain(..written)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until the socket is empty and passes on each piece. True: the peer has ended its side.
pub(super) fn drain(
    stream: &mut TcpStream,
    ready: &mut Ready<'_>,
    mut piece: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    loop {
        match stream.read(ready.buffer) {
            Ok(0) => return Ok(true),
            Ok(read) => {
                piece(&ready.buffer[..read])?;
                if read < ready.buffer.len() && !ready.event.is_read_closed() {
                    return Ok(false);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum Failure {
    Socket(io::Error),
    Response(BadResponse),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<BadResponse> for Failure {
    fn from(error: BadResponse) -> Self {
        Self::Response(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => error.fmt(f),
            Self::Response(error) => error.fmt(f),
        }
    }
}
