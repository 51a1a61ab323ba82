//! Reads an event stream from a socket.

use downlink_proto::{DecodedEvent, Decoder, Item};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{answer::status_of, patiently};

/// An open event stream.
pub(crate) struct Stream {
    io: TcpStream,
    /// The head of the answer in lower case.
    pub(crate) head: String,
    /// The part of the body that has arrived, without the lengths and line ends of HTTP chunks.
    pub(crate) body: String,
    /// Bytes that have arrived but are only a part of a head or of a chunk.
    rest: Vec<u8>,
    decoder: Decoder,
    over: bool,
    /// The last reconnection time that has arrived, in milliseconds.
    pub(crate) retry: Option<u64>,
}

impl Stream {
    /// Reads the head of an answer and returns the stream of its body.
    pub(crate) async fn begin(io: TcpStream) -> Self {
        let mut stream = Self {
            io,
            head: String::new(),
            body: String::new(),
            rest: Vec::new(),
            decoder: Decoder::default(),
            over: false,
            retry: None,
        };
        loop {
            let end = stream.rest.windows(4).position(|window| window == b"\r\n\r\n");
            if let Some(end) = end {
                let head: Vec<u8> = stream.rest.drain(..end + 4).collect();
                stream.head = String::from_utf8(head).expect("ASCII").to_ascii_lowercase();
                stream.take_chunks();
                return stream;
            }
            assert!(stream.read().await, "no head: {:?}", String::from_utf8_lossy(&stream.rest));
        }
    }

    pub(crate) fn status(&self) -> u16 {
        status_of(&self.head)
    }

    /// Reads the next event. Returns `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<DecodedEvent> {
        loop {
            while let Some(item) = self.decoder.poll_item() {
                match item {
                    Item::Event(event) => return Some(event),
                    Item::Retry(retry) => self.retry = Some(retry.as_millis()),
                    _ => {}
                }
            }
            if self.over || !self.read().await {
                return None;
            }
            self.take_chunks();
        }
    }

    /// Reads up to the next comment. Panics if an event arrives first.
    pub(crate) async fn comment(&mut self) {
        loop {
            match self.decoder.poll_item() {
                Some(Item::Comment(_)) => return,
                Some(Item::Event(event)) => panic!("an event: {event:?}"),
                Some(_) => {}
                None => {
                    assert!(!self.over && self.read().await, "the stream has ended");
                    self.take_chunks();
                }
            }
        }
    }

    /// Reads the next event and returns its data.
    #[track_caller]
    pub(crate) fn data(&mut self) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let event = self.next().await;
            event.unwrap_or_else(|| panic!("the stream has ended at {caller}")).data
        }
    }

    /// Reads the next event, which must be a `downlink.gap`, and returns its data.
    pub(crate) async fn gap(&mut self) -> Value {
        let event = self.next().await.expect("an event");
        assert_eq!(event.event_type, "downlink.gap");
        serde_json::from_str(&event.data).expect("JSON")
    }

    /// The last event id. A client that reconnected now would send it.
    pub(crate) fn last_event_id(&self) -> String {
        self.decoder.last_event_id().to_owned()
    }

    /// Reads to the end of the stream and returns the data of all events. Panics if the connection
    /// breaks before the end of the body.
    pub(crate) async fn rest(mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(event) = self.next().await {
            rest.push(event.data);
        }
        assert!(self.over, "the body is incomplete");
        rest
    }

    /// Writes bytes to the server over the connection of the stream.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.expect("the connection is open");
    }

    async fn read(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        let read = patiently(self.io.read(&mut bytes)).await.unwrap_or(0);
        self.rest.extend_from_slice(&bytes[..read]);
        read > 0
    }

    fn take_chunks(&mut self) {
        if !self.head.contains("transfer-encoding: chunked\r\n") {
            self.take_plain();
            return;
        }
        while let Some(line) = self.rest.windows(2).position(|window| window == b"\r\n") {
            let size = std::str::from_utf8(&self.rest[..line]).expect("ASCII");
            let size = usize::from_str_radix(size, 16).expect("a hexadecimal number");
            if self.rest.len() < line + 2 + size + 2 {
                return;
            }
            let chunk: Vec<u8> = self.rest.drain(..line + 2 + size + 2).skip(line + 2).collect();
            self.over = size == 0;
            self.take(&chunk[..size]);
            if self.over {
                return;
            }
        }
    }

    /// Takes the arrived bytes of a body that is not chunked.
    fn take_plain(&mut self) {
        let bytes = std::mem::take(&mut self.rest);
        self.take(&bytes);
        let length = format!("content-length: {}\r\n", self.body.len());
        self.over = self.head.contains(&length);
    }

    fn take(&mut self, bytes: &[u8]) {
        self.decoder.handle_bytes(bytes).expect("the stream stays within the limits");
        self.body.push_str(std::str::from_utf8(bytes).expect("whole characters"));
    }
}
