//! Server-Sent Events for Rust web apps: live updates that lose nothing silently.
//!
//! A handler returns a response that streams: a [`Subscription`] to a [`Hub`], or an [`Sse`] over
//! any stream of your own. A client that comes back gets exactly the events that it missed, or a
//! notice of exactly which events are missing. Publishing never waits for a reader.
//!
//! # A hub
//!
//! A hub takes your own type, publishes to topics, to one client or to everyone, and keeps a bounded
//! history for clients that come back. These are chat rooms, whole:
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
//! `Hub::<Message>::builder()` sets the retention, the limits and the store ([`HubBuilder`]).
//!
//! # A server
//!
//! [`serve()`] takes the place of `axum::serve`. An idle stream costs it less than a kilobyte. A
//! shutdown ends the streams, in order and spread over time, instead of waiting for them.
//!
//! ```no_run
//! # async fn doc(app: axum::Router) -> std::io::Result<()> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! downlink::serve(listener, app).with_graceful_shutdown(tokio::signal::ctrl_c()).await
//! # }
//! ```
//!
//! The responses work under any other server that takes an `http_body::Body`: hyper, or
//! `axum::serve(..).with_graceful_shutdown(hub.drain_on(signal))`.
//!
//! # A stream of your own
//!
//! [`Sse::new`] streams the items of any stream, and [`Sse::channel`] the events that a task sends.
//! The names are those of `axum::response::sse`.
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
//! - Every subscription gets its events in one order, each at most once. A reconnect neither loses
//!   nor repeats an event that is still retained. If events are gone, the reader gets one [`Gap`]
//!   before any later event.
//! - A reader that stops reading costs one number. It holds up no publisher and no other reader.
//! - Every buffer, queue, count and wait has a limit with a name ([`hub::Limits`],
//!   [`serve::Serve`]).
//! - No content of an event yields a second event: [`EventType`] and [`EventId`] are checked.
//!
//! Not here: the client side (the crate `downlink-client`), credentials, TLS.
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `axum` | the traits of axum 0.8: responses and extractors | yes |
//! | `json` | [`Hub::json`], [`Event::json`]: values with serde | yes |
//! | `serve` | [`serve()`], for HTTP/1.1 and HTTP/2 | yes |
//! | `store` | `HubBuilder::store`: history in a SQLite file, which survives a crash | no |
//! | `metrics` | the hub's figures as OpenMetrics text | no |
//! | `testing` | the module `testing`: a reader for your tests, without a network | no |
//!
//! # Platforms
//!
//! Linux, macOS and Windows; the tests run on Linux. The direct path of [`serve()`], which makes an
//! idle stream small, needs Linux or macOS. Only the feature `store` needs a C compiler.
#![doc = concat!("The minimum Rust version is ", env!("CARGO_PKG_RUST_VERSION"), ".")]
//!
//! # Guide
//!
//! The [`guide`] has a chapter for each question: first endpoint, rooms, replay and gaps, filters,
//! backpressure, proxies, shutdown, testing, and the ways from `axum::response::sse` and
//! `tokio::sync::broadcast`.

#![cfg_attr(
    not(all(feature = "json", feature = "serve")),
    allow(rustdoc::broken_intra_doc_links, reason = "the front page links to items of features")
)]

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
