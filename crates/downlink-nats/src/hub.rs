//! The stream of a hub: its name, the identity of the hub, its creation, and its state.
//!
//! A hub has a name, which its operator chooses, and an identity, which is random. The name selects
//! the stream. The identity is in the metadata of the stream, and in each entry. So a node needs
//! only the name, and two hubs never take each other's entries.
//!
//! These functions are for operators. A node only asks for the identity of its hub.

use std::time::Duration;

use downlink_cluster::{
    EncodeError, EntryName, HubId, JournalDurability, JournalError, Position, Snapshot, WriterId,
    first_entry,
};
use downlink_log::Timestamp;
use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::{
    api::{self, Description, Failure},
    engine::Engine,
    journal::{JetStream, append},
    settings::{SettingsError, is_name},
    stream::{self, StreamSettings},
};

/// The maximum length of the name of a hub in bytes. The name is a part of file names and subjects
/// of the server, and operators type it.
pub const HUB_NAME_BYTES_MAX: usize = 64;
/// The maximum time for [`JetStream::init`]. An election takes up to nine seconds, and a new
/// cluster needs one for itself and one for the stream.
pub const INIT_WITHIN: Duration = Duration::from_secs(20);
/// The maximum time for a question of an operator, and for reaching a server. It is enough for one
/// server that does not answer, and the next.
pub const STATUS_WITHIN: Duration = Duration::from_secs(5);
/// The time after which a function for operators asks again.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// The name of the stream of a hub: `downlink-NAME`.
///
/// # Errors
///
/// [`SettingsError::HubName`] if the name has other characters than letters, digits, `-` and `_`,
/// or not 1 to [`HUB_NAME_BYTES_MAX`] of them.
pub fn stream_of(hub: &str) -> Result<String, SettingsError> {
    let stream = || format!("downlink-{hub}");
    is_name(hub, HUB_NAME_BYTES_MAX).then(stream).ok_or(SettingsError::HubName)
}

/// A new hub.
#[derive(Clone, Debug)]
pub struct NewHub {
    /// The identity of the hub, which must be random.
    pub hub: HubId,
    /// The writer of the first entry, which must be random.
    pub writer: WriterId,
    /// The knowledge with which all nodes begin.
    pub snapshot: Snapshot,
}

/// The result of [`JetStream::init`], with the identity of the hub.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// The hub is new.
    Created(HubId),
    /// The stream existed without an entry, and has its first entry now. The hub has the identity
    /// from the metadata of the stream.
    Completed(HubId),
    /// The hub exists, and nothing has changed.
    Existed(HubId),
}

/// The state of the stream of a hub.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct HubStatus {
    /// The identity of the hub; `None` if the metadata of the stream does not have it.
    pub hub: Option<HubId>,
    /// The time at the server when it answered.
    pub at: Timestamp,
    /// The position of the first entry.
    pub first: Position,
    /// The position of the last entry.
    pub last: Position,
    /// The times of the first and of the last entry; `None` if there is no entry.
    pub times: Option<(Timestamp, Timestamp)>,
    /// The size of the entries in bytes.
    pub bytes: u64,
    /// The limit of this size; `None` if there is no limit.
    pub bytes_max: Option<u64>,
    /// The meaning of an acknowledgement.
    pub durability: JournalDurability,
    /// The name of the server that leads the stream; `None` if the server does not say it.
    pub leader: Option<String>,
    /// The other servers that keep the stream.
    pub followers: Vec<Follower>,
}

/// A server that keeps the stream and does not lead it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Follower {
    /// The name of the server.
    pub name: String,
    /// Whether the server has all entries.
    pub is_current: bool,
    /// Whether the server was stopped. A server that was killed only becomes silent, and is not
    /// current after ten seconds.
    pub is_offline: bool,
    /// The number of operations that the server does not have.
    pub lag: u64,
    /// The time since the leader has heard of the server.
    pub silent_for: Duration,
}

/// The reason why a function for operators has no result.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum HubError {
    /// No server can be reached.
    #[error("{reason}")]
    Unreachable {
        /// The reason of the newest attempt.
        reason: String,
    },
    /// A server can be reached, but JetStream does not answer.
    #[error("JetStream does not answer")]
    NoAnswer,
    /// The user of the servers has no JetStream.
    #[error("JetStream is not enabled for this user")]
    NoJetStream,
    /// There is no stream.
    #[error("there is no stream {stream}")]
    NoStream {
        /// The name of the stream.
        stream: String,
    },
    /// There is a stream with this name.
    #[error("the stream exists already")]
    Exists,
    /// The stream has no leader, because a majority of its servers is away.
    #[error("the stream has no leader")]
    NoLeader,
    /// The metadata of the stream has no identity of a hub.
    #[error("the stream has no identity of a hub in its metadata ({})", stream::HUB_ID_KEY)]
    NoHubId,
    /// The stream does not have exactly one subject without wildcards, or gets its messages from
    /// another stream, or changes their subjects.
    #[error("the stream does not have exactly one subject of its own")]
    Subjects,
    /// The storage of the server or of the account is full.
    #[error("the storage of the servers is full")]
    Full,
    /// The first entry is larger than a message of the servers.
    #[error("the first entry is larger than the servers allow (max_payload)")]
    TooLarge,
    /// The snapshot is too large.
    #[error("the first entry cannot be encoded")]
    Snapshot(#[from] EncodeError),
    /// The server refuses the request.
    #[error("the server refuses the request: {description} (code {code})")]
    Refused {
        /// The error code of JetStream.
        code: u32,
        /// The reason, in the words of the server.
        description: String,
    },
}

impl HubError {
    /// What an operator can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "check the addresses, the credentials and the TLS settings",
            Self::NoAnswer => {
                "start the servers, and give the user the right to publish to $JS.API.>"
            }
            Self::NoJetStream => "enable JetStream on the servers and for the account of the user",
            Self::NoStream { .. } => "create the hub with `downlink cluster init`",
            Self::NoLeader => "start the servers of the stream that are away, then try again",
            Self::NoHubId | Self::Exists | Self::Subjects => {
                "choose another name for the hub, or delete the stream if it is empty (servers before \
                 2.10 cannot keep a hub)"
            }
            Self::Full => "give the servers or the account more storage (max_file_store)",
            Self::TooLarge => "raise max_payload of the servers to 1 MiB, the default",
            Self::Snapshot(_) => "leave out old epochs",
            Self::Refused { .. } => "change the settings of the hub or of the servers",
        }
    }
}

impl JetStream {
    /// Creates the hub: its stream with the identity of the hub, and the first entry.
    ///
    /// If the stream exists without an entry, only the first entry is appended. If the hub exists,
    /// nothing changes, and the settings are ignored. So the call may be repeated after any error.
    /// Of two calls at the same time, one creates the hub.
    ///
    /// # Errors
    ///
    /// [`HubError`]. If JetStream does not answer, the call repeats its requests for
    /// [`INIT_WITHIN`]. If no server can be reached, it repeats them for [`STATUS_WITHIN`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the hub may have been created, or only its stream.
    pub async fn init(&self, settings: &StreamSettings, new: NewHub) -> Result<Init, HubError> {
        patiently(INIT_WITHIN, || self.try_init(settings, &new)).await
    }

    async fn try_init(&self, settings: &StreamSettings, new: &NewHub) -> Result<Init, HubError> {
        // This engine uses the stream that exists now, even if the journal was opened with another.
        let engine = self.engine().unopened();
        let description = match description(&engine).await {
            Err(HubError::NoStream { .. }) => {
                match self.create_stream(settings, new.hub).await {
                    Ok(()) | Err(HubError::Exists) => {}
                    Err(error) => return Err(error),
                }
                description(&engine).await?
            }
            other => other?,
        };
        stream::subject(&description.config).ok_or(HubError::Subjects)?;
        let hub = stream::hub(&description.config).ok_or(HubError::NoHubId)?;
        // The identity is random, so no other call has created the stream of this hub.
        let is_own = hub == new.hub;
        let with_entry = if is_own { Init::Created(hub) } else { Init::Existed(hub) };
        if description.bounds().last > Position::ORIGIN {
            return Ok(with_entry);
        }
        let bytes = first_entry(hub, new.writer, new.snapshot.clone())?;
        let name = EntryName { writer: new.writer, counter: 0 };
        match append(&engine, name, bytes, Some(Position::ORIGIN)).await {
            Ok(_) if !is_own => Ok(Init::Completed(hub)),
            Ok(_) | Err(JournalError::NotLast { .. }) => Ok(with_entry),
            Err(JournalError::Full) => Err(HubError::Full),
            Err(JournalError::Refused) => Err(HubError::TooLarge),
            Err(_) => Err(unanswered(&engine)),
        }
    }

    /// Creates the stream of a hub, without an entry. [`init`](Self::init) also appends the first
    /// entry. The subject of the stream is `downlink.STREAM.RANDOM`. So a stream that replaces it
    /// has another subject, and never gets an entry that is meant for this one.
    ///
    /// # Errors
    ///
    /// [`HubError`]. Another stream is never changed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream may have been created.
    pub async fn create_stream(
        &self,
        settings: &StreamSettings,
        hub: HubId,
    ) -> Result<(), HubError> {
        let engine = self.engine();
        let stream = engine.stream();
        let error = |failure| hub_error(&engine, failure);
        let inbox = engine.connection().await.map_err(error)?.client.new_inbox();
        let random = inbox.rsplit('.').next().unwrap_or(&inbox);
        let config = settings.config(stream, format!("downlink.{stream}.{random}"), hub);
        let request = format!("STREAM.CREATE.{stream}");
        let created: Result<Description, Failure> = engine.request(&request, &config).await;
        created.map(drop).map_err(error)
    }

    /// The identity of the hub, from the metadata of its stream.
    ///
    /// # Errors
    ///
    /// [`HubError`], for example if there is no stream.
    ///
    /// # Cancel safety
    ///
    /// The question changes nothing.
    pub async fn hub(&self) -> Result<HubId, HubError> {
        let description = describe(&self.engine()).await?;
        stream::hub(&description.config).ok_or(HubError::NoHubId)
    }

    /// The state of the stream, as its leader describes it.
    ///
    /// # Errors
    ///
    /// [`HubError`], for example if there is no stream.
    ///
    /// # Cancel safety
    ///
    /// The question changes nothing.
    pub async fn status(&self) -> Result<HubStatus, HubError> {
        let description = describe(&self.engine()).await?;
        let (config, bounds) = (&description.config, description.bounds());
        Ok(HubStatus {
            hub: stream::hub(config),
            at: description.at(),
            first: bounds.first,
            last: bounds.last,
            times: description.times(),
            bytes: description.state.bytes,
            bytes_max: u64::try_from(config.max_bytes).ok().filter(|max| *max > 0),
            durability: stream::durability(config),
            leader: description.leader().map(str::to_owned),
            followers: description.followers().map(follower).collect(),
        })
    }
}

fn follower(peer: &api::Peer) -> Follower {
    Follower {
        name: peer.name.clone(),
        is_current: peer.current,
        is_offline: peer.offline,
        lag: peer.lag,
        silent_for: Duration::from_nanos(peer.active),
    }
}

/// Repeats a question: for `within` if JetStream does not answer, and for [`STATUS_WITHIN`] if no
/// server can be reached.
async fn patiently<T, F: Future<Output = Result<T, HubError>>>(
    within: Duration,
    mut ask: impl FnMut() -> F,
) -> Result<T, HubError> {
    let begin = Instant::now();
    loop {
        let result = ask().await;
        let within = match &result {
            Err(HubError::NoAnswer | HubError::NoLeader) => within,
            Err(HubError::Refused { code: api::NO_SUITABLE_PEERS, .. }) => within,
            Err(HubError::Unreachable { .. }) => within.min(STATUS_WITHIN),
            _ => return result,
        };
        if begin.elapsed() >= within {
            return result;
        }
        sleep(ASK_AGAIN).await;
    }
}

/// The stream as its leader describes it. Asks for [`STATUS_WITHIN`].
pub(crate) async fn describe(engine: &Engine) -> Result<Description, HubError> {
    patiently(STATUS_WITHIN, || description(engine)).await
}

async fn description(engine: &Engine) -> Result<Description, HubError> {
    let described = engine.description().await;
    let description = described.map_err(|failure| hub_error(engine, failure))?;
    if description.is_from_leader() { Ok(description) } else { Err(HubError::NoLeader) }
}

fn hub_error(engine: &Engine, failure: Failure) -> HubError {
    match failure {
        Failure::NoResponders => HubError::NoJetStream,
        Failure::TooLarge => HubError::TooLarge,
        Failure::Unavailable => unanswered(engine),
        Failure::Refused(error) => match error.err_code {
            api::STREAM_NOT_FOUND => HubError::NoStream { stream: engine.stream().into() },
            api::NOT_ENABLED | api::NOT_ENABLED_FOR_ACCOUNT => HubError::NoJetStream,
            api::CLUSTER_NOT_AVAILABLE => HubError::NoAnswer,
            api::STREAM_NAME_EXISTS => HubError::Exists,
            code => HubError::Refused { code, description: error.description },
        },
    }
}

/// The reason why a request has no answer.
fn unanswered(engine: &Engine) -> HubError {
    match engine.connections().error() {
        Some(reason) => HubError::Unreachable { reason },
        None => HubError::NoAnswer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_hub_is_a_part_of_the_name_of_its_stream() {
        let longest = "a".repeat(HUB_NAME_BYTES_MAX);
        for name in ["orders", "A_1-b", &longest] {
            assert_eq!(stream_of(name), Ok(format!("downlink-{name}")));
        }
        let longer = "a".repeat(HUB_NAME_BYTES_MAX + 1);
        for name in ["", "a.b", "a b", "*", ">", "ä", "a/b", &longer] {
            assert_eq!(stream_of(name), Err(SettingsError::HubName), "{name}");
        }
    }
}
