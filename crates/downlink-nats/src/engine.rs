//! The stream of a journal, as all handles and tails of the journal use it: requests over the
//! current connection, the identity of the stream, and single entries.

use std::{fmt, time::Duration};

use async_nats::{HeaderMap, Request, client::RequestErrorKind};
use downlink_cluster::{JournalError, JournalId, Position, RawEntry};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    api::{self, Description, Failure, GetMessage, Gotten},
    connection::{Connection, Connections},
    stream,
};

/// The maximum time for a request other than an append, with the time to connect. A server answers
/// such a request from its memory. While a cluster has no leader, the caller asks again, so a longer
/// time would delay the answer after an election.
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

/// The stream of a journal.
pub(crate) struct Engine {
    connections: Connections,
    stream: String,
    /// The stream when the journal was opened. Held alone and never across an await.
    opened: Mutex<Option<Identity>>,
    /// When the newest tail was opened, or will be. Held alone and never across an await.
    tail_at: Mutex<Option<Instant>>,
}

impl Engine {
    /// The name of the stream was checked.
    pub(crate) fn new(connections: Connections, stream: String) -> Self {
        Self { connections, stream, opened: Mutex::default(), tail_at: Mutex::default() }
    }

    pub(crate) fn stream(&self) -> &str {
        &self.stream
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    pub(crate) async fn connection(&self) -> Result<Connection, Failure> {
        let connecting = timeout(REQUEST_WITHIN, self.connections.get());
        connecting.await.ok().flatten().ok_or(Failure::Unavailable)
    }

    /// Sends a request of the API, and waits for its answer.
    pub(crate) async fn request<T: DeserializeOwned>(
        &self,
        request: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let subject = format!("{}.{request}", api::PREFIX);
        let bytes = serde_json::to_vec(body).map_err(|_| Failure::Unavailable)?;
        let asking = self.send(subject, HeaderMap::new(), bytes, REQUEST_WITHIN);
        timeout(REQUEST_WITHIN, asking).await.unwrap_or(Err(Failure::Unavailable))
    }

    /// Publishes a message, and waits for the answer of its recipient.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        subject: String,
        headers: HeaderMap,
        bytes: Vec<u8>,
        within: Duration,
    ) -> Result<T, Failure> {
        let connection = self.connection().await?;
        let mut request = Request::new().payload(bytes.into()).timeout(Some(within));
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let asking = self.connections.ask(&connection);
        let result = match connection.client.send_request(subject, request).await {
            Ok(answer) => api::decode(&answer.payload),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::MaxPayloadExceeded => Failure::TooLarge,
                RequestErrorKind::NoResponders => Failure::NoResponders,
                _ => Failure::Unavailable,
            }),
        };
        let error = result.as_ref().err().map(Failure::journal_error);
        if error != Some(JournalError::Unavailable) {
            asking.answered();
        }
        result
    }

    /// The stream as its leader describes it.
    pub(crate) async fn describe(&self) -> Result<Description, JournalError> {
        let request = format!("STREAM.INFO.{}", self.stream);
        let described: Result<Description, Failure> =
            self.request(&request, &api::Nothing {}).await;
        let description = described.map_err(|failure| failure.journal_error())?;
        match description.is_from_leader() {
            true => Ok(description),
            false => Err(JournalError::Unavailable),
        }
    }

    /// Takes the stream that exists now as the stream of the journal.
    ///
    /// # Errors
    ///
    /// [`JournalError::Refused`] if the stream does not have exactly one subject.
    pub(crate) fn open(&self, description: &Description) -> Result<Identity, JournalError> {
        let subject = stream::subject(&description.config).ok_or(JournalError::Refused)?;
        let identity = Identity { id: description.id(), subject: subject.into() };
        *self.opened.lock() = Some(identity.clone());
        Ok(identity)
    }

    /// The identity of the journal. Opens it if that has not happened.
    pub(crate) async fn identity(&self) -> Result<Identity, JournalError> {
        let opened = self.opened.lock().clone();
        match opened {
            Some(identity) => Ok(identity),
            None => self.open(&self.describe().await?),
        }
    }

    /// The stream, which must be the stream of the journal.
    pub(crate) async fn same(&self) -> Result<Description, JournalError> {
        let description = self.describe().await?;
        let opened = self.opened.lock().clone();
        match opened {
            Some(identity) if identity.id != description.id() => Err(JournalError::Replaced),
            Some(_) => Ok(description),
            None => self.open(&description).map(|_| description),
        }
    }

    /// The entry at a position; `None` if the stream does not have it.
    pub(crate) async fn entry(&self, at: Position) -> Result<Option<RawEntry>, JournalError> {
        self.get(GetMessage { seq: at.get(), next_by_subj: None }).await
    }

    /// The first entry at a position or after it.
    pub(crate) async fn first_from(&self, at: Position) -> Result<Option<RawEntry>, JournalError> {
        self.get(GetMessage { seq: at.get(), next_by_subj: Some(">") }).await
    }

    /// Asks the leader of the stream for an entry.
    async fn get(&self, request: GetMessage) -> Result<Option<RawEntry>, JournalError> {
        let subject = format!("STREAM.MSG.GET.{}", self.stream);
        let result: Result<Gotten, Failure> = self.request(&subject, &request).await;
        // A stream that has replaced the stream of the journal has another subject.
        let opened = self.opened.lock().clone();
        if let (Ok(gotten), Some(identity)) = (&result, opened)
            && gotten.subject() != identity.subject
        {
            return Err(JournalError::Replaced);
        }
        match result.and_then(|gotten| gotten.entry()) {
            Ok(entry) => Ok(Some(entry)),
            Err(Failure::Refused(error)) if error.err_code == api::NO_MESSAGE_FOUND => Ok(None),
            Err(failure) => Err(failure.journal_error()),
        }
    }

    /// Waits until another tail may be opened.
    pub(crate) async fn wait_for_tail(&self) {
        let at = {
            let mut tail_at = self.tail_at.lock();
            let now = Instant::now();
            let at = tail_at.map_or(now, |at| now.max(at + TAIL_EVERY));
            *tail_at = Some(at);
            at
        };
        sleep_until(at).await;
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("stream", &self.stream).finish_non_exhaustive()
    }
}
