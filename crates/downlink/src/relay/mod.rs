//! Relays: a hub that follows another one.
//!
//! The hub that decides (the *upstream*) offers a feed of everything that it has. A hub that follows
//! it (a *relay*) has the same events under the same ids, and serves its own subscribers from its
//! own memory. So a client may go from one to the other with its last event id. A relay costs the
//! upstream one connection, however many subscribers it has.
//!
//! A relay accepts no publishes: publish to the upstream. (The server `downlink` forwards them.)
//!
//! If the upstream is away, the relay goes on serving what it has, and connects again. If the
//! upstream comes back with another history, the relay begins anew, and its clients get a gap.
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
