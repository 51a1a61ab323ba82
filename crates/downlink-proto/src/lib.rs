//! Encodes and decodes Server-Sent Events, without I/O.
//!
//! To write a stream, encode each [`Event`] or comment as a [`Frame`], which holds the bytes to
//! send. To read a stream, give its bytes in chunks of any size to a [`Decoder`], which returns
//! [`Item`]s. The encoder and the decoder follow the section "Server-sent events" of the WHATWG
//! HTML standard. The module [`reconnect`] decides when a client connects again.
//!
//! ```
//! use downlink_proto::{Decoder, Event, EventId, EventType, Item};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let event = Event::new("first line\nsecond line")
//!     .event(EventType::from_static("note"))
//!     .id(EventId::new("42")?);
//! let frame = event.encode();
//! assert_eq!(
//!     frame.as_bytes(),
//!     b"event: note\nid: 42\ndata: first line\ndata: second line\n\n"
//! );
//!
//! let mut decoder = Decoder::default();
//! for chunk in frame.as_bytes().chunks(7) {
//!     decoder.handle_bytes(chunk)?;
//! }
//! let Some(Item::Event(read)) = decoder.poll_item() else { return Err("no event".into()) };
//! assert_eq!(read.event_type, "note");
//! assert_eq!(read.data, "first line\nsecond line");
//! assert_eq!(decoder.last_event_id(), "42");
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! - Readers cannot misread an event. [`EventType`] and [`EventId`] refuse line breaks, and the
//!   encoder writes each line of the data as a separate field. So no value can start another field
//!   or another event.
//! - The decoder returns the same items no matter how the stream is cut into chunks.
//! - Decoding fails only if a limit is exceeded. The decoder reads or ignores all other input as
//!   the standard says.
//!
//! This crate has no clock, no sockets, no async code and no HTTP.
//!
//! # Limits
//!
//! | limit | value |
//! |---|---|
//! | an event type, an event id | [`EVENT_TYPE_BYTES_MAX`], [`EVENT_ID_BYTES_MAX`] |
//! | the longest line to decode | [`LINE_BYTES_MAX_DEFAULT`], or the value in [`DecoderLimits`] |
//! | the largest event to decode | [`EVENT_BYTES_MAX_DEFAULT`], or the value in [`DecoderLimits`] |
//! | the data of an event to encode | no limit; the caller must limit it |
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `json` | [`Event::json`], [`Event::json_data`] and [`JsonError`] | yes |
//!
//! # Platforms
//!
//! The crate runs on every platform that has the standard library. The tests run on Linux.
#![doc = concat!("The minimum Rust version is ", env!("CARGO_PKG_RUST_VERSION"), ".")]
//!
//! # Guide
//!
//! The [guide](https://docs.rs/downlink/latest/downlink/guide/) is part of the crate `downlink`.
//! Its chapter 3 explains the fields of an event.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]
// Without the feature `json`, the table of features links to items that do not exist.
#![cfg_attr(not(feature = "json"), allow(rustdoc::broken_intra_doc_links))]

mod block;
mod decode;
mod event;
mod field;
mod frame;
mod item;
mod lines;
pub mod reconnect;
mod stamp;
mod text;

pub use decode::{
    DecodeError, Decoder, DecoderLimits, EVENT_BYTES_MAX_DEFAULT, LINE_BYTES_MAX_DEFAULT,
};
#[cfg(feature = "json")]
pub use event::JsonError;
pub use event::{Event, EventFields};
pub use field::{
    EVENT_ID_BYTES_MAX, EVENT_TYPE_BYTES_MAX, EventId, EventType, InvalidField, InvalidReason,
    Retry,
};
pub use frame::Frame;
pub use item::{DecodedEvent, Item};
pub use stamp::UnstampedFrame;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
