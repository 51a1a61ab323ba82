//! A journal in a stream.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use async_nats::HeaderMap;
use downlink_cluster::{
    Bounds, EntryName, HubId, Journal, JournalError, Opened, Position, RawEntry,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream as streams};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::{
    api::{self, Acknowledgement, Failure},
    connection::Connections,
    engine::Engine,
    settings::{ConnectSettings, SettingsError, check_stream_name},
    stream,
    tail::JetStreamTail,
};

/// The maximum time for an append, with the time to connect. A node repeats the append afterwards,
/// under the same name.
pub const APPEND_WITHIN: Duration = Duration::from_secs(3);
/// The number of entries that a read asks for at the same time.
const READS_IN_FLIGHT: usize = 16;

/// A journal in a stream of NATS JetStream.
///
/// The position of an entry is its sequence in the stream. The identity is the time at which the
/// stream was created. The futures and tails of a journal must be polled in a runtime of tokio with
/// I/O and time.
///
/// A clone uses the same connection. If one clone is opened again, the others still expect the
/// stream that they were opened with.
///
/// # Cancel safety
///
/// All futures and tails can be dropped at any time. If the future of an append is dropped, the
/// entry may be appended.
pub struct JetStream {
    /// Replaced when the journal is opened. The future that opens the journal shares it. Held alone
    /// and never across an await.
    engine: Arc<Mutex<Arc<Engine>>>,
    /// The hub of the stream, if the caller knows it.
    hub: Option<HubId>,
}

impl Clone for JetStream {
    fn clone(&self) -> Self {
        Self { engine: Arc::new(Mutex::new(self.engine())), hub: self.hub }
    }
}

impl JetStream {
    /// A journal in the stream with this name. The first request connects, so no server needs to be
    /// reachable now.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] if there is no server, or if the name cannot be the name of a stream.
    pub fn new(settings: ConnectSettings, stream: &str) -> Result<Self, SettingsError> {
        if settings.servers.is_empty() {
            return Err(SettingsError::NoServer);
        }
        check_stream_name(stream)?;
        let engine = Engine::new(Connections::new(settings), stream.into());
        Ok(Self { engine: Arc::new(Mutex::new(Arc::new(engine))), hub: None })
    }

    /// The same journal, which opens only a stream of this hub.
    #[must_use]
    pub fn for_hub(mut self, hub: HubId) -> Self {
        self.hub = Some(hub);
        self
    }

    /// The reason why the newest attempt to connect failed, for logs; `None` if it succeeded.
    pub fn connect_error(&self) -> Option<String> {
        self.engine().connections().error()
    }

    /// The stream since the journal was last opened.
    pub(crate) fn engine(&self) -> Arc<Engine> {
        Arc::clone(&self.engine.lock())
    }
}

impl fmt::Debug for JetStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStream").field("stream", &self.engine().stream()).finish_non_exhaustive()
    }
}

impl Journal for JetStream {
    type Tail = JetStreamTail;

    /// The stream that exists when the answer arrives becomes the stream of this journal. Earlier
    /// requests and tails still expect the stream before.
    ///
    /// The error is [`Refused`](JournalError::Refused) if the stream does not have exactly one
    /// subject, or if it belongs to another hub than [`for_hub`](JetStream::for_hub). The error is
    /// [`Replaced`](JournalError::Replaced) if there is no stream.
    fn open(&mut self) -> impl Future<Output = Result<Opened, JournalError>> + Send + 'static {
        let current = Arc::clone(&self.engine);
        let (engine, hub) = (self.engine(), self.hub);
        async move {
            let description = engine.describe().await?;
            if hub.is_some() && hub != stream::hub(&description.config) {
                return Err(JournalError::Refused);
            }
            let reopened = engine.reopened(&description)?;
            let entry_bytes_max =
                stream::entry_bytes_max(&description.config, engine.payload_max().await?);
            *current.lock() = Arc::new(reopened);
            let durability = stream::durability(&description.config);
            let (id, bounds) = (description.id(), description.bounds());
            Ok(Opened { id, bounds, entry_bytes_max, durability })
        }
    }

    /// Copies of an entry are skipped for [`DUPLICATE_WINDOW`](crate::DUPLICATE_WINDOW).
    fn append(
        &mut self,
        name: EntryName,
        bytes: Vec<u8>,
        only_if_last: Option<Position>,
    ) -> impl Future<Output = Result<Position, JournalError>> + Send + 'static {
        let engine = self.engine();
        async move {
            let appending = append(&engine, name, bytes, only_if_last);
            timeout(APPEND_WITHIN, appending).await.unwrap_or(Err(JournalError::Unavailable))
        }
    }

    /// Asks the leader of the stream for each entry. The entries of the range have to fit into
    /// memory.
    fn read(
        &mut self,
        range: Range<Position>,
    ) -> impl Future<Output = Result<(Vec<RawEntry>, Bounds), JournalError>> + Send + 'static {
        let engine = self.engine();
        async move {
            let bounds = engine.same().await?.bounds();
            let start = range.start.max(bounds.first).get();
            let end = range.end.min(bounds.last.next()).get();
            let entries = streams::iter(start..end).map(|at| {
                let engine = Arc::clone(&engine);
                async move { engine.entry(Position::new(at)).await }
            });
            let entries: Vec<Option<RawEntry>> =
                entries.buffered(READS_IN_FLIGHT).try_collect().await?;
            if entries.iter().any(Option::is_none) {
                // A server that is stopping says that it has no such message, although the stream
                // has it. If the stream has no holes, this is the case here.
                let now = engine.same().await?;
                let kept = (start..end).zip(&entries);
                let mut kept = kept.filter(|(at, _)| Position::new(*at) >= now.bounds().first);
                if now.is_dense() && kept.any(|(_, entry)| entry.is_none()) {
                    return Err(JournalError::Unavailable);
                }
            }
            Ok((entries.into_iter().flatten().collect(), bounds))
        }
    }

    /// Asks the leader of the stream. A server that has just become the leader may not know of the
    /// newest entries for a moment.
    fn bounds(&mut self) -> impl Future<Output = Result<Bounds, JournalError>> + Send + 'static {
        let engine = self.engine();
        async move { Ok(engine.same().await?.bounds()) }
    }

    fn tail(&mut self, from: Position) -> JetStreamTail {
        JetStreamTail::new(self.engine(), from)
    }
}

/// Appends an entry.
pub(crate) async fn append(
    engine: &Engine,
    name: EntryName,
    bytes: Vec<u8>,
    only_if_last: Option<Position>,
) -> Result<Position, JournalError> {
    let identity = engine.identity().await?;
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", name.to_string());
    headers.insert("Nats-Expected-Stream", engine.stream());
    if let Some(last) = only_if_last {
        headers.insert("Nats-Expected-Last-Sequence", last.to_string());
    }
    let answer: Result<Acknowledgement, Failure> =
        engine.send(identity.subject.clone(), headers, bytes, APPEND_WITHIN, |_| true).await;
    match answer {
        Ok(acknowledgement) => Ok(Position::new(acknowledgement.seq)),
        // Either the stream has no leader now, or no stream has this subject any more.
        Err(Failure::NoResponders) => {
            engine.same().await?;
            Err(JournalError::Unavailable)
        }
        Err(Failure::Refused(error)) if api::WRONG_LAST_SEQUENCE.contains(&error.err_code) => {
            let last = match error.last_sequence() {
                Some(last) => Position::new(last),
                None => engine.same().await?.bounds().last,
            };
            Err(JournalError::NotLast { last })
        }
        Err(failure) => Err(failure.journal_error()),
    }
}
