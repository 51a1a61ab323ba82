//! The hub: publishes typed values to topics, to one client, or to everyone, and replays missed
//! events.
//!
//! A [`Hub<T>`] is a handle to one log, which keeps the events in order. Publishing encodes a value
//! as an event once, and appends the event to the log. Each [`Subscription`] reads the log from its
//! own cursor, which is the position of the next event to read. Publishers and readers never wait
//! for each other. If a slow reader asks for events that are no longer retained, it gets a [`Gap`]
//! instead of the events.
//!
//! A hub in memory runs no task, so there is nothing to start or stop. This does not apply to a hub
//! with a store, a hub that follows another hub, and a node of a cluster. Dropping a subscription
//! ends it.
//!
//! HTTP is not part of this module. The module [`adapters`](crate::adapters) turns subscriptions
//! into HTTP responses.

mod batch;
mod build_error;
mod builder;
mod clock;
#[cfg(feature = "cluster")]
mod cluster;
mod control;
mod delivery;
mod drain;
mod encoding;
#[cfg(feature = "relay")]
mod feed;
#[cfg(feature = "relay")]
mod following;
mod handle;
#[cfg(feature = "cluster")]
mod in_cluster;
#[cfg(feature = "metrics")]
mod metrics;
mod observe;
mod overview;
mod publish;
mod publish_error;
mod read_mode;
mod receipt;
mod record;
#[cfg(feature = "relay")]
mod replica;
mod settings;
mod stats;
#[cfg(feature = "store")]
mod store;
mod stored;
mod subscribe;
mod subscribe_error;
mod subscription;
#[cfg(feature = "relay")]
mod upstream;

pub use batch::{BATCH_EVENTS_MAX, Batch, BatchError};
pub use build_error::HubError;
pub use builder::HubBuilder;
pub use clock::Clock;
pub(crate) use clock::HubClock;
#[cfg(feature = "cluster")]
pub(crate) use cluster::{ClusterHandle, PublishQueue, QueueEnd, Queued};
#[cfg(feature = "cluster")]
pub use cluster::{ClusterNode, ClusterStatus, ClusterTotals, NODE_MESSAGE_BYTES_MAX, NodeMessage};
pub use delivery::{Delivery, Gap, Published};
pub use downlink_log::{
    Address, COMMIT_SECONDS, ClientId, CommitTimes, GapReason, InvalidName, LAG_EVENTS, Lags,
    Limits, Offset, OpenError, ReaderOverview as ClientOverview, Refusals, Retention, Selection,
    StoreTotals, Timestamp, Topic, TopicSelector,
    store::{Durability, StoreError},
};
pub use encoding::EncodeError;
#[cfg(feature = "relay")]
pub(crate) use feed::HubFeed;
pub use handle::Hub;
pub use observe::{Connection, DisconnectReason, Observer};
pub use overview::{ClientOrder, TopicOverview};
pub use publish::{ADDRESSES_MAX, Publish, is_reserved_type};
pub use publish_error::{PublishError, RETRY_MAX, RETRY_MIN};
pub(crate) use read_mode::ReadMode;
pub use receipt::{Confirmed, Receipt};
#[cfg(feature = "relay")]
pub(crate) use record::cursor_id;
#[cfg(feature = "relay")]
pub(crate) use replica::{HubApplier, WaitingReaders};
pub use settings::{EVENT_BYTES_CEILING, EVENT_BYTES_MAX, HubRetention, LagPolicy};
pub use stats::Stats;
#[cfg(feature = "store")]
pub use store::HubStore;
#[cfg(feature = "cluster")]
pub(crate) use stored::fingerprint_content;
pub use subscribe::{Resume, Start, Subscribe};
pub use subscribe_error::{SubscribeError, SubscribeErrorKind};
pub use subscription::Subscription;
#[cfg(feature = "relay")]
pub use upstream::UpstreamStatus;
#[cfg(feature = "relay")]
pub(crate) use upstream::{Hop, Hops, Question, UpstreamHandle};
