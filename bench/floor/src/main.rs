//! The floor: a server that only writes each event to all sockets in a loop, and a log that only
//! appends events to a file in a loop. The floor shows the lowest possible cost of fan-out and of a
//! durable log. Use it only to compare measurements with it.
//!
//! `bench-floor serve [ADDR:PORT]` accepts subscribers with a GET and publishes with a POST. It
//! formats each event once, and then writes it to one socket after the other. It has no topics, no
//! history and no async code. If the socket of a subscriber is full, the server closes it.
//! `bench-floor append FILE EVENTS BYTES SECONDS` runs the log, which is in `append`.

mod append;

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// The maximum size of a body. It is the default limit of the project's server.
const BODY_BYTES_MAX: u64 = 1 << 20;
/// The maximum size of a head.
const HEAD_BYTES_MAX: u64 = 16 << 10;

/// The size of one read. A whole request of the load generator fits into it.
const HEAD_READ_BYTES: usize = 1 << 10;

const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
    Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n";

type Subscribers = Arc<Mutex<Vec<TcpStream>>>;

const USAGE: &str = "usage: bench-floor serve [ADDR:PORT] | append FILE EVENTS BYTES SECONDS";

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words {
        ["serve"] => listen("127.0.0.1:8080"),
        ["serve", address] => listen(address),
        ["append", file, events, bytes, seconds] => {
            let number = |word: &str| word.parse::<u64>().map_err(io::Error::other);
            let (events, event_bytes) = (number(events)?, number(bytes)?);
            let plan = append::Appending { events, event_bytes, seconds: number(seconds)? };
            let report = append::run(Path::new(file), &plan)?;
            writeln!(io::stdout(), "{report}")
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, USAGE)),
    }
}

fn listen(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    writeln!(io::stdout(), "floor at http://{}", listener.local_addr()?)?;
    let subscribers = Subscribers::default();
    for stream in listener.incoming() {
        let (stream, subscribers) = (stream?, subscribers.clone());
        // Each connection has a thread, so a peer that sends its request slowly delays no other
        // peer. The thread of a subscriber ends when it has read the head of the request.
        thread::spawn(move || {
            if let Err(error) = serve(stream, &subscribers) {
                // If stderr is closed, the message is lost.
                let _ = writeln!(io::stderr(), "a connection failed: {error}");
            }
        });
    }
    Ok(())
}

/// Reads the first head of a connection. Adds a subscriber to the list, or publishes the events of
/// a publisher until it leaves.
fn serve(stream: TcpStream, subscribers: &Subscribers) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(HEAD_READ_BYTES, stream);
    let Some(head) = read_head(&mut reader)? else { return Ok(()) };
    if head.is_publish {
        return publish_all(reader, head, subscribers);
    }
    let mut stream = reader.into_inner();
    stream.write_all(STREAM_HEAD)?;
    stream.set_nonblocking(true)?;
    lock(subscribers).push(stream);
    Ok(())
}

/// Publishes one request after the other, until the publisher leaves.
fn publish_all(
    mut reader: BufReader<TcpStream>,
    head: Head,
    subscribers: &Subscribers,
) -> io::Result<()> {
    let mut next = Some(head);
    while let Some(head) = next {
        publish(&mut reader, &head, subscribers)?;
        next = read_head(&mut reader)?;
    }
    Ok(())
}

fn publish(
    reader: &mut BufReader<TcpStream>,
    head: &Head,
    subscribers: &Subscribers,
) -> io::Result<()> {
    if head.length > BODY_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = Vec::new();
    reader.by_ref().take(head.length).read_to_end(&mut body)?;
    let is_line = !body.contains(&b'\n') && !body.contains(&b'\r');
    if is_line {
        let frame = frame(&body);
        // If a socket does not take the whole event at once, its subscriber has got an incomplete
        // event. So the socket is closed.
        lock(subscribers)
            .retain_mut(|stream| stream.write(&frame).is_ok_and(|written| written == frame.len()));
    }
    let status = if is_line { "200 OK" } else { "400 Bad Request" };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    reader.get_mut().write_all(answer.as_bytes())
}

/// An event with this data, as one chunk of a chunked response.
fn frame(data: &[u8]) -> Vec<u8> {
    let mut frame = format!("{:x}\r\ndata: ", data.len() + "data: \n\n".len()).into_bytes();
    frame.extend_from_slice(data);
    frame.extend_from_slice(b"\n\n\r\n");
    frame
}

struct Head {
    is_publish: bool,
    length: u64,
}

/// Reads the next head. `None` if the peer has left.
fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Head>> {
    let mut lines = reader.take(HEAD_BYTES_MAX);
    let mut head: Option<Head> = None;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        match &mut head {
            None => head = Some(Head { is_publish: line.starts_with("POST "), length: 0 }),
            Some(_) if line.is_empty() => return Ok(head),
            Some(head) => {
                let named = line.split_once(':');
                if let Some((name, value)) = named
                    && name.eq_ignore_ascii_case("content-length")
                {
                    head.length = value.trim().parse().unwrap_or(u64::MAX);
                }
            }
        }
    }
}

/// Locks the list. The lock may be poisoned, because the thread of a publisher has panicked. The
/// list is intact even then.
fn lock(subscribers: &Subscribers) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
    subscribers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_one_chunk() {
        assert_eq!(frame(b"hello"), b"d\r\ndata: hello\n\n\r\n");
    }
}
