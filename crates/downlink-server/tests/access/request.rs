//! Sends one request over a TCP or Unix socket, and reads the answer.

use std::{net::SocketAddr, path::PathBuf};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use crate::{answer::Answer, patiently};

/// The address of a listener.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A connection of either kind.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

impl Place {
    /// The value of the header `Host` in ordinary requests.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    async fn connect(&self) -> Box<dyn Connection> {
        match self {
            Self::Tcp(address) => {
                Box::new(TcpStream::connect(address).await.expect("the server listens"))
            }
            Self::Unix(path) => {
                Box::new(UnixStream::connect(path).await.expect("the server listens"))
            }
        }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    /// The path with the query.
    pub(crate) target: String,
    /// The headers, besides `Host`, `Connection` and `Content-Length`.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// `None` stands for the host of the listener.
    pub(crate) host: Option<String>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn new(method: &'static str, target: impl Into<String>) -> Self {
        let (headers, body) = (Vec::new(), String::new());
        Self { method, target: target.into(), headers, host: None, body }
    }

    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: impl Into<String>, body: impl Into<String>) -> Self {
        Self { body: body.into(), ..Self::new("POST", target) }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds a key or a token.
    pub(crate) fn bearer(self, credential: &str) -> Self {
        self.header("Authorization", format!("Bearer {credential}"))
    }

    /// Adds the headers by which the server recognizes a browser.
    pub(crate) fn of_browser(self) -> Self {
        self.header("Accept", "text/event-stream")
            .header("Sec-Fetch-Mode", "cors")
            .header("Sec-Fetch-Site", "same-origin")
    }

    pub(crate) fn host(self, host: impl Into<String>) -> Self {
        Self { host: Some(host.into()), ..self }
    }

    /// The bytes of the request, with these further headers.
    pub(crate) fn text(&self, place: &Place, more: &str) -> String {
        let Self { method, target, headers, host, body } = self;
        let host = host.clone().unwrap_or_else(|| place.host());
        let headers: String =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}{more}\r\n{body}")
    }

    /// Sends the request, and reads the answer. If the answer is an event stream, this function
    /// reads only its head.
    pub(crate) async fn ask(&self, place: &Place) -> Answer {
        let more = format!("Connection: close\r\nContent-Length: {}\r\n", self.body.len());
        let text = self.text(place, &more);
        patiently(async {
            let mut connection = place.connect().await;
            // The server may answer before it has read the whole request.
            let _ = connection.write_all(text.as_bytes()).await;
            let mut read = Vec::new();
            loop {
                let is_open = connection.read_buf(&mut read).await.is_ok_and(|bytes| bytes > 0);
                if !is_open {
                    let read = String::from_utf8(read).expect("UTF-8");
                    return Answer::parse(&read);
                }
                if let Some(head) = head_of_a_stream(&read) {
                    return Answer::parse(&format!("{head}\r\n\r\n0\r\n\r\n"));
                }
            }
        })
        .await
    }
}

/// The head of the answer, if it has arrived and its body is an event stream.
fn head_of_a_stream(read: &[u8]) -> Option<&str> {
    let end = read.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&read[..end]).expect("ASCII");
    let lower = head.to_ascii_lowercase();
    let streams = ["text/event-stream", "application/vnd.downlink.feed"];
    let is_stream = |media_type| lower.contains(&format!("content-type: {media_type}"));
    streams.into_iter().any(is_stream).then_some(head)
}

impl Answer {
    /// The status, and the code if the answer is a problem with a code.
    pub(crate) fn outcome(&self) -> String {
        let problem: Option<serde_json::Value> = serde_json::from_str(&self.body).ok();
        let code = problem.and_then(|problem| Some(problem.get("code")?.as_str()?.to_owned()));
        match code {
            Some(code) => format!("{} {code}", self.status),
            None => self.status.to_string(),
        }
    }
}
