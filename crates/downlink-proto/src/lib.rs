//! The event stream of Server-Sent Events, without input and output.
//!
//! One direction makes bytes: an [`Event`] (or a comment) becomes a [`Frame`], the bytes of one
//! block including the blank line that ends it. The other direction reads them: a [`Decoder`] is
//! fed chunks of any size and hands out [`Item`]s. Both follow the section "Server-sent events" of
//! the WHATWG HTML standard.
//!
//! What holds here:
//!
//! - An event that a reader could misread cannot be built. [`EventType`] and [`EventId`] are
//!   checked, and data is split into lines, so no content yields a second event.
//! - What the decoder finds does not depend on how the bytes were cut into chunks.
//! - Decoding fails on a limit only; every other deviation is ignored as the standard says.
//!
//! When a reader connects again is decided in [`reconnect`]. Deliberately not here: a clock,
//! sockets, async, HTTP.
//!
//! ```
//! use downlink_proto::{Decoder, Event, EventId, EventType, Item};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let event = Event::new("first line\nsecond line")
//!     .with_type(EventType::new("note")?)
//!     .with_id(EventId::new("42")?);
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
//! | feature | adds | default |
//! |---|---|---|
//! | `json` | [`Event::json`] and [`JsonError`] | yes |

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]
// Without the feature the table above names two items that do not exist.
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
pub use event::Event;
#[cfg(feature = "json")]
pub use event::JsonError;
pub use field::{
    EVENT_ID_BYTES_MAX, EVENT_TYPE_BYTES_MAX, EventId, EventType, InvalidField, InvalidReason,
    Retry,
};
pub use frame::Frame;
pub use item::{DecodedEvent, Item};
pub use stamp::UnstampedFrame;
