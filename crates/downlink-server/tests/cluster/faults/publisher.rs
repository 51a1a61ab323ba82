//! A publisher of a fault run: it publishes in every way, at random nodes. If a publish is not
//! acknowledged, it repeats the publish by the documented rule.
//!
//! The rule: a publish with a key or with ids is repeated until it is answered. Any other publish
//! is repeated only if the answer says that nothing was published.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Run;
use crate::ledger::data;

/// How long a publisher waits for an answer. A node waits for its engine (the NATS servers) for
/// twelve seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// The maximum number of events of a batch or of a streamed body.
const EVENTS_MAX: usize = 5;

/// How long the publisher waits after a failed attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// An event that a publisher has tried to publish.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) data: String,
    /// The id in the answer. `None` if the outcome stays unknown, because the publish cannot be
    /// repeated. An event of a streamed body has no id in the answer, but its publisher has given
    /// it one.
    pub(super) id: Option<String>,
    /// When the first attempt began.
    pub(super) began: Instant,
    pub(super) answered: Instant,
}

/// A publisher.
pub(super) struct Publisher {
    pub(super) number: usize,
    pub(super) topics: Vec<String>,
    pub(super) key: String,
    pub(super) rng: Rng,
    pub(super) client: reqwest::Client,
    pub(super) pause_max: Duration,
}

/// A way to publish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Key,
    Id,
    Plain,
    BatchWithIds,
    PlainBatch,
    Stream,
}

impl Way {
    fn random(rng: &mut Rng) -> Self {
        match rng.u8(0..20) {
            0..7 => Self::Key,
            7..11 => Self::Id,
            11..14 => Self::Plain,
            14..16 => Self::BatchWithIds,
            16..18 => Self::PlainBatch,
            _ => Self::Stream,
        }
    }

    fn has_ids(self) -> bool {
        matches!(self, Self::Id | Self::BatchWithIds | Self::Stream)
    }

    fn may_be_repeated(self) -> bool {
        self.has_ids() || self == Self::Key
    }
}

/// One event of a publish.
struct Event {
    number: String,
    topic: String,
    data: String,
}

impl Publisher {
    /// Publishes until publishing is over.
    pub(super) async fn publish(mut self, run: Arc<Run>) -> Vec<Published> {
        let mut published = Vec::new();
        while !run.is_over() {
            self.publish_once(&run, &mut published).await;
            sleep(self.pause_max.mul_f64(self.rng.f64())).await;
        }
        published
    }

    async fn publish_once(&mut self, run: &Run, published: &mut Vec<Published>) {
        let way = Way::random(&mut self.rng);
        let count = match way {
            Way::Key | Way::Id | Way::Plain => 1,
            Way::BatchWithIds | Way::PlainBatch | Way::Stream => self.rng.usize(1..=EVENTS_MAX),
        };
        // All events of a streamed body go to the same topic.
        let of_all = self.topics[self.rng.usize(0..self.topics.len())].clone();
        let mut events = Vec::new();
        for ahead in 0..count {
            let number = format!("{}.{}", self.number, published.len() + ahead);
            let topic = match way {
                Way::Stream => of_all.clone(),
                _ => self.topics[self.rng.usize(0..self.topics.len())].clone(),
            };
            let data = data(&number, [topic.as_str()]);
            events.push(Event { number, topic, data });
        }
        let began = Instant::now();
        let ids = self.repeat(run, way, &events).await;
        let answered = Instant::now();
        for (at, Event { data, .. }) in events.into_iter().enumerate() {
            let id = ids.as_ref().map(|ids| ids[at].clone());
            published.push(Published { data, id, began, answered });
        }
    }

    /// Repeats a publish by the rule. Returns the ids of its events, or `None` if the outcome stays
    /// unknown.
    async fn repeat(&mut self, run: &Run, way: Way, events: &[Event]) -> Option<Vec<String>> {
        let began = Instant::now();
        let mut said = Vec::new();
        loop {
            let request = self.request(run, way, events);
            match answer(request).await {
                Ok(body) => {
                    run.note_acknowledgement();
                    return Some(ids(way, events, &body));
                }
                Err(Failed::Refused(why)) => said.push(why),
                Err(Failed::Unknown(why)) if way.may_be_repeated() => said.push(why),
                Err(Failed::Unknown(_)) => return None,
            }
            run.note_failure();
            let waits_for = began.elapsed();
            assert!(waits_for < crate::PATIENCE, "{}: no answer: {said:?}", events[0].number);
            sleep(PAUSE).await;
        }
    }

    fn request(&mut self, run: &Run, way: Way, events: &[Event]) -> reqwest::RequestBuilder {
        let node = run.nodes[self.rng.usize(0..run.nodes.len())];
        let Event { number, topic, data } = &events[0];
        let (path, body) = match way {
            Way::Key | Way::Plain => (format!("/events?topic={topic}"), data.clone()),
            Way::Id => (format!("/events?topic={topic}&id=own.{number}"), data.clone()),
            Way::BatchWithIds | Way::PlainBatch => ("/events/batch".to_owned(), batch(way, events)),
            Way::Stream => {
                let event =
                    |event: &Event| format!("id: own.{}\ndata: {}\n\n", event.number, event.data);
                (format!("/events?topic={topic}&ids=keep"), events.iter().map(event).collect())
            }
        };
        let mut request = self.client.post(format!("http://{node}{path}")).body(body);
        if way == Way::Key {
            request = request.header("idempotency-key", format!("key-{number}"));
        }
        if way == Way::Stream {
            request = request.header("content-type", "text/event-stream");
        }
        request.bearer_auth(&self.key).timeout(ANSWER_WITHIN)
    }
}

fn batch(way: Way, events: &[Event]) -> String {
    let line = |Event { number, topic, data }: &Event| {
        let mut line = json!({ "topic": topic, "data": data });
        if way.has_ids() {
            line["id"] = format!("own.{number}").into();
        }
        format!("{line}\n")
    };
    events.iter().map(line).collect()
}

/// The ids of the events, from the answer.
fn ids(way: Way, events: &[Event], body: &Value) -> Vec<String> {
    let own = || events.iter().map(|event| format!("own.{}", event.number)).collect::<Vec<_>>();
    let ids: Vec<String> = match way {
        Way::BatchWithIds | Way::PlainBatch => {
            let ids = body["ids"].as_array().expect("a list of ids");
            ids.iter().map(|id| id.as_str().expect("an id").to_owned()).collect()
        }
        Way::Stream => {
            let count = |name: &str| body[name].as_u64().expect("a number") as usize;
            assert_eq!(count("events") + count("repeated"), events.len(), "{body}");
            own()
        }
        Way::Key | Way::Id | Way::Plain => vec![body["id"].as_str().expect("an id").to_owned()],
    };
    assert_eq!(ids.len(), events.len(), "{body}");
    if way.has_ids() {
        assert_eq!(ids, own(), "{body}");
    }
    ids
}

/// The reason why a publish was not acknowledged.
enum Failed {
    /// Nothing was published.
    Refused(String),
    Unknown(String),
}

/// Sends a request and returns the body of the answer.
async fn answer(request: reqwest::RequestBuilder) -> Result<Value, Failed> {
    let response = request.send().await.map_err(|error| match error.is_connect() {
        true => Failed::Refused(format!("{error:?}")),
        false => Failed::Unknown(format!("{error:?}")),
    })?;
    let status = response.status().as_u16();
    let text = response.text().await.map_err(|error| Failed::Unknown(format!("{error:?}")))?;
    let Ok(body) = serde_json::from_str::<Value>(&text) else { return Err(Failed::Unknown(text)) };
    match status {
        200 | 202 => Ok(body),
        503 if body["code"] == "outcome_unknown" => Err(Failed::Unknown(text)),
        503 => Err(Failed::Refused(text)),
        _ => panic!("{status}: {text}"),
    }
}
