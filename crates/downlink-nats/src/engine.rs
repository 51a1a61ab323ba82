//! The stream of a journal, as the requests and tails of the journal use it: requests over the
//! current connection, the identity of the stream, and single entries.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_nats::{HeaderMap, Request, client::RequestErrorKind};
use downlink_cluster::{JournalError, JournalId, Position, RawEntry};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    api::{self, Description, Failure, Gotten},
    connection::{Connection, Connections},
    stream,
};

/// The maximum time for a request other than an append, with the time to connect. A server answers
/// such a request from its memory. While a cluster has no leader, the caller asks again, so a
/// longer time would delay the answer after an election.
pub const REQUEST_WITHIN: Duration = Duration::from_secs(2);
/// The minimum time between the openings of two tails. A node opens the next tail as soon as one
/// fails, and must not keep a server busy with that.
const TAIL_EVERY: Duration = Duration::from_millis(250);

/// The identity of the stream, and the subject of its entries.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Identity {
    pub(crate) id: JournalId,
    pub(crate) subject: String,
}

/// The stream of a journal, since the journal was last opened.
///
/// Invariant: the identity never changes. Opening the journal again makes another engine. So a
/// request or a tail never takes an entry of a stream that has replaced its own.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    opened: OnceLock<Identity>,
}

/// The parts that all engines of a journal and of its clones share.
struct Shared {
    connections: Connections,
    stream: String,
    /// When the newest tail was opened, or will be. Held alone and never across an await.
    tail_at: Mutex<Option<Instant>>,
}

impl Engine {
    /// The caller has checked the name of the stream.
    pub(crate) fn new(connections: Connections, stream: String) -> Self {
        let shared = Shared { connections, stream, tail_at: Mutex::default() };
        Self { shared: Arc::new(shared), opened: OnceLock::new() }
    }

    /// An engine for the stream that exists when the engine is used first.
    pub(crate) fn unopened(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), opened: OnceLock::new() }
    }

    pub(crate) fn stream(&self) -> &str {
        &self.shared.stream
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.shared.connections
    }

    pub(crate) async fn connection(&self) -> Result<Connection, Failure> {
        let connecting = timeout(REQUEST_WITHIN, self.shared.connections.get());
        connecting.await.ok().flatten().ok_or(Failure::Unavailable)
    }

    /// The largest message that the server takes.
    pub(crate) async fn payload_max(&self) -> Result<usize, JournalError> {
        let connection = self.connection().await.map_err(|failure| failure.journal_error())?;
        Ok(connection.client.max_payload())
    }

    /// Sends a request of the API, and waits for its answer.
    pub(crate) async fn request<T: DeserializeOwned>(
        &self,
        request: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.ask(request, body, |_| true).await
    }

    /// Sends a request of the API, and waits for its answer. If only answers arrive that are not
    /// usable, the connection is given up.
    async fn ask<T: DeserializeOwned>(
        &self,
        request: &str,
        body: &impl Serialize,
        is_usable: fn(&T) -> bool,
    ) -> Result<T, Failure> {
        let subject = format!("{}.{request}", api::PREFIX);
        let bytes = serde_json::to_vec(body).map_err(|_| Failure::Unavailable)?;
        let asking = self.send(subject, HeaderMap::new(), bytes, REQUEST_WITHIN, is_usable);
        timeout(REQUEST_WITHIN, asking).await.unwrap_or(Err(Failure::Unavailable))
    }

    /// Publishes a message, and waits for the answer of its recipient.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        subject: String,
        headers: HeaderMap,
        bytes: Vec<u8>,
        within: Duration,
        is_usable: fn(&T) -> bool,
    ) -> Result<T, Failure> {
        let connection = self.connection().await?;
        let mut request = Request::new().payload(bytes.into()).timeout(Some(within));
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let asking = connection.ask().ok_or(Failure::Unavailable)?;
        let result = match connection.client.send_request(subject, request).await {
            Ok(answer) => api::decode(&answer.payload),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::MaxPayloadExceeded => Failure::TooLarge,
                RequestErrorKind::NoResponders => Failure::NoResponders,
                _ => return Err(Failure::Unavailable),
            }),
        };
        asking.end(match &result {
            Ok(answer) => is_usable(answer),
            Err(failure) => failure.journal_error() != JournalError::Unavailable,
        });
        result
    }

    /// The stream as some server describes it.
    pub(crate) async fn description(&self) -> Result<Description, Failure> {
        let request = format!("STREAM.INFO.{}", self.stream());
        self.ask(&request, &json!({}), Description::is_from_leader).await
    }

    /// The stream as its leader describes it.
    pub(crate) async fn describe(&self) -> Result<Description, JournalError> {
        let described = self.description().await;
        let description = described.map_err(|failure| failure.journal_error())?;
        description.is_from_leader().then_some(description).ok_or(JournalError::Unavailable)
    }

    /// An engine for the stream that exists now.
    ///
    /// # Errors
    ///
    /// [`JournalError::Refused`] if the stream does not have exactly one subject.
    pub(crate) fn reopened(&self, description: &Description) -> Result<Self, JournalError> {
        let opened = OnceLock::from(identity(description)?);
        Ok(Self { shared: Arc::clone(&self.shared), opened })
    }

    /// The identity of the stream. The first call takes the stream that exists now.
    pub(crate) async fn identity(&self) -> Result<&Identity, JournalError> {
        match self.opened.get() {
            Some(identity) => Ok(identity),
            None => self.check(&self.describe().await?),
        }
    }

    /// The stream, which must be the stream of the journal.
    pub(crate) async fn same(&self) -> Result<Description, JournalError> {
        let description = self.describe().await?;
        self.check(&description)?;
        Ok(description)
    }

    /// Checks that a description is the one of the stream of the journal.
    pub(crate) fn check(&self, description: &Description) -> Result<&Identity, JournalError> {
        if self.opened.get().is_none() {
            // Another request may have set the identity in the meantime.
            let _ = self.opened.set(identity(description)?);
        }
        let opened = self.opened.get().ok_or(JournalError::Unavailable)?;
        if opened.id == description.id() { Ok(opened) } else { Err(JournalError::Replaced) }
    }

    /// The entry at a position; `None` if the stream does not have it.
    pub(crate) async fn entry(&self, at: Position) -> Result<Option<RawEntry>, JournalError> {
        let found = self.get(at, json!({ "seq": at.get() })).await?;
        Ok(found.filter(|entry| entry.position == at))
    }

    /// The first entry at a position or after it.
    pub(crate) async fn first_from(&self, at: Position) -> Result<Option<RawEntry>, JournalError> {
        self.get(at, json!({ "seq": at.get(), "next_by_subj": ">" })).await
    }

    /// Asks the leader of the stream for an entry that is not before `from`.
    async fn get(&self, from: Position, request: Value) -> Result<Option<RawEntry>, JournalError> {
        let subject = format!("STREAM.MSG.GET.{}", self.stream());
        let result: Result<Gotten, Failure> = self.request(&subject, &request).await;
        // A stream that has replaced the stream of the journal has another subject.
        if let (Ok(gotten), Some(identity)) = (&result, self.opened.get())
            && gotten.subject() != identity.subject
        {
            return Err(JournalError::Replaced);
        }
        match result.and_then(|gotten| gotten.entry(from)) {
            Ok(entry) => Ok(Some(entry)),
            Err(Failure::Refused(error)) if error.err_code == api::NO_MESSAGE_FOUND => Ok(None),
            Err(failure) => Err(failure.journal_error()),
        }
    }

    /// Waits until another tail may be opened.
    pub(crate) async fn wait_for_tail(&self) {
        let at = {
            let mut tail_at = self.shared.tail_at.lock();
            let now = Instant::now();
            let at = tail_at.map_or(now, |at| now.max(at + TAIL_EVERY));
            *tail_at = Some(at);
            at
        };
        sleep_until(at).await;
    }
}

fn identity(description: &Description) -> Result<Identity, JournalError> {
    let subject = stream::subject(&description.config).ok_or(JournalError::Refused)?;
    Ok(Identity { id: description.id(), subject: subject.into() })
}
