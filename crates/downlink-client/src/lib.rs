//! An `EventSource` and a publisher for Rust programs.
//!
//! [`EventSource`] subscribes to any Server-Sent Events address and stays subscribed. It
//! reconnects, resumes after the last event id, and reports missed events. [`Publisher`] publishes
//! to a downlink server.
//!
//! Guarantees:
//!
//! - The reader gets every interruption, and every gap that the server reports, as a value. The end
//!   of the stream is final.
//! - Every wait has a limit. The one exception is the wait for a peer that announces no keep-alive
//!   interval (see [`EventSourceBuilder::idle_timeout`]).
//! - There is no background task. An [`EventSource`] makes progress only when it is polled, and
//!   dropping it closes its socket.
//!
//! Deliberately not here: the server side.
//!
//! ```no_run
//! use downlink_client::{Delivery, EventSource};
//!
//! # async fn example() -> Result<(), downlink_client::BuildError> {
//! let mut source = EventSource::builder("http://127.0.0.1:8080/events?topic=orders").build()?;
//! while let Some(delivery) = source.next().await {
//!     match delivery {
//!         Delivery::Event(event) => println!("{}: {}", event.event_type, event.data),
//!         Delivery::Gap(gap) => println!("events were missed: {:?}", gap.reason),
//!         _ => {}
//!     }
//! }
//! println!("over: {:?}", source.closed_because());
//! # Ok(())
//! # }
//! ```
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `rustls` | `https` addresses, with the certificates the system trusts | no |

#![forbid(unsafe_code)]

mod answer;
mod builder;
mod delivery;
mod error;
mod gap;
mod head;
mod problem;
mod publish_request;
mod publisher;
mod request;
mod source;

pub use answer::{PublishError, Receipt, StreamReceipt};
pub use builder::{BuildError, CONNECT_TIMEOUT_DEFAULT, EventSourceBuilder, REDIRECTS_MAX};
pub use delivery::{Delivery, Interruption, Opened};
pub use downlink_proto::{
    DecodeError, DecodedEvent, DecoderLimits,
    reconnect::{EMPTY_STREAM_MAX, RECONNECTION_TIME_MIN, ReconnectMode, ReconnectPolicy},
};
pub use error::{Closed, CredentialsError, StreamError, TransportError};
pub use gap::{Gap, GapReason};
pub use problem::{ANSWER_BYTES_MAX, Problem};
pub use publish_request::{PublishRequest, StreamFormat, StreamIds, StreamTypes};
pub use publisher::{PUBLISH_TIMEOUT_DEFAULT, Publisher};
pub use request::{FIRST_BYTE_TIMEOUT_DEFAULT, LAST_EVENT_ID_BYTES_MAX};
pub use source::{EventSource, IDLE_TIMEOUT_LEARNED_MIN, ReadyState};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
