//! Relays: hubs that follow another hub.
//!
//! A *relay* is a hub that follows another hub, its *upstream*. The upstream offers a feed of
//! everything that it has. The relay has the same events under the same ids, and serves its own
//! subscribers from its own memory. So a client may go from one hub to the other with its last
//! event id. A relay costs the upstream one connection, however many subscribers the relay has.
//!
//! A relay accepts no publishes, so publish to the upstream. (If the server `downlink` is a relay,
//! it forwards publishes to its upstream.)
//!
//! If the upstream is away, the relay still serves the events that it has, and tries to connect
//! again. If the upstream comes back with another history, the relay begins anew, and its clients
//! get a gap.
//!
//! [`Hub::feed`](crate::Hub::feed) makes a feed, and [`Hub::follow`](crate::Hub::follow) makes a
//! relay.

mod applying;
mod error;
mod feed;
mod follower;
mod wire;

pub use self::{
    feed::{FEEDS_MAX, FeedBody, FeedError},
    follower::{InvalidUpstream, Upstream},
    wire::{FEED_MEDIA_TYPE, HOPS_MAX, MESSAGE_BYTES_MAX},
};
pub use crate::hub::UpstreamStatus;
