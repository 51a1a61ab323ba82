//! The journal of a downlink cluster in a stream of NATS JetStream.
//!
//! A cluster of downlink servers needs an engine that puts the entries of all servers in one order.
//! [`JetStream`] implements [`Journal`](downlink_cluster::Journal), the interface to such an
//! engine. The tests use version 2.15 of the server.
//!
//! ```no_run
//! use downlink_cluster::Journal as _;
//! use downlink_nats::{ConnectSettings, JetStream, ServerUrl, stream_of};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let servers = vec![ServerUrl::new("nats://nats-1:4222")?, ServerUrl::new("nats://nats-2:4222")?];
//! let settings = ConnectSettings { servers, ..ConnectSettings::default() };
//! let journal = JetStream::new(settings, &stream_of("orders")?)?;
//! let hub = journal.hub().await?;
//! for finding in journal.check(&[]).await? {
//!     eprintln!("{finding}");
//! }
//! let opened = journal.for_hub(hub).open().await?;
//! println!("the last position is {}", opened.bounds.last);
//! # Ok(())
//! # }
//! ```
//!
//! # What it checks
//!
//! A tail reads the entries in order, and waits for new ones. It uses the client library and a
//! consumer (the server's side of reading a stream) only as a pipe:
//!
//! - A tail checks that each position follows the one before. It looks up a missing position at the
//!   leader of the stream, and reports a hole only if the leader does not have it.
//! - A tail that begins after the end of the stream says so. The consumer would wait without an
//!   error until the stream reaches that position again.
//! - A tail without a message or a heartbeat for 2.5 seconds fails.
//! - An idle tail fails if the leader of the stream does not answer, or is ahead of the consumer.
//! - A tail that gets a position again fails. The node then checks whether its newest entry is
//!   still in the stream.
//! - If a cluster cannot create a consumer now, the tail asks the leader of the stream for each
//!   entry.
//! - An answer about another stream of the same name is an error.
//!
//! It does not check whether the stream still has the same entries as before. JetStream can lose
//! its newest entries and give their positions to others, and the identity of the stream stays the
//! same. The marks of [`downlink_cluster`] find that.
//!
//! # Late entries
//!
//! An append that got no answer can still take effect. A request that waits in this process is
//! dropped when its connection ends. But bytes that have reached a paused server are read when the
//! server goes on, however long the pause was. The cluster does not apply such an entry, because
//! the entry has expired.
//!
//! # Operators
//!
//! [`JetStream::init`] creates a hub: its stream, with the identity of the hub in the metadata, and
//! the first entry. [`stream_of`] returns the name of this stream. [`JetStream::status`] describes
//! the stream. [`JetStream::check`] returns a list of [`Finding`]s, each with a severity and what
//! to do.
//!
//! # Credentials
//!
//! [`Credentials`] are a file with a JWT and a key, a user with a password, or a token. A user may
//! also have a certificate ([`Tls::client_certificate`]). A key without a JWT (`nkey` in the
//! configuration of a server) is not supported.
//!
//! # Rights
//!
//! A user of the servers must have the right to subscribe to `_INBOX.>`. The user must also have
//! the right to publish to these subjects, where `STREAM` is the name of the stream:
//!
//! - `downlink.STREAM.*`
//! - `$JS.API.STREAM.INFO.STREAM`
//! - `$JS.API.STREAM.MSG.GET.STREAM`
//! - `$JS.API.CONSUMER.CREATE.STREAM.*`
//! - `$JS.API.CONSUMER.MSG.NEXT.STREAM.*`
//!
//! [`JetStream::init`] also needs the right to publish to `$JS.API.STREAM.CREATE.STREAM`. With the
//! right to publish to `$JS.API.INFO`, [`JetStream::check`] also checks the storage of the account.
//! If a right to publish is missing, requests get no answer.
//!
//! # Logs
//!
//! The client library writes events of `tracing` with the target `async_nats`. When a connection
//! ends, it also reports an error about reconnection attempts. This is not a fault, because a
//! connection is replaced by a new client. [`JetStream::connect_error`] has the reason if no server
//! can be reached.
//!
//! # Platforms
//!
//! TLS uses aws-lc, so C code is compiled.
#![doc = concat!("The minimum Rust version is ", env!("CARGO_PKG_RUST_VERSION"), ".")]
#![forbid(unsafe_code)]

mod api;
mod check;
mod connection;
mod engine;
mod finding;
mod hub;
mod journal;
mod monitor;
mod settings;
mod stream;
mod tail;

pub use connection::{CONNECT_WITHIN, PING_EVERY, UNANSWERED_MAX, UNUSABLE_AFTER};
pub use engine::REQUEST_WITHIN;
pub use finding::{Finding, Severity};
pub use hub::{
    Follower, HUB_NAME_BYTES_MAX, HubError, HubStatus, INIT_WITHIN, Init, NewHub, STATUS_WITHIN,
    stream_of,
};
pub use journal::{APPEND_WITHIN, JetStream};
pub use monitor::{MONITOR_BYTES_MAX, MONITOR_WITHIN, MonitorUrl};
pub use settings::{ConnectSettings, Credentials, ServerUrl, SettingsError, Tls};
pub use stream::{
    DUPLICATE_WINDOW, ENTRY_BYTES_MAX, HUB_ID_KEY, RETENTION_MIN, SYNC_TAG, StreamSettings,
};
pub use tail::{CONSUMER_KEPT, HEARTBEAT_EVERY, JetStreamTail, SILENCE_MAX};

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
