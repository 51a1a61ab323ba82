//! An `EventSource` and a publisher for Rust programs.
//!
//! [`EventSource`] subscribes to any Server-Sent Events address and stays subscribed: it
//! reconnects, resumes after the last event id, and says so when events were missed. [`Publisher`]
//! publishes to a downlink server.
//!
//! What holds here:
//!
//! - A reader learns of every interruption and of every gap that the server reports, as values.
//!   The end of the stream is final.
//! - Every wait has a limit, except the wait for a peer that never said how often it speaks (see
//!   [`EventSourceBuilder::idle_timeout`]).
//! - No background task: an [`EventSource`] moves only when it is polled, and dropping it closes
//!   its socket.
//!
//! Deliberately not here: anything of the server side.
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
mod publish_request;
mod publisher;
mod request;
mod source;

pub use answer::{ANSWER_BYTES_MAX, Problem, PublishError, Receipt, StreamReceipt};
pub use builder::{BuildError, CONNECT_TIMEOUT_DEFAULT, EventSourceBuilder, REDIRECTS_MAX};
pub use delivery::{Delivery, Interruption, Opened};
pub use downlink_proto::{
    DecodeError, DecodedEvent, DecoderLimits,
    reconnect::{ReconnectMode, ReconnectPolicy},
};
pub use error::{Closed, CredentialsError, StreamError, TransportError};
pub use gap::{Gap, GapReason};
pub use publish_request::{PublishRequest, StreamFormat};
pub use publisher::{PUBLISH_TIMEOUT_DEFAULT, Publisher};
pub use request::{FIRST_BYTE_TIMEOUT_DEFAULT, LAST_EVENT_ID_BYTES_MAX};
pub use source::{EventSource, IDLE_TIMEOUT_LEARNED_MIN, ReadyState};
