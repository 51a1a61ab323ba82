//! Access control for your own app: the sender of a request, the rights of the sender, and streams
//! that end when these rights end. This module needs the feature `access`.
//!
//! The crate [`downlink-access`](downlink_access) verifies keys, tokens and tickets, and turns them
//! into a [`Grant`](downlink_access::Grant). This module connects it with HTTP and with the hub:
//!
//! - [`AccessLayer`] verifies the credentials of each request, and inserts a [`Caller`] into the
//!   extensions of the request. It refuses a request if a key, a token in a header, or a ticket is
//!   not accepted.
//! - [`Caller`] is the sender of a request. With the feature `axum`, it is an extractor. Its
//!   methods check its rights.
//! - [`Subscribe::open_as`](crate::hub::Subscribe::open_as) opens a subscription for a caller, and
//!   makes the response. The stream ends at the end of the grant, or earlier if the rights of the
//!   caller are taken away. [`Caller::stream`] does the same for a subscription whose events your
//!   code encodes (see [`into_frames_with`](crate::hub::Subscription::into_frames_with)).
//! - [`Refusal`] is the response to a request that is not allowed.
//!
//! The app decides which keys exist ([`AccessOptions`](downlink_access::AccessOptions)), keeps the
//! revocations, and fetches key sets (the public keys of the issuers of tokens). Use one
//! [`Access`](downlink_access::Access) for each hub. CORS headers are not part of this module: put
//! a CORS layer around the [`AccessLayer`], so that pages can read its refusals.
//!
//! # Memory
//!
//! A stream with a grant takes 24 bytes more than a stream without a grant. If the grant has an
//! end, the stream takes another 16 bytes. A stream with a ticket takes about 20 further bytes in a
//! table. By this table, a new stream finds and ends the older stream with the same ticket. A grant
//! may contain a client id. If the subscription does not have the same client id, the stream takes
//! about 90 further bytes.
//!
//! To verify tokens with public keys, an access keeps a table of 768 KiB. The table marks the
//! signatures that were verified before, so that they need not be verified again.
//!
//! # Examples
//!
//! The app publishes with a key, and issues a ticket with which a page subscribes. The page needs
//! the ticket, because `EventSource` cannot send a key or a token in a header.
//!
//! ```
//! # #[cfg(all(feature = "axum", feature = "testing"))]
//! # mod example {
//! use std::time::Duration;
//!
//! use axum::Router;
//! use axum::extract::{Path, State};
//! use axum::http::StatusCode;
//! use axum::response::{IntoResponse, Response};
//! use axum::routing::{get, post};
//! use downlink::access::{AccessLayer, Caller, Refusal, StreamRefusal};
//! use downlink::hub::{Address, Topic, TopicSelector};
//! use downlink::{Hub, LastEventId};
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
//! ) -> Result<Response, Refusal> {
//!     let Ok(topic) = Topic::new(&format!("orders/{order}")) else {
//!         return Ok(StatusCode::BAD_REQUEST.into_response());
//!     };
//!     caller.check_publish(&[Address::Topic(topic.clone())])?;
//!     Ok(hub.to(topic).publish(text).map(drop).into_response())
//! }
//!
//! /// The app's own server calls this with its key, and puts the ticket into the page.
//! async fn ticket(caller: Caller, Path(order): Path<String>) -> Result<String, Refusal> {
//!     let topics = TopicSelector::parse(&format!("orders/{order}")).into_iter().collect();
//!     let (ticket, _end) = caller.issue(topics, None, Duration::from_secs(600))?;
//!     Ok(ticket)
//! }
//!
//! pub fn app(hub: Hub<String>, access: Access) -> Router {
//!     Router::new()
//!         .route("/orders/{order}", get(watch).post(change))
//!         .route("/tickets/{order}", post(ticket))
//!         .layer(AccessLayer::new(access))
//!         .with_state(hub)
//! }
//! # use axum::{body::Body, http::Request};
//! # pub async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let (key, ticket_key) = (Secret::generate()?, Secret::generate()?);
//! let mut keys = Keys::new();
//! keys.add(KeyRole::Publish, &key)?;
//! let tickets = Some(TicketKeys::new("shop", &[ticket_key])?);
//! let access = Access::new(AccessOptions { keys, tickets, ..AccessOptions::default() });
//! let app = app(Hub::text(), access);
//! # let request = Request::get("/orders/7").body(Body::empty())?;
//! # assert_eq!(downlink::testing::connect(&app, request).await.status(), 401);
//! # let bearer = format!("Bearer {}", *key.text());
//! # let request = Request::post("/tickets/7").header("authorization", &bearer);
//! # let response = axum::body::to_bytes(tower_call(&app, request.body(Body::empty())?).await, 2048);
//! # let ticket = String::from_utf8(response.await?.to_vec())?;
//! # let request = Request::get(format!("/orders/7?ticket={ticket}")).body(Body::empty())?;
//! # let mut page = downlink::testing::connect(&app, request).await;
//! # assert_eq!(page.next_event().await.unwrap().event_type, "downlink.open");
//! # let request = Request::post("/orders/7").header("authorization", bearer);
//! # tower_call(&app, request.body("packed".into())?).await;
//! # assert_eq!(page.next_event().await.unwrap().data, "packed");
//! # Ok(())
//! # }
//! # async fn tower_call(app: &Router, request: Request<Body>) -> Body {
//! #     use tower_service::Service;
//! #     let Ok(response) = app.clone().call(request).await;
//! #     response.into_body()
//! # }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #     #[cfg(all(feature = "axum", feature = "testing"))]
//! #     example::run().await?;
//! #     Ok(())
//! # }
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
