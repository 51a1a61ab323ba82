//! The answers. The task of an answer publishes one token after another to the hub, which sends the
//! tokens to the clients. The task ends when the answer is complete, when a client stops it, or
//! when it has had no reader for a while.
//!
//! Invariant: every started answer ends with a last event. Only a closed hub prevents this event.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use downlink::{
    Hub, PublishError,
    hub::{HubError, HubRetention, Limits, Retention, Topic},
};
use serde::Serialize;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::pretend;

/// The time between two tokens. The text arrives about as fast as a person reads.
pub const TOKEN_EVERY: Duration = Duration::from_millis(60);

/// If an answer has no reader for this time, it stops. A real model costs money, so it should not
/// write an answer that no client reads. A page reloads in less time, so a reload does not stop the
/// answer.
pub const UNHEARD_MAX: Duration = Duration::from_secs(5);

/// The maximum number of answers that run at the same time. It is small, because a server with a
/// real model would also need a small limit.
pub const RUNNING_MAX: usize = 16;

/// How long clients can read an answer after its end.
const ENDED_KEEP: Duration = Duration::from_secs(60 * 60);

/// The maximum number of answers that the hub keeps, including ended answers. If the hub has this
/// many answers, it refuses a new answer.
const KEPT_MAX: usize = 1_000;

/// The maximum number of tokens of one answer that the hub keeps. The longest possible answer has
/// about 1,500 tokens, so every answer can be read from its beginning.
pub const TOKENS_MAX: usize = 4_000;

const WHOLE: Retention = Retention { events_max: TOKENS_MAX, ..Retention::DEFAULT };

/// A part of an answer.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The next part of the text.
    Token(String),
    /// The end of the answer.
    End(Ending),
}

/// The reason why an answer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The answer is complete.
    Complete,
    /// A client stopped the answer.
    Stopped,
    /// The answer had no reader for [`UNHEARD_MAX`].
    Unheard,
}

/// The reason why an answer does not start.
#[derive(Debug)]
pub enum Refused {
    /// [`RUNNING_MAX`] answers are already running.
    Busy,
    /// The hub did not accept the first event.
    Publish(PublishError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => {
                write!(f, "{RUNNING_MAX} answers are running. Wait until one of them has ended.")
            }
            Self::Publish(_) => f.write_str("the first event of the answer was not published"),
        }
    }
}

impl Error for Refused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Publish(error) => Some(error),
            Self::Busy => None,
        }
    }
}

/// All answers. Clones share the same answers.
#[derive(Clone, Debug)]
pub struct Answers {
    hub: Hub<Part>,
    /// The running answers: for each id, a signal that stops the answer.
    ///
    /// The lock is held for one read or change, and never across an await. No other lock is taken
    /// while it is held.
    running: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
}

impl Answers {
    /// Makes an empty set of answers.
    ///
    /// # Errors
    ///
    /// [`HubError`] if the settings are invalid. The tests check that they are valid.
    pub fn new() -> Result<Self, HubError> {
        let limits = Limits { topics_max: KEPT_MAX, ..Limits::default() };
        let retention = HubRetention::from(WHOLE).finished_keep(ENDED_KEEP);
        let hub = Hub::builder().json().retention(retention).limits(limits).build()?;
        Ok(Self { hub, running: Arc::default() })
    }

    /// The hub that the answers publish to.
    pub fn hub(&self) -> &Hub<Part> {
        &self.hub
    }

    /// The topic of an answer. Returns `None` if the hub has no answer with this id.
    pub fn topic_of(&self, id: &str) -> Option<Topic> {
        let topic = Topic::from_segments(segments(id)).ok()?;
        let overview = self.hub.topic_overview(&topic).ok()?;
        (overview.events > 0).then_some(topic)
    }

    /// The number of running answers.
    pub fn running(&self) -> usize {
        self.lock().len()
    }

    /// Starts the answer to a prompt in a new task and returns the id of the answer.
    ///
    /// # Errors
    ///
    /// [`Refused`] if no answer was started.
    pub fn begin(&self, prompt: &str) -> Result<String, Refused> {
        let mut tokens = pretend::tokens(prompt).into_iter();
        let running = self.enter()?;
        // The first token is published before the function returns the id. So the topic of the
        // answer exists when a client asks for the answer.
        let first = Part::Token(tokens.next().unwrap_or_default());
        let published = self.hub.to_segments(segments(&running.id)).publish(first);
        let _receipt = published.map_err(Refused::Publish)?;
        let id = running.id.clone();
        tokio::spawn(running.tell(tokens));
        Ok(id)
    }

    /// Stops an answer if it is running.
    pub fn stop(&self, id: &str) {
        if let Some(stop) = self.lock().get(id) {
            stop.notify_one();
        }
    }

    fn enter(&self) -> Result<Running, Refused> {
        let mut running = self.lock();
        if running.len() >= RUNNING_MAX {
            return Err(Refused::Busy);
        }
        let id = format!("{:016x}", fastrand::u64(..));
        let stop = Arc::new(Notify::new());
        running.insert(id.clone(), Arc::clone(&stop));
        Ok(Running { answers: self.clone(), id, stop })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The segments of an answer's topic.
fn segments(id: &str) -> [&str; 2] {
    ["answers", id]
}

/// A running answer. The answer counts as running until this value is dropped.
struct Running {
    answers: Answers,
    id: String,
    stop: Arc<Notify>,
}

impl Running {
    /// Publishes the tokens, and then the end of the answer.
    async fn tell(self, tokens: impl Iterator<Item = String>) {
        let topic = Topic::from_segments(segments(&self.id)).expect("an id is hexadecimal");
        let hub = &self.answers.hub;
        let mut heard_at = Instant::now();
        let mut ending = Ending::Complete;
        for token in tokens {
            tokio::select! {
                () = sleep(TOKEN_EVERY) => {}
                () = self.stop.notified() => {
                    ending = Ending::Stopped;
                    break;
                }
            }
            let Ok(overview) = hub.topic_overview(&topic) else { return };
            if overview.subscribers > 0 {
                heard_at = Instant::now();
            } else if heard_at.elapsed() >= UNHEARD_MAX {
                ending = Ending::Unheard;
                break;
            }
            if hub.to(&topic).publish(Part::Token(token)).is_err() {
                return;
            }
        }
        let _closed = hub.to(&topic).last().publish(Part::End(ending));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.answers.lock().remove(&self.id);
    }
}
