//! A streamed publish whose body stays open.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    answer::Answer,
    patiently,
    request::{Place, Request},
};

/// A publish whose body is a stream of JSON lines, and stays open.
pub(crate) struct Upload(pub(crate) TcpStream);

impl Upload {
    pub(crate) async fn start(listener: &Place, token: &str, query: &str) -> Self {
        let Place::Tcp(address) = listener else { panic!("the listener is on TCP") };
        let mut io = TcpStream::connect(address).await.expect("the server listens");
        let request = Request::post(format!("/events?{query}"), "")
            .header("Content-Type", "application/x-ndjson")
            .header("Transfer-Encoding", "chunked")
            .bearer(token);
        io.write_all(request.text(listener, "").as_bytes()).await.expect("the connection is open");
        Self(io)
    }

    /// Sends one event.
    pub(crate) async fn send(&mut self, data: &str) {
        let chunk = format!("{:x}\r\n{data}\n\r\n", data.len() + 1);
        self.0.write_all(chunk.as_bytes()).await.expect("the connection is open");
    }

    /// Waits for the answer, without ending the body first.
    pub(crate) async fn answer(mut self) -> Answer {
        let mut answer = Vec::new();
        let read = patiently(self.0.read_to_end(&mut answer)).await;
        assert!(read.is_ok() || !answer.is_empty(), "{read:?}");
        Answer::parse(&String::from_utf8(answer).expect("UTF-8"))
    }
}
