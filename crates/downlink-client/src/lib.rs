//! An `EventSource` and a publisher for Rust programs.
//!
//! [`EventSource`] subscribes to any address that sends Server-Sent Events, and stays subscribed.
//! After an interruption, it reconnects and resumes after the last event id. It reports missed
//! events if the server reports them. [`Publisher`] publishes to a downlink server.
//!
//! ```
//! use downlink_client::{Delivery, EventSource};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! struct Order {
//!     number: u64,
//! }
//!
//! # use tokio::{io::{AsyncReadExt, AsyncWriteExt}, net::TcpListener};
//! # const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\
//! #     event: paid\ndata: {\"number\":7}\n\n";
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let listener = TcpListener::bind("127.0.0.1:0").await?;
//! # let url = format!("http://{}/events?topic=orders", listener.local_addr()?);
//! # let server = tokio::spawn(async move {
//! #     let (mut socket, _) = listener.accept().await?;
//! #     socket.read(&mut [0; 1_024]).await?;
//! #     socket.write_all(STREAM).await?;
//! #     Ok::<_, std::io::Error>(socket)
//! # });
//! let mut source = EventSource::builder(url).bearer_token("secret").build()?;
//! while let Some(delivery) = source.next().await {
//!     match delivery {
//!         Delivery::Event(event) => {
//!             assert_eq!(event.event_type, "paid");
//!             assert_eq!(event.json::<Order>()?.number, 7);
//!             source.close();
//!         }
//!         Delivery::Gap(gap) => println!("events were missed: {:?}", gap.reason),
//!         Delivery::Error(interruption) => println!("{}", interruption.error),
//!         _ => {}
//!     }
//! }
//! println!("the end: {:?}", source.closed_because());
//! # server.await??;
//! # Ok(())
//! # }
//! ```
//!
//! # Several servers
//!
//! If several servers send the same events with the same ids, give the event source all their
//! addresses with [`EventSourceBuilder::add_url`]. If a server fails, the event source goes on at
//! the next one, and resumes there after the last event. A [`Publisher`] has only one address,
//! because a second server would not recognize the repeat of an event that the first server has
//! already published.
//!
//! # Guarantees
//!
//! - [`EventSource`] delivers every interruption, and every gap that the server reports, as a
//!   [`Delivery`]. An event source that has ended never connects again.
//! - Every wait has a limit, with two exceptions: the wait for the next bytes of a server that
//!   announces no keep-alive interval (see [`EventSourceBuilder::idle_timeout`]), and
//!   [`Publisher::publish_stream`], which may take hours.
//! - There is no background task. An [`EventSource`] makes progress only when it is polled.
//!   Dropping it closes its socket.
//! - Debug output and errors do not show credentials. They omit the values of the headers that the
//!   client sends, and the query and the user name of an address. An [`EventDataError`] may quote
//!   the start of an event's data.
//!
//! This crate has no server. The crate `downlink` has a server.
//!
//! # Limits
//!
//! | limit | default |
//! |---|---|
//! | the longest line and the largest event | those of [`DecoderLimits`] |
//! | the longest last event id that the client sends | [`LAST_EVENT_ID_BYTES_MAX`] |
//! | the largest answer to a publish | [`ANSWER_BYTES_MAX`] |
//! | the redirects in one attempt | [`REDIRECTS_MAX`] |
//! | the wait for a connection | [`CONNECT_TIMEOUT_DEFAULT`] |
//! | the wait for the head of a stream | [`FIRST_BYTE_TIMEOUT_DEFAULT`] |
//! | the wait for the answer to a publish | [`PUBLISH_TIMEOUT_DEFAULT`] |
//! | the wait before a reconnect | that of [`ReconnectPolicy`] |
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `rustls` | `https` addresses, with the certificates that the system trusts | no |
//!
//! # Platforms
//!
//! The crate supports all platforms of [tokio](https://docs.rs/tokio). The tests run on Linux. Unix
//! sockets work only on Unix.
#![doc = concat!("The minimum Rust version is ", env!("CARGO_PKG_RUST_VERSION"), ".")]
//!
//! # Guide
//!
//! The [guide](https://docs.rs/downlink/latest/downlink/guide/) is part of the crate `downlink`.
//! Its chapter 9 explains gaps and resuming.

#![forbid(unsafe_code)]

mod answer;
mod builder;
mod credentials;
mod delivery;
mod error;
mod event;
mod gap;
mod head;
mod problem;
mod publish_request;
mod publisher;
mod renewal;
mod request;
mod source;

pub use answer::{PublishError, Receipt, StreamReceipt};
pub use builder::{CONNECT_TIMEOUT_DEFAULT, EventSourceBuilder, REDIRECTS_MAX};
pub use credentials::Credentials;
pub use delivery::{Delivery, Interruption, Opened};
pub use downlink_proto::{
    DecodeError, DecoderLimits,
    reconnect::{
        EMPTY_STREAM_MAX, RECONNECTION_TIME_MIN, ReconnectMode, ReconnectPolicy, URLS_MAX,
    },
};
pub use error::{BuildError, Closed, CredentialsError, StreamError, TransportError};
pub use event::{ERROR_EXCERPT_BYTES_MAX, EventDataError, ReceivedEvent};
pub use gap::{Gap, GapReason};
pub use problem::{ANSWER_BYTES_MAX, Problem};
pub use publish_request::{PublishRequest, StreamFormat, StreamIds, StreamTypes};
pub use publisher::{PUBLISH_TIMEOUT_DEFAULT, Publisher};
pub use request::{
    FIRST_BYTE_TIMEOUT_DEFAULT, FIRST_BYTE_TIMEOUT_SEVERAL_DEFAULT, LAST_EVENT_ID_BYTES_MAX,
};
pub use source::{EventSource, IDLE_TIMEOUT_LEARNED_MIN, ReadyState};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
