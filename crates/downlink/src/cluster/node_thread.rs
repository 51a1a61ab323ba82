//! The thread of a node. It owns the node, its log and its connection to the engine. A node is a
//! hub that is part of a cluster. The engine keeps the events of all nodes in one list, the
//! journal.
//!
//! The thread has an async runtime of its own. So the newest entries of the journal are read even
//! while the program's other tasks are busy, and a slow disk of the cache delays nothing else.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use downlink_cluster::{Driver, History, HubId, Journal, Node, NodeSettings, Position};
use downlink_log::{
    AppendError, CONFIRM_WITHIN, Cursor, FollowerTask, Timestamp, store::NodeState,
};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    watch,
};

use super::{log::ClusterLog, publishes::Publishes};
use crate::hub::{
    ClusterNode, ClusterStatus, HubApplier, HubError, NodeMessage, Question, QueueEnd,
    WaitingReaders,
};

/// A relay, which follows this hub, may ask where the journal ends. This is the maximum number of
/// such questions that wait for the node.
pub(super) const QUESTIONS_MAX: usize = 64;

/// The maximum number of publishes that the thread takes from the queue before it looks after the
/// journal.
const PUBLISHES_PER_TURN: usize = 1_024;

/// If the program does not read the messages of nodes, the thread tries again after this time.
const PROGRAM_BUSY: Duration = Duration::from_millis(10);

/// The time between two reports of the node's state. Metrics are read less often.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// How long the thread sleeps at most. It wakes up for heartbeats more often anyway.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// The parts of a hub that the thread owns.
pub(super) struct Parts<T: Send + Sync + 'static> {
    /// The name of the node.
    pub(super) name: Box<str>,
    /// The state of the node that the cache has kept.
    pub(super) kept: NodeState,
    pub(super) applier: HubApplier<T>,
    pub(super) queue: QueueEnd,
    /// When the hub was made.
    pub(super) began: Timestamp,
    pub(super) readers: WaitingReaders<T>,
    /// Questions of relays for the end of the journal.
    pub(super) asked: mpsc::Receiver<Question>,
    pub(super) status: watch::Sender<ClusterStatus>,
    pub(super) messages: mpsc::Sender<NodeMessage>,
}

/// Starts the thread. It ends when the hub is closed.
pub(super) fn start<T, C, F, J>(mut parts: Parts<T>, connect: C) -> Result<(), HubError>
where
    C: FnOnce() -> F + Send + 'static,
    F: Future<Output = (HubId, J)>,
    T: Send + Sync + 'static,
    J: Journal + Send + 'static,
    J::Tail: Send,
{
    let failed = |error: std::io::Error| HubError::Cluster(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let builder = std::thread::Builder::new().name("downlink-node".to_owned());
    let started = builder.spawn(move || {
        runtime.block_on(async move {
            let connected = {
                let mut connect = pin!(connect());
                let mut tick = tokio::time::interval(SLEEP_MAX);
                poll_fn(|cx| {
                    while tick.poll_tick(cx).is_ready() {
                        parts.applier.look_again();
                        parts.applier.idle();
                    }
                    parts.wait(connect.as_mut(), cx)
                })
                .await
            };
            if let Some((hub, journal)) = connected {
                NodeThread::new(parts, hub, journal).run().await;
            }
        });
    });
    started.map(drop).map_err(failed)
}

impl<T: Send + Sync + 'static> Parts<T> {
    /// Waits until the engine is reached, and refuses publishes meanwhile. `None` if the hub is
    /// closed. The questions of readers wait.
    fn wait<R>(
        &mut self,
        connect: Pin<&mut impl Future<Output = R>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<R>> {
        loop {
            match self.queue.poll_next(cx.waker()) {
                Poll::Ready(Some(queued)) => {
                    queued.outcome.resolve(Err(AppendError::EngineAway));
                    self.queue.release(queued.size);
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        // A question that is dropped has no answer, and the relay asks again.
        while let Poll::Ready(Some(_)) = self.asked.poll_recv(cx) {}
        if self.readers.poll_closed(cx) {
            self.queue.close();
            return Poll::Ready(None);
        }
        connect.poll(cx).map(Some)
    }
}

/// The state of the thread when it has reached the engine.
struct NodeThread<T: Send + Sync + 'static, J: Journal> {
    driver: Driver<J, ClusterLog<T>>,
    queue: QueueEnd,
    publishes: Publishes,
    readers: WaitingReaders<T>,
    /// The open question of the log's waiting readers, and the time at which it was asked.
    of_readers: Option<(u64, Timestamp)>,
    asked: mpsc::Receiver<Question>,
    /// The open questions of relays, each with the time at which it was asked.
    of_relays: Vec<(Question, Timestamp)>,
    status: watch::Sender<ClusterStatus>,
    messages: mpsc::Sender<NodeMessage>,
    began: Instant,
    /// When the state is reported next.
    tell_at: Timestamp,
    /// The position that was reported last.
    position: Position,
    is_closing: bool,
}

impl<T: Send + Sync + 'static, J: Journal + Send + 'static> NodeThread<T, J>
where
    J::Tail: Send,
{
    fn new(parts: Parts<T>, hub: HubId, journal: J) -> Self {
        let Parts { began: made, name, kept, mut applier, queue, readers, asked, status, messages } =
            parts;
        let began = Instant::now();
        let settings = NodeSettings { name, ..NodeSettings::new(hub) };
        let history =
            kept.hub.and_then(|state| History::restore(&settings.rules, &state, kept.links));
        if let Some(history) = &history {
            applier.set_lost_ends(history.lost_ends());
        }
        let kept_until =
            history.as_ref().map_or(Position::ORIGIN, |history| history.chain().last());
        let node = Node::new(at(began), settings, ClusterLog::new(applier, made), history);
        Self {
            driver: Driver::new(node, journal, random),
            publishes: Publishes::new(Arc::clone(&queue.0)),
            queue,
            readers,
            of_readers: None,
            asked,
            of_relays: Vec::new(),
            status,
            messages,
            began,
            tell_at: Timestamp::default(),
            position: kept_until,
            is_closing: false,
        }
    }

    async fn run(mut self) {
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        poll_fn(|cx| {
            let Some(wait) = self.turn(cx) else { return Poll::Ready(()) };
            if wait.is_zero() {
                // The tasks of the connection share this thread, so they get their turn first.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            sleep.as_mut().reset(tokio::time::Instant::now() + wait);
            if sleep.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
    }

    /// Does everything that can be done now. Returns the time after which this must be called
    /// again, unless the waker is called earlier. `None` if the thread must end.
    fn turn(&mut self, cx: &mut Context<'_>) -> Option<Duration> {
        let now = at(self.began);
        let is_busy = self.take_publishes(now, cx);
        self.take_questions(now, cx);
        if self.is_closing {
            // The program may no longer read messages.
            self.driver.node_mut().log_mut().messages.clear();
        } else if !self.pass_messages() {
            return Some(PROGRAM_BUSY);
        }
        let next = self.driver.poll(now, cx);
        let is_live = self.driver.node().serves_readers();
        self.driver.node_mut().log_mut().is_live = is_live;
        while let Some((id, answer)) = self.driver.node_mut().poll_answer() {
            self.publishes.answer(self.driver.node().log(), id, answer);
        }
        let is_answered = self.answer_questions(now);
        self.tell_status(now);
        let idle_at = self.driver.node_mut().log_mut().applier.idle();
        if self.is_closing && self.publishes.is_empty() {
            return None;
        }
        let node = self.driver.node();
        if is_busy || is_answered || node.has_requests() || !node.log().messages.is_empty() {
            return Some(Duration::ZERO);
        }
        let until = Duration::from_millis(next.as_millis().saturating_sub(now.as_millis()));
        let idle = idle_at.saturating_duration_since(Instant::now());
        Some(until.min(idle).min(SLEEP_MAX))
    }

    /// Passes messages of nodes to the program. Returns `false` if the program does not read them.
    /// The node then waits for the program.
    fn pass_messages(&mut self) -> bool {
        let log = self.driver.node_mut().log_mut();
        while let Some(message) = log.messages.pop_front() {
            match self.messages.try_send(message) {
                // A program that has dropped the receiver needs no messages.
                Ok(()) | Err(TrySendError::Closed(_)) => {}
                Err(TrySendError::Full(message)) => {
                    log.messages.push_front(message);
                    return false;
                }
            }
        }
        true
    }

    /// Gives waiting publishes to the node. Returns whether there may be more.
    fn take_publishes(&mut self, now: Timestamp, cx: &Context<'_>) -> bool {
        for _ in 0..PUBLISHES_PER_TURN {
            match self.queue.poll_next(cx.waker()) {
                Poll::Ready(Some(queued)) => {
                    self.publishes.publish(now, self.driver.node_mut(), queued);
                }
                Poll::Ready(None) | Poll::Pending => return false,
            }
        }
        true
    }

    /// Takes the questions of readers and relays for the end of the journal.
    fn take_questions(&mut self, now: Timestamp, cx: &mut Context<'_>) {
        // While a question is open, the log asks no other one.
        match self.readers.poll_task(cx) {
            Poll::Ready(FollowerTask::AskForEnd(question)) => {
                self.of_readers = Some((question, now));
                self.driver.node_mut().log_mut().applier.look_again();
            }
            Poll::Ready(FollowerTask::Close | _) => {
                self.is_closing = true;
                self.queue.close();
            }
            Poll::Pending => {}
        }
        while let Poll::Ready(Some(question)) = self.asked.poll_recv(cx) {
            if self.of_relays.len() < QUESTIONS_MAX {
                self.of_relays.push((question, now));
            }
        }
    }

    /// Answers the questions whose answer is known, and those that have waited for too long.
    /// Returns true if there were questions and none is open any more, so that the log can ask the
    /// next one.
    fn answer_questions(&mut self, now: Timestamp) -> bool {
        let is_over = |asked: Timestamp| now >= asked.after(CONFIRM_WITHIN);
        let node = self.driver.node_mut();
        let end = node.log().applier.position();
        let mut has_everything = |asked| node.has_everything_since(now, asked);
        let before = self.of_readers.is_some() || !self.of_relays.is_empty();
        if let Some((question, asked)) = self.of_readers {
            match (has_everything(asked), end) {
                (true, Some(end)) => {
                    self.readers.confirm(question, end);
                    self.of_readers = None;
                }
                _ if is_over(asked) => {
                    self.readers.fail(question);
                    self.of_readers = None;
                }
                _ => {}
            }
        }
        let mut open: Vec<(Question, Timestamp)> = Vec::new();
        for (question, asked) in self.of_relays.drain(..) {
            let answer: Option<Cursor> = end.filter(|_| has_everything(asked));
            if answer.is_some() || is_over(asked) {
                // A relay that has gone away asks again when it needs an answer.
                let _ = question.send(answer);
            } else if !question.is_closed() {
                open.push((question, asked));
            }
        }
        self.of_relays = open;
        let is_open = self.of_readers.is_some() || !self.of_relays.is_empty();
        // A question that was answered frees the log to ask the next one.
        before && !is_open
    }

    /// Reports the state of the node. Changes for which other tasks wait are reported at once, and
    /// all others from time to time.
    fn tell_status(&mut self, now: Timestamp) {
        let (node, known) = (self.driver.node(), self.status.borrow());
        let is_new = node.history().map(|history| history.key()) != known.key.as_ref()
            || node.serves_readers() && !known.reached;
        drop(known);
        if now < self.tell_at && !is_new {
            return;
        }
        self.tell_at = now.after(TELL_EVERY);
        let status = self.driver.node().status();
        let key = self.driver.node().history().map(|history| *history.key());
        let nodes = self.driver.node().peers().map(|peer| ClusterNode {
            name: peer.name.clone(),
            lag: peer.position.previous().since(peer.applied),
            has_cache: peer.has_cache,
            version_max: peer.version_max,
        });
        let nodes: Vec<ClusterNode> = nodes.collect();
        let is_progress = status.position > self.position;
        self.position = status.position;
        self.status.send_if_modified(|known| {
            let before = (known.reached, known.key);
            known.update(&status);
            known.key = key;
            known.nodes = nodes;
            if is_progress {
                known.heard = Some(Instant::now());
            }
            before != (known.reached, known.key)
        });
    }
}

/// The time of the node: the milliseconds since the thread began.
fn at(began: Instant) -> Timestamp {
    Timestamp::from_millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// A random number of the operating system, which a clone of this process does not get.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without random numbers, the time and the process still differ from those of other nodes.
    if getrandom::fill(&mut bytes).is_err() {
        return fastrand::u64(..);
    }
    u64::from_le_bytes(bytes)
}
