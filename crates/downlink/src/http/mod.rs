//! Event streams as HTTP responses, for any server that takes an `http_body::Body`.
//!
//! [`Sse`] is a response under construction: over any stream of events ([`Sse::new`]), over a
//! channel ([`Sse::channel`]) or over any [`FrameSource`]. Its body, [`SseBody`], sends its first
//! bytes at once, gathers what is ready into one write, keeps an idle connection alive, and ends
//! at a frame boundary. No task is spawned: the source lives in the body, and dropping the body,
//! which every server does when the peer leaves, is the end of both.
//!
//! Not here: hubs, sockets, accepting connections.
//!
//! # Limits
//!
//! A body holds at most one batch ([`BATCH_BYTES_MAX`], [`BATCH_FRAMES_MAX`]) and one frame that
//! did not fit into it; a channel holds as many events as it was made for, at most
//! [`CHANNEL_EVENTS_MAX`]; a [`LastEventId`] is read up to [`LAST_EVENT_ID_BYTES_MAX`].

mod batch;
mod body;
mod channel;
mod clock;
mod keep_alive;
mod last_event_id;
mod moment;
mod problem;
mod refuse;
mod source;
mod spread;
mod sse;
mod turn;

pub use batch::{BATCH_BYTES_MAX, BATCH_FRAMES_MAX};
pub use body::{BodyError, SourceError, SseBody};
#[cfg(feature = "json")]
pub use channel::SendJsonError;
pub use channel::{CHANNEL_EVENTS_MAX, Channel, SendError, SseSender, TrySendError};
pub use clock::Expiry;
pub use keep_alive::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_INTERVAL_MIN, KeepAlive};
#[cfg(feature = "serve")]
pub(crate) use last_event_id::is_browser;
pub use last_event_id::{LAST_EVENT_ID_BYTES_MAX, LastEventId};
#[cfg(feature = "serve")]
pub(crate) use moment::{Moment, Now};
pub use problem::Problem;
pub use refuse::refuse;
pub use source::{AnyError, Fallible, FrameSource, Frames, Plain, StreamItem};
pub use spread::Spread;
#[cfg(feature = "serve")]
pub(crate) use sse::is_event_stream;
pub use sse::{Finite, Sse};
#[cfg(all(test, feature = "serve", unix))]
pub(crate) use turn::wake_at;
#[cfg(feature = "serve")]
pub(crate) use turn::{Asked, begin_turns, in_turn};
pub(crate) use turn::{be_woken, take_lane, time_of_day};
