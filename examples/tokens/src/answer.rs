//! The answers: each publishes a token at a time until it is complete, stopped, or unheard.
//!
//! Invariant: an answer that was begun publishes a last event, or the hub is closed.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use downlink::{
    Hub, PublishError,
    hub::{HubBuilder, HubError, Limits, Retention},
};
use serde::Serialize;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use crate::pretend;

/// The time between two tokens: as fast as a person reads, and slow enough to watch.
pub const TOKEN_EVERY: Duration = Duration::from_millis(60);

/// An answer that nobody has listened to for so long stops: a reload takes less, and a model that
/// talks to nobody costs as much as one that is heard.
pub const UNHEARD_MAX: Duration = Duration::from_secs(5);

/// Answers at a time; a real model has room for few as well.
pub const RUNNING_MAX: usize = 16;

/// How long an ended answer can be read.
const ENDED_KEEP: Duration = Duration::from_secs(60 * 60);

/// Answers that are kept, running or ended. A newcomer is refused at the limit.
const KEPT_MAX: usize = 1_000;

/// Tokens that are kept of each answer: more than any has, so that each can be read from its
/// beginning. The longest prompt of the shortest words comes to about 1,500.
pub const TOKENS_MAX: usize = 4_000;

const WHOLE: Retention = Retention { events_max: TOKENS_MAX, ..Retention::DEFAULT };

/// A part of an answer.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// What comes next of the text.
    Token(String),
    /// Nothing follows.
    End(Ending),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// All is said.
    Complete,
    /// Somebody stopped it.
    Stopped,
    /// Nobody listened for [`UNHEARD_MAX`].
    Unheard,
}

/// No answer was begun.
#[derive(Debug)]
pub enum Refused {
    /// As many answers run as may.
    Busy,
    /// The hub took no event.
    Publish(PublishError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => {
                write!(f, "{RUNNING_MAX} answers are being given. Wait for one of them to end.")
            }
            Self::Publish(_) => f.write_str("the answer could not be begun"),
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

/// All answers. Clones are handles to the same ones.
#[derive(Clone, Debug)]
pub struct Answers {
    hub: Hub<Part>,
    /// By id, what tells a running answer to stop.
    ///
    /// The lock is held alone, for one look or change, and never across an await.
    running: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
}

impl Answers {
    /// No answers yet.
    ///
    /// # Errors
    ///
    /// [`HubError`] if the settings above contradict each other.
    pub fn new() -> Result<Self, HubError> {
        let limits = Limits { topics_max: KEPT_MAX, ..Limits::default() };
        let hub =
            HubBuilder::json().retention(WHOLE).limits(limits).finished_keep(ENDED_KEEP).build()?;
        Ok(Self { hub, running: Arc::default() })
    }

    /// The hub that the answers publish to.
    pub fn hub(&self) -> &Hub<Part> {
        &self.hub
    }

    /// The topic of an answer, if there is such an answer.
    pub fn topic_of(&self, id: &str) -> Option<String> {
        let topic = topic(id);
        let overview = self.hub.topic(&topic).ok()?;
        (overview.events > 0).then_some(topic)
    }

    /// How many answers run.
    pub fn running(&self) -> usize {
        self.lock().len()
    }

    /// Begins the answer to a prompt, in a task of its own, and gives its id.
    ///
    /// # Errors
    ///
    /// [`Refused`]; then nothing was begun.
    pub fn begin(&self, prompt: &str) -> Result<String, Refused> {
        let mut tokens = pretend::tokens(prompt).into_iter();
        let running = self.enter()?;
        // The first token at once: an answer is there as soon as it has an id.
        let first = Part::Token(tokens.next().unwrap_or_default());
        let _receipt = self.hub.to(topic(&running.id)).publish(first).map_err(Refused::Publish)?;
        let id = running.id.clone();
        tokio::spawn(running.tell(tokens));
        Ok(id)
    }

    /// Tells an answer to stop, if it runs.
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

fn topic(id: &str) -> String {
    format!("answers/{id}")
}

/// A running answer; it counts as one until this is dropped.
struct Running {
    answers: Answers,
    id: String,
    stop: Arc<Notify>,
}

impl Running {
    /// Publishes the tokens and then the end.
    async fn tell(self, tokens: impl Iterator<Item = String>) {
        let topic = topic(&self.id);
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
            let Ok(overview) = hub.topic(&topic) else { return };
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
