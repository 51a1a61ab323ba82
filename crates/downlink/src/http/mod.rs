//! Event streams as HTTP responses, for any server that takes an `http_body::Body`.
//!
//! [`Sse`] builds a response from a stream of events or another [`FrameSource`] ([`Sse::new`]), or
//! from a channel ([`Sse::channel`]). The body of the response is an [`SseBody`]. It sends its
//! first bytes at once. It joins the frames (encoded events) that are ready into one write. On an
//! idle connection, it sends keep-alives. It ends only after a complete frame.
//!
//! The body spawns no task, and owns the source of its frames. When the peer leaves, the server
//! drops the body and with it the source.
//!
//! This module contains no hub, opens no socket and accepts no connection.
//!
//! # Limits
//!
//! A body holds at most one batch ([`BATCH_BYTES_MAX`], [`BATCH_FRAMES_MAX`]) and one frame that
//! did not fit into the batch. A channel holds at most as many events as its capacity allows. The
//! capacity is at most [`CHANNEL_EVENTS_MAX`]. A [`LastEventId`] is cut to
//! [`LAST_EVENT_ID_BYTES_MAX`].

mod batch;
mod body;
mod channel;
mod clock;
#[cfg_attr(not(all(feature = "serve", unix)), allow(dead_code, reason = "there are no drivers"))]
pub(crate) mod driven;
mod keep_alive;
mod last_event_id;
#[cfg_attr(not(all(feature = "serve", unix)), allow(dead_code, reason = "there are no drivers"))]
pub(crate) mod moment;
mod problem;
mod refuse;
mod source;
mod spread;
mod sse;
#[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "only `serve` sees a stall"))]
pub(crate) mod stalled;

pub use batch::{BATCH_BYTES_MAX, BATCH_FRAMES_MAX};
pub use body::{BodyError, SseBody};
#[cfg(feature = "json")]
pub use channel::SendJsonError;
pub use channel::{CHANNEL_EVENTS_MAX, Channel, SendError, SseSender, TrySendError};
pub use clock::Expiry;
pub use keep_alive::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_INTERVAL_MIN, KeepAlive};
#[cfg(feature = "serve")]
pub(crate) use last_event_id::is_browser;
#[cfg(feature = "access")]
pub(crate) use last_event_id::is_event_source;
pub use last_event_id::{LAST_EVENT_ID_BYTES_MAX, LastEventId};
#[cfg(all(feature = "serve", unix))]
pub(crate) use moment::{Moment, Now};
pub use problem::Problem;
pub use refuse::{refuse, too_many_requests};
pub use source::{AnyError, FrameSource, StreamItem};
pub use spread::Spread;
#[cfg(feature = "serve")]
pub(crate) use sse::is_event_stream;
pub use sse::{Finite, Sse};
