//! A publisher publishes through a random server, one event or batch after another, and records the
//! answers.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    ledger::{Outcome, data},
    reader::Run,
};

/// How long a publisher waits for an answer. A relay waits for its upstream (the server that it
/// follows) for twelve seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// The maximum number of attempts with the same idempotency key.
const ATTEMPTS: usize = 4;

/// The maximum number of events of a batch.
const BATCH_EVENTS_MAX: usize = 4;

/// The record of a publisher: the data and the answer of each event.
pub(crate) type Published = Vec<(String, Outcome)>;

/// A publisher.
pub(crate) struct Publisher {
    pub(crate) number: usize,
    pub(crate) topics: Vec<String>,
    pub(crate) key: String,
    pub(crate) rng: Rng,
    pub(crate) client: reqwest::Client,
    /// The maximum pause after an answer.
    pub(crate) pause_max: Duration,
}

impl Publisher {
    /// Publishes until the run is over.
    pub(crate) async fn publish(mut self, run: Arc<Run>) -> Published {
        let mut published = Vec::new();
        while !run.is_over() {
            if self.rng.u8(0..5) == 0 {
                self.batch(&run, &mut published).await;
            } else {
                self.event(&run, &mut published).await;
            }
            sleep(self.pause_max.mul_f64(self.rng.f64())).await;
        }
        published
    }

    /// The number, the topic and the data of the next event.
    fn next(&mut self, published: &Published, ahead: usize) -> (String, String, String) {
        let number = format!("{}-{}", self.number, published.len() + ahead);
        let topic = self.topics[self.rng.usize(0..self.topics.len())].clone();
        let data = data(&number, [topic.as_str()]);
        (number, topic, data)
    }

    /// Publishes one event. If it has an idempotency key, the publisher tries again, perhaps at
    /// another server.
    async fn event(&mut self, run: &Run, published: &mut Published) {
        let (number, topic, data) = self.next(published, 0);
        let key = (self.rng.u8(0..3) > 0).then(|| format!("key-{number}"));
        let attempts = if key.is_some() { ATTEMPTS } else { 1 };
        let mut outcome = Outcome::Refused;
        for _ in 0..attempts {
            let mut request = self.request(run, &format!("/events?topic={topic}"), &data);
            if let Some(key) = &key {
                request = request.header("idempotency-key", key);
            }
            match answer(request).await {
                Ok(body) => {
                    let id = body["id"].as_str().expect("an id");
                    outcome = Outcome::Published(id.to_owned());
                    break;
                }
                // An earlier attempt may have published the event, so the outcome of that attempt
                // stays.
                Err(Outcome::Refused) => {}
                Err(other) => outcome = other,
            }
        }
        published.push((data, outcome));
    }

    async fn batch(&mut self, run: &Run, published: &mut Published) {
        let (mut lines, mut events) = (String::new(), Vec::new());
        for ahead in 0..self.rng.usize(1..=BATCH_EVENTS_MAX) {
            let (_, topic, data) = self.next(published, ahead);
            lines.push_str(&json!({ "topic": topic, "data": data }).to_string());
            lines.push('\n');
            events.push(data);
        }
        match answer(self.request(run, "/events/batch", &lines)).await {
            Ok(body) => {
                let ids = body["ids"].as_array().expect("a list of ids");
                assert_eq!(ids.len(), events.len(), "{body}");
                let ids = ids.iter().map(|id| id.as_str().expect("an id").to_owned());
                published.extend(events.into_iter().zip(ids.map(Outcome::Published)));
            }
            Err(outcome) => {
                published.extend(events.into_iter().map(|data| (data, outcome.clone())));
            }
        }
    }

    fn request(&mut self, run: &Run, path: &str, body: &str) -> reqwest::RequestBuilder {
        let server = run.servers[self.rng.usize(0..run.servers.len())];
        let request = self.client.post(format!("http://{server}{path}"));
        request.bearer_auth(&self.key).body(body.to_owned()).timeout(ANSWER_WITHIN)
    }
}

/// Sends a request and returns the body of the answer. If the answer does not say that the events
/// were published, returns the outcome instead.
async fn answer(request: reqwest::RequestBuilder) -> Result<Value, Outcome> {
    let response = request.send().await.map_err(|error| match error.is_connect() {
        true => Outcome::Refused,
        false => Outcome::Unknown,
    })?;
    let status = response.status().as_u16();
    let text = response.text().await.map_err(|_| Outcome::Unknown)?;
    let body: Value = serde_json::from_str(&text).map_err(|_| Outcome::Unknown)?;
    match status {
        200 | 202 => Ok(body),
        503 if body["code"] == "outcome_unknown" => Err(Outcome::Unknown),
        503 => Err(Outcome::Refused),
        _ => panic!("{status}: {text}"),
    }
}
