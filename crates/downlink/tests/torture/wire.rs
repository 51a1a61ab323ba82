//! One connection of a reader. It sends a request, parses the HTTP/1.1 framing, and can end at any
//! byte.
//!
//! A read never takes more bytes than its caller allows. So the reader can disconnect at any byte:
//! in the head of the answer, in the length of a chunk, or in the middle of an event.

use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;

use downlink_proto::Decoder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
#[cfg(unix)]
use tokio::net::UnixStream;

/// The maximum number of bytes of one read.
const READ_BYTES: usize = 16 << 10;

/// The address of a server.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(PathBuf),
}

/// The peer's end of a connection.
pub(crate) trait Io: AsyncRead + AsyncWrite + std::fmt::Debug + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + std::fmt::Debug + Unpin + Send> Io for T {}

impl Place {
    /// Removes the file of a Unix socket, because the server does not remove it.
    pub(crate) fn remove(&self) {
        #[cfg(unix)]
        if let Self::Unix(path) = self {
            std::fs::remove_file(path).unwrap();
        }
    }

    /// Connects. The size of the receive window applies only to TCP.
    pub(crate) async fn connect(&self, window_bytes: Option<u32>) -> io::Result<Box<dyn Io>> {
        Ok(match self {
            Self::Tcp(address) => {
                let socket = TcpSocket::new_v4()?;
                if let Some(bytes) = window_bytes {
                    socket.set_recv_buffer_size(bytes)?;
                }
                Box::new(socket.connect(*address).await?)
            }
            #[cfg(unix)]
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

/// The way in which a reader requests a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// The reader sends a single GET request.
    Plain,
    /// The reader sends a GET request, and then another request before the stream has ended.
    Pipelined,
    /// The reader sends a POST request, but only the beginning of its body. The app does not read
    /// the body.
    Posted,
    /// The reader sends a GET request after an ordinary request on the same connection.
    AfterPlain,
    /// The reader sends a GET request after a stream that has ended on the same connection.
    AfterStream,
}

impl Manner {
    pub(crate) const ALL: [Self; 5] =
        [Self::Plain, Self::Pipelined, Self::Posted, Self::AfterPlain, Self::AfterStream];
}

/// A connection that has requested a stream.
#[derive(Debug)]
pub(crate) struct Connection {
    io: Box<dyn Io>,
    at: At,
    /// The last two bytes of the body so far. After a complete frame, both are line feeds.
    tail: [u8; 2],
}

/// The position of the next byte in a chunked response.
#[derive(Debug)]
enum At {
    Head(Vec<u8>),
    /// The next byte is in the line with the length of a chunk. The value is the part of the line
    /// that has arrived.
    Length(Vec<u8>),
    Chunk(usize),
    /// The last chunk has arrived.
    End,
    /// The head has arrived, and its status is 503.
    Refused,
}

/// The state of a connection after a read.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Turn {
    Open,
    /// The server ended the stream as HTTP requires, after a complete frame.
    Ended,
    /// The connection broke, or the stream never began.
    Broken,
}

impl Connection {
    /// Connects and requests a stream. Slow and stalled readers use a small receive window.
    pub(crate) async fn ask(
        place: &Place,
        query: &str,
        last_event_id: &str,
        window_bytes: Option<u32>,
        manner: Manner,
    ) -> io::Result<Self> {
        let mut io = place.connect(window_bytes).await?;
        match manner {
            Manner::AfterPlain => exchange(&mut io, "GET", "/plain", b"\r\n\r\nplain").await?,
            Manner::AfterStream => exchange(&mut io, "GET", "/finite", b"\r\n0\r\n\r\n").await?,
            _ => {}
        }
        let method = if matches!(manner, Manner::Posted) { "POST" } else { "GET" };
        let mut request = format!("{method} /?{query} HTTP/1.1\r\nHost: test\r\n");
        if !last_event_id.is_empty() {
            request.push_str(&format!("Last-Event-ID: {last_event_id}\r\n"));
        }
        request.push_str(match manner {
            Manner::Posted => "Content-Length: 100000\r\n\r\nthe beginning",
            Manner::Pipelined => "\r\nGET /plain HTTP/1.1\r\nHost: test\r\n\r\n",
            _ => "\r\n",
        });
        io.write_all(request.as_bytes()).await?;
        Ok(Self { io, at: At::Head(Vec::new()), tail: *b"\n\n" })
    }

    /// Reads at most `most` bytes from the connection. Returns the number of bytes read, and the
    /// state of the connection.
    ///
    /// If the future is dropped, no byte is lost.
    pub(crate) async fn read(&mut self, most: usize, decoder: &mut Decoder) -> (usize, Turn) {
        let mut bytes = [0; READ_BYTES];
        let most = most.clamp(1, READ_BYTES);
        let read = self.io.read(&mut bytes[..most]).await.unwrap_or(0);
        if read == 0 {
            return (0, Turn::Broken);
        }
        let mut rest = &bytes[..read];
        while !rest.is_empty() {
            rest = self.take(rest, decoder);
        }
        let turn = match self.at {
            At::End => Turn::Ended,
            At::Refused => Turn::Broken,
            _ => Turn::Open,
        };
        assert!(turn != Turn::Ended || self.is_between_frames(), "the stream ended within a frame");
        (read, turn)
    }

    /// Whether the stream has begun.
    pub(crate) fn has_begun(&self) -> bool {
        matches!(self.at, At::Length(_) | At::Chunk(_) | At::End)
    }

    /// Whether the body that has arrived so far ends with a complete frame.
    pub(crate) fn is_between_frames(&self) -> bool {
        matches!(self.at, At::Length(_) | At::Chunk(_) | At::End) && &self.tail == b"\n\n"
    }

    fn take<'a>(&mut self, bytes: &'a [u8], decoder: &mut Decoder) -> &'a [u8] {
        match &mut self.at {
            At::Head(head) => {
                head.push(bytes[0]);
                if head.ends_with(b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
                    self.at = after(&head);
                }
                &bytes[1..]
            }
            At::Length(line) => {
                line.push(bytes[0]);
                // A line that contains only CRLF ends the previous chunk, and is not a length.
                if line.len() > 2 && line.ends_with(b"\r\n") {
                    let digits = std::str::from_utf8(line).unwrap().trim();
                    let length =
                        usize::from_str_radix(digits, 16).expect("the line is a chunk's length");
                    self.at = if length == 0 { At::End } else { At::Chunk(length) };
                }
                &bytes[1..]
            }
            At::Chunk(left) => {
                let (body, rest) = bytes.split_at(bytes.len().min(*left));
                *left -= body.len();
                if *left == 0 {
                    self.at = At::Length(Vec::new());
                }
                decoder.handle_bytes(body).expect("the chunk is within the decoder's limits");
                for byte in &body[body.len().saturating_sub(self.tail.len())..] {
                    self.tail = [self.tail[1], *byte];
                }
                rest
            }
            At::End | At::Refused => &[],
        }
    }
}

/// Sends a request and reads an answer that ends with `end`.
pub(crate) async fn exchange(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    method: &str,
    path: &str,
    end: &[u8],
) -> io::Result<()> {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    io.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(end) {
        answer.push(io.read_u8().await?);
    }
    assert!(answer.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// The position that follows the head of a response.
fn after(head: &str) -> At {
    if head.starts_with("http/1.1 503 ") {
        assert!(head.contains("\r\nretry-after: "), "{head}");
        return At::Refused;
    }
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
    At::Length(Vec::new())
}
