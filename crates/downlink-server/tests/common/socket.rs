//! One connection of a reader: it requests an event stream, decodes it, and may end at any byte.

use std::{io, net::SocketAddr};

use downlink_proto::Decoder;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The maximum number of bytes of one read.
const READ_BYTES: usize = 16 << 10;

/// A connection that has requested an event stream.
#[derive(Debug)]
pub(crate) struct Connection {
    io: TcpStream,
    at: At,
}

/// The position of the next byte in the answer.
#[derive(Debug)]
enum At {
    Head(Vec<u8>),
    /// The next byte belongs to the line that contains the length of the next chunk. The value is
    /// the part of this line that was already read.
    Length(Vec<u8>),
    Chunk(usize),
    End,
    /// The server has refused the request.
    Refused(String),
}

/// The state of a connection after a read.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    Open,
    /// The server has ended the stream.
    Ended,
    Broken,
    /// The server has refused the request. This is the head of its answer.
    Refused(String),
}

impl Connection {
    /// Connects, and requests the stream with this query. An empty last event id is not sent.
    pub(crate) async fn ask(to: SocketAddr, query: &str, last: &str) -> io::Result<Self> {
        let mut io = TcpStream::connect(to).await?;
        let last =
            if last.is_empty() { String::new() } else { format!("Last-Event-ID: {last}\r\n") };
        let request = format!("GET /events?{query} HTTP/1.1\r\nHost: {to}\r\n{last}\r\n");
        io.write_all(request.as_bytes()).await?;
        Ok(Self { io, at: At::Head(Vec::new()) })
    }

    /// Reads at most `most` bytes, and gives the bytes of the body to the decoder. Returns the
    /// number of bytes.
    ///
    /// Dropping the future loses no bytes.
    pub(crate) async fn read(&mut self, most: usize, decoder: &mut Decoder) -> (usize, Progress) {
        let mut bytes = [0; READ_BYTES];
        let most = most.clamp(1, READ_BYTES);
        let read = self.io.read(&mut bytes[..most]).await.unwrap_or(0);
        if read == 0 {
            return (0, Progress::Broken);
        }
        let mut rest = &bytes[..read];
        while !rest.is_empty() {
            rest = self.take(rest, decoder);
        }
        let progress = match &self.at {
            At::End => Progress::Ended,
            At::Refused(head) => Progress::Refused(head.clone()),
            _ => Progress::Open,
        };
        (read, progress)
    }

    fn take<'a>(&mut self, bytes: &'a [u8], decoder: &mut Decoder) -> &'a [u8] {
        match &mut self.at {
            At::Head(head) => {
                head.push(bytes[0]);
                if head.ends_with(b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
                    let is_stream = head.starts_with("http/1.1 200 ")
                        && head.contains("\r\ntransfer-encoding: chunked\r\n");
                    self.at = if is_stream { At::Length(Vec::new()) } else { At::Refused(head) };
                }
                &bytes[1..]
            }
            At::Length(line) => {
                line.push(bytes[0]);
                // A line with only CRLF ends the previous chunk.
                if line.len() > 2 && line.ends_with(b"\r\n") {
                    let digits = std::str::from_utf8(line).expect("ASCII").trim();
                    let length = usize::from_str_radix(digits, 16).expect("the length of a chunk");
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
                decoder.handle_bytes(body).expect("the stream is within the decoder's limits");
                rest
            }
            At::End | At::Refused(_) => &[],
        }
    }
}
