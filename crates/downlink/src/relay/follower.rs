//! The task with which a relay follows its upstream, which is another hub: it connects, receives
//! the feed, and connects again.

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use downlink_log::{Cursor, FollowerTask};
use reqwest::{Client, Response, StatusCode, Url, header};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    applying::{Applying, Command},
    error::{ANSWER_WITHIN, FollowError, QUESTIONS_MAX, SILENCE_MAX},
    wire::{self, FEED_MEDIA_TYPE, WireError},
};
use crate::hub::{
    Hub, HubBuilder, HubError, Question, UpstreamHandle, UpstreamStatus, WaitingReaders,
};

/// If this many bytes of an incomplete message have arrived, the feed does not count as silent.
/// This matters because a long message over a slow line takes longer than [`SILENCE_MAX`]. With
/// half of this number, a relay would stay on a line that is too slow for a feed. With twice this
/// number, a poor mobile network could not carry a feed.
const PROGRESS_BYTES_MIN: usize = 16 << 10;

/// The wait before the second attempt to connect. It doubles from attempt to attempt.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// The maximum wait between two attempts to connect.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How often the thread that applies the feed looks after its store if no message arrives.
const TICK: Duration = Duration::from_millis(50);

/// The number of messages that wait for the thread that applies the feed. If the queue is full, the
/// task reads no more from the connection, and the upstream waits.
const COMMANDS_MAX: usize = 8;

/// How long a question waits for an upstream that is away. Readers wait no longer than this either.
const QUESTION_WITHIN: Duration = downlink_log::CONFIRM_WITHIN;

/// The maximum number of bytes of an answer that is not a feed. An error of a server is short.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// The hub that a relay follows.
///
/// ```
/// use downlink::relay::Upstream;
///
/// let upstream = Upstream::new("http://10.0.0.1:8080")?.bearer("the key of this relay")?;
/// assert!(Upstream::new("10.0.0.1:8080").is_err());
/// # drop(upstream);
/// # Ok::<(), downlink::relay::InvalidUpstream>(())
/// ```
#[derive(Clone)]
pub struct Upstream {
    url: Url,
    bearer: Option<header::HeaderValue>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// Why an upstream cannot be used.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum InvalidUpstream {
    /// The text is not the URL of a server.
    #[error("{0:?} is not the URL of a server: write it like http://10.0.0.1:8080")]
    Url(String),
    /// The key is empty, or has characters that a header cannot have.
    #[error("the key of the relay is empty, or has characters that an HTTP header cannot have")]
    Key,
}

impl Upstream {
    /// The server at this URL. The relay requests `follow` and `follow/end` below it.
    ///
    /// # Errors
    ///
    /// [`InvalidUpstream`] if the text is not a URL with `http` or `https` and without a query.
    pub fn new(url: &str) -> Result<Self, InvalidUpstream> {
        let invalid = || InvalidUpstream::Url(url.to_owned());
        let mut parsed = Url::parse(url).map_err(|_| invalid())?;
        let is_web = matches!(parsed.scheme(), "http" | "https") && parsed.has_host();
        if !is_web || parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(invalid());
        }
        if !parsed.path().ends_with('/') {
            parsed.set_path(&format!("{}/", parsed.path()));
        }
        Ok(Self { url: parsed, bearer: None })
    }

    /// Sends this key with each request, as `Authorization: Bearer`.
    ///
    /// # Errors
    ///
    /// [`InvalidUpstream::Key`] if the key is empty, or has characters that a header cannot have.
    pub fn bearer(mut self, key: &str) -> Result<Self, InvalidUpstream> {
        let bearer = header::HeaderValue::from_str(&format!("Bearer {key}"));
        let bearer = bearer.ok().filter(|_| !key.trim().is_empty());
        let mut bearer = bearer.ok_or(InvalidUpstream::Key)?;
        bearer.set_sensitive(true);
        self.bearer = Some(bearer);
        Ok(self)
    }
}

impl<T: Send + Sync + 'static> Hub<T> {
    /// Makes a hub that follows an upstream: a relay. It has the events of the upstream under the
    /// same ids. If the builder has a [`store`](HubBuilder::store), the store is a cache of the
    /// upstream's events. The cache makes a restart quick, and may be deleted.
    ///
    /// The hub connects in the background, and connects again for as long as it exists. Until it
    /// has everything that the upstream has, its subscriptions wait. [`Hub::upstream`] tells the
    /// state of the connection.
    ///
    /// The hub accepts no publishes ([`PublishError::ReadOnly`](crate::PublishError::ReadOnly)). It
    /// has its own retention. If the upstream has evicted events that the hub never got, clients
    /// get a gap.
    ///
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`HubError`], as [`HubBuilder::build`].
    ///
    /// # Panics
    ///
    /// Panics if it is called outside of a tokio runtime.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use downlink::{Hub, relay::Upstream};
    ///
    /// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
    /// let upstream = Upstream::new("http://10.0.0.1:8080")?.bearer("the key of this relay")?;
    /// let hub = Hub::<String>::follow(Hub::builder().text(), upstream)?;
    /// let subscription = hub.subscribe().topic("news").open().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn follow(builder: HubBuilder<T>, upstream: Upstream) -> Result<Self, HubError> {
        let (status, watched) = watch::channel(UpstreamStatus::default());
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let handle = UpstreamHandle { status: watched, questions };
        let (hub, applier) = builder.build_relay(handle)?;
        let status = Arc::new(status);
        // A cache has everything up to its position.
        status.send_modify(|status| status.reached = applier.position().is_some());
        let readers = applier.follower();
        let hop = hub.hop();
        let (commands, failures) =
            Applying::start(hop, applier, Arc::clone(&status), COMMANDS_MAX)?;
        let client = Client::builder().connect_timeout(ANSWER_WITHIN).no_proxy();
        let client = client.redirect(reqwest::redirect::Policy::none()).build();
        let client = client.map_err(|error| HubError::Upstream(error.to_string()))?;
        let link = Link { client, upstream };
        let questions = Questions {
            link: link.clone(),
            commands: commands.clone(),
            connected: status.subscribe(),
        };
        let follower = Follower { link, status, commands, failures };
        tokio::spawn(follower.run(questions.answer(readers, asked)));
        Ok(hub)
    }
}

/// The way to the upstream.
#[derive(Clone)]
struct Link {
    client: Client,
    upstream: Upstream,
}

impl Link {
    async fn get(&self, path: &str, after: Option<Cursor>) -> Result<Response, FollowError> {
        let mut url = self.upstream.url.join(path).map_err(|error| {
            FollowError::Unreachable(format!("the URL cannot be extended: {error}"))
        })?;
        if let Some(after) = after {
            url.query_pairs_mut().append_pair("after", &after.to_string());
        }
        let mut request = self.client.get(url);
        if let Some(bearer) = &self.upstream.bearer {
            request = request.header(header::AUTHORIZATION, bearer.clone());
        }
        let answer = timeout(ANSWER_WITHIN, request.send()).await;
        let response = answer.map_err(|_| FollowError::NoAnswer)?.map_err(unreachable)?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let said = timeout(ANSWER_WITHIN, text(response)).await.unwrap_or_default();
        Err(FollowError::Refused { status, said: detail(said) })
    }

    /// Opens a feed.
    async fn feed(&self, after: Option<Cursor>) -> Result<Response, FollowError> {
        let response = self.get("follow", after).await?;
        let media_type = response.headers().get(header::CONTENT_TYPE);
        match media_type.is_some_and(|media_type| media_type == FEED_MEDIA_TYPE) {
            true => Ok(response),
            false => Err(WireError::Malformed.into()),
        }
    }

    /// The end of the upstream.
    async fn end(&self) -> Option<Cursor> {
        let response = self.get("follow/end", None).await.ok()?;
        let text = timeout(ANSWER_WITHIN, text(response)).await.ok()?;
        Cursor::parse_id(text.trim())
    }
}

/// The detail of a problem (RFC 9457), or the text itself.
fn detail(said: String) -> String {
    #[derive(serde::Deserialize)]
    struct Problem {
        detail: String,
    }
    match serde_json::from_str(&said) {
        Ok(Problem { detail }) => detail,
        Err(_) => said.trim().to_owned(),
    }
}

/// The innermost reason of an error, which says most.
fn unreachable(error: reqwest::Error) -> FollowError {
    let mut reason: &dyn std::error::Error = &error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    FollowError::Unreachable(reason.to_string())
}

/// The beginning of an answer, as text.
async fn text(mut response: Response) -> String {
    let mut body = BytesMut::new();
    while let Ok(Some(chunk)) = response.chunk().await
        && body.len() < ANSWER_BYTES_MAX
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(ANSWER_BYTES_MAX);
    String::from_utf8_lossy(&body).into_owned()
}

/// The task that follows an upstream.
struct Follower {
    link: Link,
    status: Arc<watch::Sender<UpstreamStatus>>,
    commands: mpsc::Sender<Command>,
    failures: mpsc::Receiver<FollowError>,
}

impl Follower {
    /// Follows, and answers questions, until the hub is closed or its last handle is dropped.
    async fn run(mut self, answering: impl Future<Output = ()>) {
        tokio::select! {
            () = answering => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        let mut wait = WAIT_MIN;
        let mut reported = None;
        loop {
            let began = Instant::now();
            let Err(error) = self.session().await;
            let was_connected = self.status.borrow().connected;
            let said: Arc<str> = error.to_string().into();
            // One line for each kind of error, and not one for each attempt.
            let kind = std::mem::discriminant(&error);
            if was_connected || reported != Some(kind) {
                tracing::warn!(%error, "the feed of the upstream is away; connecting again");
                reported = Some(kind);
            }
            self.status.send_modify(|status| {
                status.connected = false;
                status.error = Some(said);
            });
            if matches!(error, FollowError::Stopped) {
                return;
            }
            if was_connected && began.elapsed() > WAIT_MAX {
                wait = WAIT_MIN;
            }
            let jittered = wait.mul_f64(0.5 + fastrand::f64() / 2.0);
            self.pause(jittered).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    /// Waits, and lets the thread look after its store in the meantime.
    async fn pause(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until {
            let _ = self.commands.try_send(Command::Tick);
            sleep(TICK.min(until - Instant::now())).await;
        }
    }

    /// Receives one feed until it ends.
    async fn session(&mut self) -> Result<std::convert::Infallible, FollowError> {
        while self.failures.try_recv().is_ok() {}
        let after = self.applied().await?;
        let error = match self.receive_feed(after).await {
            Err(error) => error,
            Ok(never) => match never {},
        };
        // The thread may find an error in the last messages. This error says more than the end of
        // the feed.
        self.applied().await?;
        Err(self.failures.try_recv().unwrap_or(error))
    }

    /// Waits until the thread has applied all messages, and returns the position of the relay.
    async fn applied(&self) -> Result<Option<Cursor>, FollowError> {
        let (sender, applied) = oneshot::channel();
        self.commands.send(Command::Applied(sender)).await.map_err(|_| FollowError::Stopped)?;
        applied.await.map_err(|_| FollowError::Stopped)
    }

    async fn receive_feed(
        &mut self,
        after: Option<Cursor>,
    ) -> Result<std::convert::Infallible, FollowError> {
        let mut response = self.link.feed(after).await?;
        let mut received = BytesMut::new();
        let (mut silent_since, mut bytes) = (Instant::now(), 0);
        loop {
            tokio::select! {
                biased;
                failure = self.failures.recv() => return Err(failure.unwrap_or(FollowError::Stopped)),
                chunk = response.chunk() => {
                    let chunk = chunk.map_err(unreachable)?.ok_or(FollowError::Ended)?;
                    bytes += chunk.len();
                    if self.receive(&mut received, &chunk).await? || bytes >= PROGRESS_BYTES_MIN {
                        (silent_since, bytes) = (Instant::now(), 0);
                    }
                }
                () = sleep(TICK) => drop(self.commands.try_send(Command::Tick)),
            }
            if silent_since.elapsed() > SILENCE_MAX {
                return Err(FollowError::Silent);
            }
        }
    }

    /// Passes complete messages on. Returns whether there were any.
    async fn receive(&self, received: &mut BytesMut, chunk: &Bytes) -> Result<bool, FollowError> {
        received.extend_from_slice(chunk);
        let mut has_message = false;
        while let Some(message) = wire::split(received)? {
            let sent = self.commands.send(Command::Message(message)).await;
            sent.map_err(|_| FollowError::Stopped)?;
            has_message = true;
        }
        Ok(has_message)
    }
}

/// Answers the questions where the upstream ends. Readers of this relay ask if they have an id that
/// the relay does not know. Relays that follow this relay ask too.
struct Questions {
    link: Link,
    commands: mpsc::Sender<Command>,
    connected: watch::Receiver<UpstreamStatus>,
}

impl Questions {
    /// Answers until the hub is closed.
    async fn answer<T: Send + Sync + 'static>(
        mut self,
        readers: WaitingReaders<T>,
        mut asked: mpsc::Receiver<Question>,
    ) {
        loop {
            let (mut of_readers, mut of_relays) = (None, Vec::new());
            tokio::select! {
                task = poll_fn(|cx| readers.poll_task(cx)) => match task {
                    FollowerTask::AskForEnd(question) => of_readers = Some(question),
                    _ => return,
                },
                question = asked.recv() => {
                    let Some(question) = question else { return };
                    of_relays.push(question);
                }
            }
            if of_readers.is_some() {
                // The thread that applies the feed then ends the wait of these readers in time.
                let _ = self.commands.send(Command::Wait).await;
            }
            let is_connected = self.wait_for_upstream().await;
            // One answer is enough for all questions that have arrived until now.
            while let Ok(question) = asked.try_recv() {
                of_relays.push(question);
            }
            of_relays.retain(|question| !question.is_closed());
            if of_readers.is_none() && of_relays.is_empty() {
                continue;
            }
            let end = if is_connected { self.link.end().await } else { None };
            match (of_readers, end) {
                (Some(question), Some(end)) => readers.confirm(question, end),
                (Some(question), None) => readers.fail(question),
                (None, _) => {}
            }
            if !of_relays.is_empty() {
                let answer = Command::Answer { questions: of_relays, end };
                let _ = self.commands.send(answer).await;
            }
        }
    }

    /// Waits until the upstream is connected. Returns `false` if that takes too long.
    async fn wait_for_upstream(&mut self) -> bool {
        let connected = self.connected.wait_for(|status| status.connected);
        timeout(QUESTION_WITHIN, connected).await.is_ok_and(|status| status.is_ok())
    }
}
