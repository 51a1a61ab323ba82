//! Access control for your own app: who sends a request, what the request may do, and streams that
//! end when their rights end. This module needs the feature `access`.
//!
//! The crate [`downlink-access`](downlink_access) verifies keys, tokens and tickets, and turns them
//! into a [`Grant`](downlink_access::Grant). This module connects it with HTTP and with the hub:
//!
//! - [`AccessLayer`] verifies the credentials of each request, and refuses those that are not
//!   accepted. It inserts a [`Caller`] into the extensions of the request.
//! - [`Caller`] is the sender of a request. With the feature `axum`, it is an extractor. Its methods
//!   check its rights.
//! - [`Subscribe::open_as`](crate::hub::Subscribe::open_as) opens a subscription for a caller, and
//!   makes the response. The stream ends at the end of the grant, and when its rights are taken
//!   away. [`Caller::stream`] does the same for a subscription with frames of your own.
//! - [`Refusal`] is the response to a request that is not allowed.
//!
//! The app decides which keys exist ([`AccessOptions`](downlink_access::AccessOptions)), keeps the
//! revocations, and fetches key sets. Use one [`Access`](downlink_access::Access) for each hub. CORS
//! headers are not part of this module: put a CORS layer around the [`AccessLayer`], so that pages
//! can read its refusals.
//!
//! # Memory
//!
//! A stream with a grant takes 40 bytes more than a stream without, and 24 bytes more if the grant
//! has an end. A stream with a ticket takes about 35 further bytes in a table, which finds the older
//! stream of the ticket.
//!
//! # Examples
//!
//! The app publishes with a key, and issues a ticket with which a page subscribes. A page gets the
//! ticket because `EventSource` sends no headers.
//!
//! ```
//! # #[cfg(feature = "axum")] mod example {
//! use std::time::Duration;
//!
//! use axum::{Router, extract::{Path, State}, response::IntoResponse, routing::{get, post}};
//! use downlink::access::{AccessLayer, Caller, Refusal, StreamRefusal};
//! use downlink::hub::{Address, Topic};
//! use downlink::{Hub, LastEventId, PublishError};
//! use downlink_access::{Access, AccessOptions, KeyRole, Keys, Secret, TicketKeys};
//!
//! async fn watch(
//!     caller: Caller,
//!     State(hub): State<Hub<String>>,
//!     Path(order): Path<String>,
//!     last: LastEventId,
//! ) -> Result<impl IntoResponse, StreamRefusal> {
//!     hub.subscribe().topic_segments(["orders", &order]).resume(last).open_as(&caller).await
//! }
//!
//! async fn change(
//!     caller: Caller,
//!     State(hub): State<Hub<String>>,
//!     Path(order): Path<String>,
//!     text: String,
//! ) -> Result<Result<(), PublishError>, Refusal> {
//!     let Ok(topic) = Topic::new(format!("orders/{order}")) else { return Ok(Err(not_a_topic())) };
//!     caller.check_publish(&[Address::Topic(topic.clone())])?;
//!     Ok(hub.to(topic).publish(text).map(drop))
//! }
//! # fn not_a_topic() -> PublishError { PublishError::NoAddress }
//!
//! pub fn app(hub: Hub<String>, access: Access) -> Router {
//!     Router::new()
//!         .route("/orders/{order}", get(watch).post(change))
//!         .layer(AccessLayer::new(access))
//!         .with_state(hub)
//! }
//! # }
//! # fn main() {}
//! ```

#[cfg(feature = "axum")]
mod axum;
mod caller;
mod granted;
mod layer;
mod origin;
mod presented;
mod refusal;

pub use caller::Caller;
pub use granted::{GrantedFrames, StreamRefusal};
pub use layer::{AccessFuture, AccessLayer, AccessService};
pub use origin::{Origin, Origins, single_value};
pub use presented::{TICKET_PARAMETER, presented, tickets};
pub use refusal::Refusal;
