//! Server-Sent Events for Rust web apps: typed events to browsers and programs.
//!
//! The crate for users: responses that stream events ([`http`]), a server that knows what an event
//! stream is ([`serve()`]), and the traits of web frameworks ([`adapters`]).

pub mod adapters;
#[cfg(doc)]
pub mod guide;
pub mod http;
pub mod hub;
mod json_text;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "json")]
pub use downlink_proto::JsonError;
pub use downlink_proto::{Event, EventFields, EventId, EventType, Frame, InvalidField, Retry};

pub use crate::http::{KeepAlive, LastEventId, Sse, SseSender};
pub use crate::hub::{
    Delivery, Gap, Hub, HubBuilder, PublishError, SubscribeError, SubscribeErrorKind, Subscription,
};
#[cfg(feature = "serve")]
pub use crate::serve::serve;
