//! The tail of a journal: reads a stream with a pull consumer, and checks each position.
//!
//! The client and the consumer are only a pipe. A position that they leave out is looked up at the
//! leader of the stream. Only if the leader does not have it either, it is a hole. A heartbeat says
//! which position the consumer has reached, so positions that were left out at the end are found
//! too. A position that comes again is an error: an older stream may have been put back, and only
//! the node can compare the entries. If nothing arrives for [`SILENCE_MAX`], not even a heartbeat,
//! the tail fails, and its connection is given up.
//!
//! A consumer on a server that is cut off from its cluster sends heartbeats for ever. So an idle
//! tail asks the leader of the stream for its state, and fails if the leader does not answer or is
//! ahead of the consumer.
//!
//! A cluster creates consumers only while its servers together have a leader. This leader has
//! another role than the leader of the stream. While the cluster has no leader, a tail asks the
//! leader of the stream for one entry after the other.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_nats::{Message, StatusCode, Subscriber};
use downlink_cluster::{JournalError, Position, RawEntry, Tail, TailItem};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    api::{self, Delivery, Description},
    connection::{Connection, MESSAGES_MAX},
    engine::Engine,
    stream::nanos,
};

/// The time after which a server without messages sends a heartbeat.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// The time without a message or a heartbeat after which a tail fails: two heartbeats are missing.
pub const SILENCE_MAX: Duration = Duration::from_millis(2_500);
/// The number of questions in a row that the leader of the stream may leave without an answer. A
/// tail asks after each heartbeat, so these questions take
/// [`UNUSABLE_AFTER`](crate::UNUSABLE_AFTER). At the next heartbeat, the tail fails.
const UNANSWERED_MAX: u32 = 3;
/// The time after which a server removes the consumer of a dropped tail. It is longer than a pause
/// of this program that readers survive.
pub const CONSUMER_KEPT: Duration = Duration::from_secs(30);
/// The number of messages that a request asks for. The next request is sent when all of them have
/// arrived. The server counts the messages and bytes of each request. If the bytes are used up
/// exactly, the request ends, and the server does not say so. With one request at a time, the tail
/// can count the messages and bytes too. Between two requests, the tail waits for the server, so a
/// request asks for many messages. The limit of bytes bounds the memory for these messages.
const MESSAGES_PER_PULL: usize = 4_096;
/// The number of bytes that a request asks for. At 1 Gbit/s, they take 67 milliseconds.
const BYTES_PER_PULL: usize = 8 * 1_024 * 1_024;
/// The time after which a tail repeats a request that no server has taken. After a server has
/// confirmed a new consumer, it may take a moment until the server takes requests for it.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// The maximum number of such repeats in a row. Together they take a second.
const ASK_AGAIN_MAX: u32 = 20;
/// The maximum time for creating a consumer.
const CREATE_WITHIN: Duration = Duration::from_secs(1);
/// The time for which a tail does without a consumer. Then it fails, so the next tail tries to
/// create one.
const WITHOUT_CONSUMER: Duration = Duration::from_secs(5);
/// The time after which a tail without a consumer asks for the next entry again. A longer time
/// would delay publishers, which wait for the entry. Each question costs the leader about as much
/// as an append.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The time after which a request for messages ends.
const PULL_EXPIRES: Duration = Duration::from_secs(30);

const _: () = assert!(MESSAGES_PER_PULL < MESSAGES_MAX);

type Step = (Result<TailItem, JournalError>, Option<Box<Reader>>);

/// Reads a stream from a position on.
///
/// After an error it yields only errors.
///
/// It does nothing while it is not polled, and can be dropped at any time. At most 4,096 entries
/// wait in memory until they are polled. They have at most 8 MiB, or twice the largest message of
/// the server if that is more.
pub struct JetStreamTail {
    /// The next item, and the reader for the items after it. `None` after an error.
    next: Option<Pin<Box<dyn Future<Output = Step> + Send>>>,
}

impl JetStreamTail {
    pub(crate) fn new(engine: Arc<Engine>, from: Position) -> Self {
        Self { next: Some(Box::pin(open(engine, from))) }
    }
}

impl Tail for JetStreamTail {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<TailItem, JournalError>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(Err(JournalError::Unavailable));
        };
        next.as_mut().poll(cx).map(|(item, reader)| {
            self.next = reader.map(|reader| Box::pin(reader.next()) as _);
            item
        })
    }
}

impl fmt::Debug for JetStreamTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStreamTail").finish_non_exhaustive()
    }
}

/// Opens the tail, and returns its first item.
async fn open(engine: Arc<Engine>, from: Position) -> Step {
    engine.wait_for_tail().await;
    match Reader::open(engine, from.max(Position::FIRST)).await {
        Ok(reader) => Box::new(reader).next().await,
        Err(error) => (Err(error), None),
    }
}

/// The origin of the entries.
enum Source {
    Consumer(Box<Messages>),
    /// The leader of the stream, until this time.
    Leader(Instant),
}

/// An open tail.
struct Reader {
    engine: Arc<Engine>,
    source: Source,
    /// The position of the next entry.
    next: Position,
    /// Items that the tail yields before it reads on.
    items: VecDeque<TailItem>,
    /// An entry that has arrived before the positions in front of it, and the number of messages
    /// after it. The entry waits until these positions are looked up.
    ahead: Option<(RawEntry, u64)>,
    /// Whether the tail has yielded an entry since it has last said that there are no more.
    has_news: bool,
    /// The last position of the stream when its leader was last asked.
    leader_last: Position,
}

impl Reader {
    async fn open(engine: Arc<Engine>, from: Position) -> Result<Self, JournalError> {
        let bounds = engine.same().await?.bounds();
        let created = timeout(CREATE_WITHIN, Messages::open(&engine, from)).await;
        let source = match created.unwrap_or(Err(JournalError::Unavailable)) {
            Ok(messages) => Source::Consumer(Box::new(messages)),
            Err(JournalError::Unavailable | JournalError::Full) => {
                Source::Leader(Instant::now() + WITHOUT_CONSUMER)
            }
            Err(error) => return Err(error),
        };
        let mut items = VecDeque::new();
        let mut next = from;
        if from < bounds.first {
            items.push_back(TailItem::Hole(from..bounds.first));
            next = bounds.first;
        }
        // If the stream ends before `from`, the consumer waits without an error.
        if next > bounds.last {
            items.push_back(TailItem::CaughtUp(bounds.last));
        }
        let (ahead, has_news, leader_last) = Default::default();
        Ok(Self { engine, source, next, items, ahead, has_news, leader_last })
    }

    async fn next(mut self: Box<Self>) -> Step {
        loop {
            if let Some(item) = self.items.pop_front() {
                return (Ok(item), Some(self));
            }
            if let Err(error) = self.read().await {
                return (Err(error), None);
            }
        }
    }

    /// Reads the next entry, or looks up one position that was left out.
    async fn read(&mut self) -> Result<(), JournalError> {
        match &mut self.source {
            Source::Leader(until) if Instant::now() < *until => self.ask_leader().await,
            Source::Leader(_) => Err(JournalError::Unavailable),
            Source::Consumer(messages) => {
                let received = match self.ahead.take() {
                    Some((entry, pending)) => Received::Entry(entry, pending),
                    None => { messages.next().await }
                        .inspect_err(|_| self.engine.connections().give_up(&messages.connection))?,
                };
                match received {
                    Received::Entry(entry, pending) => return self.take(entry, pending).await,
                    Received::Heartbeat(at) if at >= self.next => return self.look_up().await,
                    Received::Heartbeat(at) if at < self.leader_last => {
                        return Err(JournalError::Unavailable);
                    }
                    Received::Heartbeat(_) => {}
                    Received::Leader(description) => {
                        self.engine.check(&description)?;
                        self.leader_last = description.bounds().last;
                    }
                }
                Ok(())
            }
        }
    }

    /// Asks the leader of the stream for a position that the consumer has passed without a message.
    async fn look_up(&mut self) -> Result<(), JournalError> {
        // The bounds are read first. So an entry that is appended in the meantime does not count as
        // missing.
        let last = self.engine.same().await?.bounds().last;
        let found = self.engine.first_from(self.next).await?;
        match found.filter(|entry| entry.position <= last) {
            Some(entry) => {
                self.push_hole(entry.position).await?;
                self.push(entry);
            }
            // The stream has lost its end.
            None if last < self.next => return Err(JournalError::Unavailable),
            None => self.push_hole(last.next()).await?,
        }
        if self.next > last {
            self.push_caught_up();
        }
        Ok(())
    }

    /// Asks the leader of the stream for the next entry.
    async fn ask_leader(&mut self) -> Result<(), JournalError> {
        match self.engine.first_from(self.next).await? {
            Some(entry) => {
                self.push_hole(entry.position).await?;
                self.push(entry);
            }
            None => {
                if self.has_news {
                    self.push_caught_up();
                }
                sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    /// Takes an entry of the consumer, which has `pending` messages after it.
    async fn take(&mut self, entry: RawEntry, pending: u64) -> Result<(), JournalError> {
        if entry.position > self.next {
            let found = self.engine.first_from(self.next).await?;
            // The stream has lost the entry that has just arrived.
            let found = found.ok_or(JournalError::Unavailable)?;
            self.push_hole(found.position.min(entry.position)).await?;
            if found.position < entry.position {
                self.push(found);
            }
            self.ahead = Some((entry, pending));
        } else if entry.position == self.next {
            self.push(entry);
            if pending == 0 {
                self.push_caught_up();
            }
        } else {
            return Err(JournalError::Unavailable);
        }
        Ok(())
    }

    fn push(&mut self, entry: RawEntry) {
        self.next = entry.position.next();
        self.has_news = true;
        self.items.push_back(TailItem::Entry(entry));
    }

    /// Notes that the stream has no entries before `until`, if it is still the same stream.
    async fn push_hole(&mut self, until: Position) -> Result<(), JournalError> {
        if until > self.next {
            self.engine.same().await?;
            self.items.push_back(TailItem::Hole(self.next..until));
            self.next = until;
        }
        Ok(())
    }

    fn push_caught_up(&mut self) {
        self.has_news = false;
        self.items.push_back(TailItem::CaughtUp(self.next.previous()));
    }
}

/// The next thing that a consumer sends.
enum Received {
    /// An entry, and the number of messages after it.
    Entry(RawEntry, u64),
    /// There is no message now. The consumer has reached this position.
    Heartbeat(Position),
    /// The leader of the stream has answered.
    Leader(Box<Description>),
}

/// The messages of a consumer.
struct Messages {
    connection: Connection,
    subscriber: Subscriber,
    /// The subject of requests for messages.
    requests: String,
    /// The subject to which the server sends messages.
    inbox: String,
    /// How many messages and bytes the newest request can still bring. If no messages are left, the
    /// request has ended.
    messages_left: usize,
    bytes_left: usize,
    /// The number of requests that no server has taken, since the last message.
    untaken: u32,
    /// The subject of questions to the leader of the stream.
    questions: String,
    /// The number of questions since the leader's last answer.
    unanswered: u32,
}

impl Messages {
    /// Creates a consumer that begins at `from`.
    async fn open(engine: &Engine, from: Position) -> Result<Self, JournalError> {
        let connection = engine.connection().await.map_err(|failure| failure.journal_error())?;
        let inbox = connection.client.new_inbox();
        let consumer = inbox.rsplit('.').next().unwrap_or(&inbox);
        let stream_name = engine.stream();
        // The consumer reads the stream once, and the server keeps the consumer in memory.
        let config = json!({
            "name": consumer, "deliver_policy": "by_start_sequence", "opt_start_seq": from.get(),
            "ack_policy": "none", "replay_policy": "instant", "mem_storage": true,
            "num_replicas": 1, "inactive_threshold": nanos(CONSUMER_KEPT),
        });
        let create = json!({ "stream_name": stream_name, "config": config });
        let request = format!("CONSUMER.CREATE.{stream_name}.{consumer}");
        let created: Result<Value, _> = engine.request(&request, &create).await;
        created.map_err(|failure| failure.journal_error())?;
        let subscribed = connection.client.subscribe(inbox.clone()).await;
        let subscriber = subscribed.map_err(|_| JournalError::Unavailable)?;
        let requests = format!("{}.CONSUMER.MSG.NEXT.{stream_name}.{consumer}", api::PREFIX);
        let questions = format!("{}.STREAM.INFO.{stream_name}", api::PREFIX);
        let (messages_left, bytes_left, untaken, unanswered) = Default::default();
        Ok(Self {
            connection,
            subscriber,
            requests,
            inbox,
            messages_left,
            bytes_left,
            untaken,
            questions,
            unanswered,
        })
    }

    async fn next(&mut self) -> Result<Received, JournalError> {
        loop {
            if self.messages_left == 0 {
                self.ask().await?;
            }
            let message = timeout(SILENCE_MAX, self.subscriber.next()).await;
            let message = message.ok().flatten().ok_or(JournalError::Unavailable)?;
            match message.status {
                // Messages of a stream name a subject for their acknowledgements. A message without
                // one is an answer of the leader.
                None if message.reply.is_none() => {
                    let description: Result<Description, _> = api::decode(&message.payload);
                    if let Ok(description) = description
                        && description.is_from_leader()
                    {
                        self.unanswered = 0;
                        return Ok(Received::Leader(Box::new(description)));
                    }
                }
                None | Some(StatusCode::OK) => {
                    self.count(message.length);
                    return entry(message).ok_or(JournalError::Unavailable);
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {
                    if self.unanswered >= UNANSWERED_MAX {
                        return Err(JournalError::Unavailable);
                    }
                    self.unanswered += 1;
                    self.publish(self.questions.clone(), Vec::new()).await?;
                    let reached = number(&message, "Nats-Last-Stream").unwrap_or(0);
                    return Ok(Received::Heartbeat(Position::new(reached)));
                }
                Some(StatusCode::NO_RESPONDERS) if self.untaken < ASK_AGAIN_MAX => {
                    self.untaken += 1;
                    self.messages_left = 0;
                    sleep(ASK_AGAIN).await;
                }
                // A request that ends in the usual way says how many of its messages are left.
                // Without this number, something is wrong: for example, the consumer was removed.
                // If it is zero, the tail has already counted the end of the request.
                Some(_) => match number(&message, "Nats-Pending-Messages") {
                    None => return Err(JournalError::Unavailable),
                    Some(0) => {}
                    Some(_) => self.messages_left = 0,
                },
            }
        }
    }

    /// Counts a message as the server does. Its length includes the subjects, the headers and the
    /// payload.
    fn count(&mut self, length: usize) {
        self.untaken = 0;
        self.bytes_left = self.bytes_left.saturating_sub(length);
        self.messages_left = self.messages_left.saturating_sub(1);
        if self.bytes_left == 0 {
            self.messages_left = 0;
        }
    }

    /// Asks for more messages.
    async fn ask(&mut self) -> Result<(), JournalError> {
        // A request must have room for one message of any size.
        let bytes_max = self.connection.client.max_payload().saturating_mul(2).max(BYTES_PER_PULL);
        let pull = json!({
            "batch": MESSAGES_PER_PULL, "max_bytes": bytes_max,
            "expires": nanos(PULL_EXPIRES), "idle_heartbeat": nanos(HEARTBEAT_EVERY),
        });
        let pull = pull.to_string().into_bytes();
        self.publish(self.requests.clone(), pull).await?;
        (self.messages_left, self.bytes_left) = (MESSAGES_PER_PULL, bytes_max);
        Ok(())
    }

    /// Publishes a request. Its answers arrive as messages.
    async fn publish(&self, subject: String, bytes: Vec<u8>) -> Result<(), JournalError> {
        let client = &self.connection.client;
        let publishing = client.publish_with_reply(subject, self.inbox.clone(), bytes.into());
        let published = timeout(SILENCE_MAX, publishing).await;
        published.ok().and_then(Result::ok).ok_or(JournalError::Unavailable)
    }
}

/// The number in a header.
fn number(message: &Message, header: &str) -> Option<u64> {
    message.headers.as_ref()?.get(header)?.as_str().parse().ok()
}

/// The entry in a message.
fn entry(message: Message) -> Option<Received> {
    let Delivery { sequence, time, pending } = Delivery::parse(message.reply?.as_str())?;
    let position = Position::new(sequence);
    let bytes = message.payload.into();
    Some(Received::Entry(RawEntry { position, time, bytes }, pending))
}
