//! Server-Sent Events for Rust web apps: live updates that lose nothing silently.
//!
//! A handler returns a response that streams events: a [`Subscription`] to a [`Hub`], or an [`Sse`]
//! over any stream. A client that reconnects gets exactly the events that it missed, or a notice
//! that says exactly which events are missing. Publishing never waits for a reader.
//!
//! # A hub
//!
//! A hub publishes values of your own type to topics, to one client or to everyone. It keeps a
//! bounded history for clients that reconnect. This is a complete app with chat rooms:
//!
//! ```
//! use axum::{Json, Router, extract::{Path, State}, routing::get};
//! use downlink::{Hub, LastEventId, PublishError, SubscribeError, Subscription};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Message {
//!     user: String,
//!     text: String,
//! }
//!
//! type Messages = State<Hub<Message>>;
//!
//! async fn join(
//!     State(hub): Messages,
//!     Path(room): Path<String>,
//!     last: LastEventId,
//! ) -> Result<Subscription<Message>, SubscribeError> {
//!     hub.subscribe().topic_segments(["rooms", &room]).resume(last).open().await
//! }
//!
//! async fn say(
//!     State(hub): Messages,
//!     Path(room): Path<String>,
//!     Json(message): Json<Message>,
//! ) -> Result<(), PublishError> {
//!     hub.to_segments(["rooms", &room]).publish(message)?;
//!     Ok(())
//! }
//!
//! fn app(hub: Hub<Message>) -> Router {
//!     Router::new().route("/rooms/{room}", get(join).post(say)).with_state(hub)
//! }
//! # use axum::{body::Body, http::Request};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let hub = Hub::json();
//! # let app = app(hub.clone());
//! # let request = Request::get("/rooms/lobby").body(Body::empty())?;
//! # let mut reader = downlink::testing::connect(&app, request).await;
//! # assert_eq!(reader.next_event().await.unwrap().event_type, "downlink.open");
//! # hub.to("rooms/lobby").publish(Message { user: "Ann".into(), text: "hello".into() })?;
//! # assert_eq!(reader.next_event().await.unwrap().data, r#"{"user":"Ann","text":"hello"}"#);
//! # Ok(())
//! # }
//! ```
//!
//! With `.start(Start::Last(20))` a newcomer first gets the newest 20 messages ([`hub::Start`]).
//! The builder from `Hub::<Message>::builder()` sets the retention (how much history the hub
//! keeps), the limits, and the store (a file that holds the history): see [`HubBuilder`].
//!
//! # A server
//!
//! [`serve()`] replaces `axum::serve`. An idle stream takes less than a kilobyte of the server's
//! memory. A shutdown does not wait for the streams: it ends each stream after a complete event,
//! and the clients reconnect at random times.
//!
//! ```no_run
//! # async fn doc(app: axum::Router) -> std::io::Result<()> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! downlink::serve(listener, app).with_graceful_shutdown(downlink::serve::stop_signal()?).await
//! # }
//! ```
//!
//! The responses also work with any other server that takes an `http_body::Body`: hyper, or
//! `axum::serve(..).with_graceful_shutdown(hub.drain_on(signal))`.
//!
//! # A stream of your own
//!
//! [`Sse::new`] sends the items of any stream. [`Sse::channel`] sends the events that a task puts
//! into a channel. For the methods that `axum::response::sse` also has, [`Sse`] and [`Event`] use
//! the same names.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use downlink::{Event, Sse};
//! use futures_util::{Stream, stream};
//!
//! async fn greet() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
//!     Sse::new(stream::iter([Ok(Event::new("hello")), Ok(Event::new("goodbye"))]))
//! }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! # assert_eq!(greet().await.into_http_response().status(), 200);
//! # }
//! ```
//!
//! # Guarantees
//!
//! - All subscriptions get their events in the same order. No subscription gets an event twice, and
//!   no client gets an event again after it has reconnected. A client that reconnects gets every
//!   event that it missed, if the event is still retained. If some of these events are no longer
//!   retained, the client first gets one [`Gap`], and then the later events.
//! - For a reader that stops reading, the hub keeps only the reader's position, which is one
//!   number. Such a reader holds up no publisher and no other reader.
//! - Every buffer, queue, count and wait has a named limit ([`hub::Limits`], [`serve::Serve`]).
//! - No text in an event can end the event early or begin another event. The types [`EventType`]
//!   and [`EventId`] refuse text with line breaks, because a line break would begin a new field.
//!
//! This crate contains no client (see the crate `downlink-client`) and no TLS.
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `axum` | the traits of axum 0.8: responses and extractors | yes |
//! | `json` | [`Hub::json`], [`Event::json`]: values that serde encodes | yes |
//! | `serve` | [`serve()`], for HTTP/1.1 and HTTP/2 | yes |
//! | `store` | `HubBuilder::store`: history in a SQLite file, which survives a crash | no |
//! | `access` | the module `access`: a layer that verifies keys, tokens and tickets, and streams that end when the rights of their subscriber end | no |
//! | `relay` | the module `relay`: a hub that follows another hub | no |
//! | `cluster` | the module `cluster`: a hub that is a node of a cluster (turns on `relay`) | no |
//! | `metrics` | the hub's numbers as OpenMetrics text | no |
//! | `testing` | the module `testing`: a reader for your tests, without a network | no |
//!
//! # Platforms
//!
//! The crate supports Linux, macOS and Windows. The tests run on Linux. The memory of an idle
//! stream in [`serve()`] is small only on Linux and macOS. On these systems, the server writes
//! streams without the HTTP library hyper and its buffers. Only the features `store` and
//! `access` need a C compiler.
#![doc = concat!("The minimum Rust version is ", env!("CARGO_PKG_RUST_VERSION"), ".")]
//!
//! # Guide
//!
//! The [`guide`] has chapters on the first endpoint, rooms, replay and gaps, filters, backpressure,
//! proxies, shutdown, testing, and the migration from `axum::response::sse` and
//! `tokio::sync::broadcast`.

#![cfg_attr(
    not(all(feature = "json", feature = "serve")),
    allow(rustdoc::broken_intra_doc_links, reason = "the front page links to items of features")
)]

#[cfg(feature = "access")]
pub mod access;
pub mod adapters;
#[cfg(doc)]
pub mod guide;
pub mod http;
pub mod hub;
mod json_text;
#[cfg(feature = "relay")]
pub mod relay;

#[cfg(feature = "cluster")]
pub mod cluster;
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
