//! The jobs. A job splits numbers into primes, one number per step. After each step, it publishes
//! its progress to the hub, which sends it to the clients.
//!
//! Invariant: a started job publishes a last event, even if a step fails. Only a closed hub
//! prevents the last event.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use downlink::{
    Hub, PublishError,
    hub::{HubError, HubRetention, Limits, Topic},
};
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::sleep,
};

/// The maximum number of jobs that run at the same time. Each step uses a thread for a few
/// milliseconds, so this many jobs put little load on a small machine.
pub const JOBS_MAX: usize = 8;

/// The maximum number of steps of a job. Each step takes half a second, so a job takes at most
/// 25 s. With more steps, the user would wait too long.
pub const NUMBERS_MAX: usize = 50;

/// The highest number that a job accepts. To split this number, a job needs at most a million
/// divisions, which take a few milliseconds.
pub const NUMBER_MAX: u64 = 1_000_000_000_000;

/// How long clients can read a job after its end. This leaves time for a user to reload the page,
/// or for a computer to wake up from sleep.
const ENDED_KEEP: Duration = Duration::from_secs(10 * 60);

/// The maximum number of jobs that the hub keeps, including ended jobs. If the hub has this many
/// jobs, it refuses a new job.
const JOBS_KEPT_MAX: usize = 1_000;

/// The progress of a job. Each event has the whole state, so a reader needs only the newest event.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Progress {
    /// The job is running.
    Running {
        /// The number of steps done.
        done: usize,
        /// The total number of steps.
        steps: usize,
        /// The result of the last step.
        found: Option<String>,
    },
    /// The job is done.
    Done {
        /// The total number of steps.
        steps: usize,
        /// The result of each step.
        results: Vec<String>,
    },
    /// The job has failed.
    Failed {
        /// The number of steps done before the failure.
        done: usize,
        /// The total number of steps.
        steps: usize,
        /// The error.
        error: String,
    },
}

/// The reason why a job does not start.
#[derive(Debug)]
pub enum Refused {
    /// The request has too few or too many numbers.
    Steps {
        /// How many numbers the request has.
        given: usize,
    },
    /// [`JOBS_MAX`] jobs are already running.
    Busy,
    /// The hub did not accept the first event.
    Publish(PublishError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps { given } => {
                write!(f, "{given} numbers were given. Give 1 to {NUMBERS_MAX}, one per line.")
            }
            Self::Busy => write!(f, "{JOBS_MAX} jobs are running. Wait for one of them."),
            Self::Publish(_) => f.write_str("the first event of the job was not published"),
        }
    }
}

impl Error for Refused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Publish(error) => Some(error),
            Self::Steps { .. } | Self::Busy => None,
        }
    }
}

/// All jobs. Clones share the same jobs.
#[derive(Clone, Debug)]
pub struct Jobs {
    hub: Hub<Progress>,
    places: Arc<Semaphore>,
    pace: Duration,
}

impl Jobs {
    /// Makes an empty set of jobs. Before each step, a job waits for `pace`.
    ///
    /// # Errors
    ///
    /// [`HubError`] if the settings are invalid. The tests check that they are valid.
    pub fn new(pace: Duration) -> Result<Self, HubError> {
        let limits = Limits { topics_max: JOBS_KEPT_MAX, ..Limits::default() };
        let retention = HubRetention::default().finished_keep(ENDED_KEEP);
        let hub = Hub::builder().json().retention(retention).limits(limits).build()?;
        Ok(Self { hub, places: Arc::new(Semaphore::new(JOBS_MAX)), pace })
    }

    /// The hub that the jobs publish to.
    pub fn hub(&self) -> &Hub<Progress> {
        &self.hub
    }

    /// The topic of a job. Returns `None` if the hub has no job with this id.
    pub fn topic_of(&self, id: &str) -> Option<Topic> {
        let topic = Topic::from_segments(["jobs", id]).ok()?;
        let overview = self.hub.topic_overview(&topic).ok()?;
        (overview.events > 0).then_some(topic)
    }

    /// Starts a job in a new task and returns the id of the job.
    ///
    /// # Errors
    ///
    /// [`Refused`] if the job was not started.
    pub fn start(&self, numbers: Vec<String>) -> Result<String, Refused> {
        let steps = numbers.len();
        if !(1..=NUMBERS_MAX).contains(&steps) {
            return Err(Refused::Steps { given: steps });
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refused::Busy)?;
        let id = format!("{:016x}", fastrand::u64(..));
        let topic = format!("jobs/{id}");
        let begun = Progress::Running { done: 0, steps, found: None };
        let _receipt = self.hub.to(&topic).publish(begun).map_err(Refused::Publish)?;
        tokio::spawn(run(self.clone(), topic, numbers, place));
        Ok(id)
    }
}

/// Runs a job until it has published its last event. If the hub is closed, no client can read the
/// job, so the job ends early.
async fn run(jobs: Jobs, topic: String, numbers: Vec<String>, _place: OwnedSemaphorePermit) {
    let steps = numbers.len();
    let mut results = Vec::with_capacity(steps);
    for (done, number) in numbers.into_iter().enumerate() {
        sleep(jobs.pace).await;
        let found = spawn_blocking(move || factors(&number)).await;
        match found.unwrap_or_else(|_| Err("the step panicked".into())) {
            Ok(result) => results.push(result),
            Err(error) => {
                let error = format!("Line {}: {error}.", done + 1);
                let failed = Progress::Failed { done, steps, error };
                let _closed = jobs.hub.to(&topic).last().publish(failed);
                return;
            }
        }
        let found = results.last().cloned();
        let running = Progress::Running { done: done + 1, steps, found };
        if jobs.hub.to(&topic).publish(running).is_err() {
            return;
        }
    }
    let _closed = jobs.hub.to(&topic).last().publish(Progress::Done { steps, results });
}

/// Formats a number as the product of its primes.
fn factors(text: &str) -> Result<String, String> {
    let number: u64 = text
        .parse()
        .ok()
        .filter(|number| (2..=NUMBER_MAX).contains(number))
        .ok_or_else(|| format!("“{text}” is not a whole number from 2 to {NUMBER_MAX}"))?;
    let (mut rest, mut divisor, mut primes) = (number, 2, Vec::new());
    while divisor * divisor <= rest {
        if rest.is_multiple_of(divisor) {
            primes.push(divisor.to_string());
            rest /= divisor;
        } else {
            divisor += 1;
        }
    }
    if primes.is_empty() {
        return Ok(format!("{number} is prime"));
    }
    primes.push(rest.to_string());
    Ok(format!("{number} = {}", primes.join(" × ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_products_of_primes() {
        for (number, expected) in [
            ("2", "2 is prime"),
            ("4", "4 = 2 × 2"),
            ("12", "12 = 2 × 2 × 3"),
            ("97", "97 is prime"),
            ("1001", "1001 = 7 × 11 × 13"),
            ("999999000001", "999999000001 is prime"),
        ] {
            assert_eq!(factors(number).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn number_outside_the_range_is_refused() {
        for number in [NUMBER_MAX - 1, NUMBER_MAX] {
            assert!(factors(&number.to_string()).is_ok());
        }
        let above = (NUMBER_MAX + 1).to_string();
        for text in [above.as_str(), "1", "0", "-3", "1.5", "<b>", "99999999999999999999999"] {
            let error = factors(text).expect_err("the number is invalid");
            assert!(error.contains(&format!("“{text}” is not a whole number")), "{error}");
        }
    }
}
