//! The thread that applies the messages of a feed to the log of a relay.

use std::sync::Arc;

use bytes::Bytes;
use downlink_log::{Address, Applied, Cursor, Floor};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    error::{FollowError, QUESTIONS_MAX},
    wire::{self, FLOORS_MAX, HOPS_MAX, Message, Opening, WireError},
};
use crate::hub::{Hop, HubApplier, HubError, Question, UpstreamStatus};

/// What the thread is told to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Apply an encoded message.
    Message(Bytes),
    /// Tell the position of the relay, which has applied all earlier messages.
    Applied(oneshot::Sender<Option<Cursor>>),
    /// Answer questions: the end of the upstream, once the relay has everything below it. `None` if
    /// the upstream could not be asked.
    Answer { questions: Vec<Question>, end: Option<Cursor> },
    /// Look after the store.
    Tick,
    /// Look after the readers that have begun to wait.
    Wait,
}

/// The state of the thread.
pub(super) struct Applying<T: Send + Sync + 'static> {
    applier: HubApplier<T>,
    status: Arc<watch::Sender<UpstreamStatus>>,
    failures: mpsc::Sender<FollowError>,
    hop: Hop,
    /// Whether the messages of this feed are applied. False after a failure, until the next feed
    /// begins.
    is_open: bool,
    /// Whether this feed has said where it begins.
    has_opening: bool,
    /// Whether a feed has begun, and the relay has kept what it applied.
    has_begun: bool,
    /// Floors of the chunk that follows.
    floors: Vec<(Address, Floor)>,
    /// Questions, each with the end that the relay has not reached yet.
    waiting: Vec<(Question, Cursor)>,
}

impl<T: Send + Sync + 'static> Applying<T> {
    /// Starts the thread. It ends when the sender of the commands is dropped.
    pub(super) fn start(
        hop: Hop,
        applier: HubApplier<T>,
        status: Arc<watch::Sender<UpstreamStatus>>,
        commands_max: usize,
    ) -> Result<(mpsc::Sender<Command>, mpsc::Receiver<FollowError>), HubError> {
        let (sender, mut commands) = mpsc::channel(commands_max);
        let (failures, failed) = mpsc::channel(1);
        let has_begun = applier.position().is_some();
        let mut applying = Self {
            applier,
            status,
            failures,
            hop,
            is_open: false,
            has_opening: false,
            has_begun,
            floors: Vec::new(),
            waiting: Vec::new(),
        };
        let thread = std::thread::Builder::new().name("downlink-relay".to_owned());
        let started = thread.spawn(move || {
            while let Some(command) = commands.blocking_recv() {
                applying.execute(command);
            }
        });
        started.map_err(|error| HubError::Upstream(error.to_string()))?;
        Ok((sender, failed))
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Message(message) => {
                if let Err(error) = self.apply(&message) {
                    (self.is_open, self.floors) = (false, Vec::new());
                    // If the channel is full, the task has been told of an earlier failure.
                    let _ = self.failures.try_send(error);
                }
                self.answer();
            }
            Command::Applied(sender) => {
                // The work on the cache may fail, so it is done before the position is told.
                self.applier.idle();
                (self.is_open, self.has_opening) = (true, false);
                self.floors = Vec::new();
                self.has_begun = self.applier.position().is_some();
                let _ = sender.send(self.applier.position());
            }
            Command::Answer { questions, end: Some(end) } => {
                self.answer();
                // A question that is dropped has no answer, and the other relay asks again.
                let room = QUESTIONS_MAX.saturating_sub(self.waiting.len());
                let waiting = questions.into_iter().take(room).map(|question| (question, end));
                self.waiting.extend(waiting);
                self.answer();
            }
            Command::Answer { questions, end: None } => {
                for question in questions {
                    let _ = question.send(None);
                }
            }
            Command::Tick => {}
            Command::Wait => self.applier.look_again(),
        }
        self.applier.idle();
        // The work on the cache may have failed. The relay then has nothing, and needs a new feed.
        if self.is_open && self.has_begun && self.applier.position().is_none() {
            self.begin_again();
        }
    }

    fn begin_again(&mut self) {
        (self.is_open, self.has_begun) = (false, false);
        self.status.send_modify(|status| status.reached = false);
        // If the channel is full, the task has been told of an earlier failure.
        let _ = self.failures.try_send(FollowError::CacheFailed);
    }

    fn apply(&mut self, message: &[u8]) -> Result<(), FollowError> {
        if !self.is_open {
            return Ok(());
        }
        match wire::decode(message)? {
            // A feed has one opening, before its first chunk.
            Message::Opening(_) if self.has_opening => return Err(WireError::Malformed.into()),
            Message::Chunk(..) | Message::Floors(_) if !self.has_opening => {
                return Err(WireError::Malformed.into());
            }
            Message::Opening(Opening { start, hops }) => {
                if hops.contains(&self.hop) {
                    return Err(FollowError::Loop);
                }
                if hops.is_empty() || hops.len() >= HOPS_MAX {
                    return Err(FollowError::TooManyHops);
                }
                let resumed = start.resumed;
                tracing::info!(resumed, "the feed of the upstream is open");
                if !self.applier.begin(start) {
                    self.has_begun = false;
                    self.status.send_modify(|status| status.reached = false);
                    return Err(FollowError::OtherPosition);
                }
                self.has_opening = true;
                self.has_begun = true;
                self.status.send_modify(|status| {
                    status.hops = hops;
                    status.tried.clear();
                    status.reached &= resumed;
                    status.connected = true;
                    status.error = None;
                    status.heard = Some(Instant::now().into_std());
                });
            }
            Message::NotReady(mut hops) => {
                let this = hops.iter().rposition(|hop| *hop == self.hop);
                // In a loop, each relay passes on the hops after itself, so that the others find
                // themselves too. A loop of other relays must not make the list longer and longer.
                hops.drain(..this.map_or(0, |this| this + 1));
                hops.truncate(HOPS_MAX);
                self.status.send_modify(|status| status.tried = hops);
                return Err(this.map_or(FollowError::NotReady, |_| FollowError::Loop));
            }
            Message::Floors(floors) => {
                self.check_floors(floors.len())?;
                self.floors.extend(floors);
            }
            Message::Chunk(mut chunk, tail) => {
                self.check_floors(chunk.floors.len())?;
                chunk.floors.append(&mut self.floors);
                let lag = tail.get().saturating_sub(chunk.next.get());
                if self.applier.apply(chunk) == Applied::Restarted {
                    self.begin_again();
                    return Ok(());
                }
                self.status.send_modify(|status| {
                    status.lag = lag;
                    status.reached |= lag == 0;
                    status.heard = Some(Instant::now().into_std());
                });
            }
        }
        Ok(())
    }

    /// Refuses more floors before a chunk than the limit allows.
    fn check_floors(&self, more: usize) -> Result<(), WireError> {
        let is_within = self.floors.len() + more <= FLOORS_MAX;
        if is_within { Ok(()) } else { Err(WireError::Malformed) }
    }

    /// Answers the questions whose end the relay has reached.
    fn answer(&mut self) {
        self.waiting.retain(|(question, _)| !question.is_closed());
        let reached = self.waiting.extract_if(.., |(_, end)| self.applier.has_reached(*end));
        for (question, end) in reached.collect::<Vec<_>>() {
            let _ = question.send(Some(end));
        }
    }
}
