//! A connection that sends a request, and reads the response as its bytes arrive. Only
//! [`HttpConnection::open_unregistered`] blocks: it waits until it is connected. No other call
//! blocks.
//!
//! All connections of the load tool have this type. The owner of a connection decides when to read.
//! A connection may be registered with the poll, which watches many sockets and reports those that
//! are ready. The owner of a registered connection reads when the poll reports the connection. The
//! owner of a connection that is not registered reads whenever it has time.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{self, SocketAddr},
    time::Instant,
};

use mio::{Interest, Registry, Token, event::Event, net::TcpStream};
use thiserror::Error;

use super::response::{BadResponse, HttpResponse};

/// Why a connection has ended.
#[derive(Debug, Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    HttpResponse(#[from] BadResponse),
}

/// One connection, with its newest request and the response to it.
#[derive(Debug)]
pub(super) struct HttpConnection {
    stream: TcpStream,
    unsent: Vec<u8>,
    pub(super) response: HttpResponse,
}

/// The directions (reading, writing) in which a connection is ready, and the buffer to read into.
#[derive(Debug)]
pub(super) struct Ready<'a> {
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// True if the peer may have closed its side. The owner must then read until it finds the end,
    /// even if a read has not filled the buffer.
    closed: bool,
    buffer: &'a mut [u8],
    start: Instant,
}

impl<'a> Ready<'a> {
    /// The directions that the poll reported. `start` is the start of the run.
    pub(super) fn from_event(event: &Event, buffer: &'a mut [u8], start: Instant) -> Self {
        let (readable, writable) = (event.is_readable(), event.is_writable());
        Self { readable, writable, closed: event.is_read_closed(), buffer, start }
    }

    /// Both directions, for a connection that is not registered with the poll. The owner has to
    /// read or write to find out whether the connection is ready.
    pub(super) fn unregistered(buffer: &'a mut [u8]) -> Self {
        Self { readable: true, writable: true, closed: true, buffer, start: Instant::now() }
    }
}

/// The outcome of one read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ReadOutcome {
    /// The socket had no bytes to read.
    Empty,
    /// The socket may have more bytes.
    More,
    /// Bytes were read, and the socket is empty now.
    Drained,
    /// The peer has closed its side.
    Closed,
}

/// Nanoseconds since the start of a run. 64 bits are enough for 500 years.
pub(super) fn nanos_since(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64
}

impl HttpConnection {
    /// Begins to connect, and registers the connection for reading and writing.
    pub(super) fn open(
        address: SocketAddr,
        request: Vec<u8>,
        token: Token,
        registry: &Registry,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, unsent: request, response: HttpResponse::new() })
    }

    /// Connects without registering the connection. Blocks until the connection is made.
    pub(super) fn open_unregistered(address: SocketAddr, request: Vec<u8>) -> io::Result<Self> {
        let stream = net::TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream);
        Ok(Self { stream, unsent: request, response: HttpResponse::new() })
    }

    /// Returns the error if connecting has failed.
    pub(super) fn check(&self) -> io::Result<()> {
        self.stream.take_error()?.map_or(Ok(()), Err)
    }

    /// Begins to send the next request.
    pub(super) fn send(&mut self, request: Vec<u8>) -> io::Result<()> {
        (self.unsent, self.response) = (request, HttpResponse::new());
        self.flush()
    }

    /// Writes as much of the remaining request as the socket takes.
    pub(super) fn write(&mut self, ready: &Ready<'_>) -> io::Result<()> {
        if self.unsent.is_empty() || !ready.writable {
            return Ok(());
        }
        self.check()?;
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once. Calls `body` with each piece of the response's body and the time of the read.
    pub(super) fn read(
        &mut self,
        ready: &mut Ready<'_>,
        mut body: impl FnMut(&[u8], u64),
    ) -> Result<ReadOutcome, ConnectionError> {
        let read = match self.stream.read(ready.buffer) {
            Ok(0) => return Ok(ReadOutcome::Closed),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(ReadOutcome::Empty),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(ReadOutcome::More),
            Err(error) => return Err(error.into()),
        };
        let now_ns = nanos_since(ready.start);
        self.response.feed(&ready.buffer[..read], &mut |bytes| body(bytes, now_ns))?;
        let is_full = read == ready.buffer.len() || ready.closed;
        Ok(if is_full { ReadOutcome::More } else { ReadOutcome::Drained })
    }
}
