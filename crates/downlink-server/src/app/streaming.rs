//! A request body that is a stream of events. Each event is published as it arrives.
//!
//! Published events stay published when the stream stops early. The answer says how many there are.
//! `foreign` says what happens to their ids and types. Comments and reconnection times are dropped,
//! since they were meant for the first reader of the stream.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use downlink::hub::{Address, Confirmed, Hub, PublishError, Receipt};
use serde_json::json;

use super::{
    body,
    envelope::Envelope,
    foreign::Foreign,
    reply::{self, Refused, bad_request, not_published},
    state::App,
    stream_reader::{Arrived, Format, Read, Reader},
};

/// The type of the event that ends topics whose stream broke.
const BROKEN: &str = "upstream.broken";

/// A stream to be published.
pub(super) struct Stream {
    pub(super) envelope: Envelope,
    pub(super) addresses: Vec<Address>,
    pub(super) format: Format,
    pub(super) foreign: Foreign,
    /// Whether the topics are finished with the stream.
    pub(super) finish: bool,
    pub(super) body: Body,
}

/// Publishes a stream. Answers when the body has ended or failed, or after too long a pause.
pub(super) async fn publish(app: &App, stream: Stream) -> Result<Response, Refused> {
    if stream.finish && stream.envelope.topics.is_empty() {
        return Err(bad_request("Only topics can be finished: finish_on_end needs a topic."));
    }
    let here = Arc::new(());
    let is_here = Arc::downgrade(&here);
    if !stream.finish {
        return publish_to_the_end(app.clone(), stream, is_here).await;
    }
    // In a task of its own: a request whose client has gone is dropped, and its topics have to be
    // finished all the same. The task sees by `here` that the request is gone.
    let publishing = tokio::spawn(publish_to_the_end(app.clone(), stream, is_here));
    let published = publishing.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a streamed publish did not end");
        Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "The server has failed here."))
    });
    drop(here);
    published
}

async fn publish_to_the_end(
    app: App,
    stream: Stream,
    request: Weak<()>,
) -> Result<Response, Refused> {
    let Stream { envelope, addresses, format, foreign, finish, mut body } = stream;
    let mut publishing = Publishing {
        app: &app,
        hub: &app.hub,
        envelope,
        addresses,
        foreign,
        request,
        pushed: 0,
        sent: 0,
        published: 0,
        repeated: 0,
        last: None,
        status: StatusCode::OK,
        waiting: VecDeque::new(),
    };
    match publishing.publish_all(format, finish, &mut body).await {
        Ok(()) => Ok((publishing.status, publishing.answer()).into_response()),
        Err(stopped) => {
            let is_shutdown = stopped.is_shutdown;
            let refused = publishing.stop(stopped).await;
            if finish && !is_shutdown {
                publishing.break_off().await;
            }
            Err(refused)
        }
    }
}

/// The next chunk of the body. `None` if the server shuts down first.
///
/// A model may compute for a long time and a sensor may be silent, so the longest pause is hours,
/// not seconds. The limit exists because a peer that lost its network is silent too.
async fn next_chunk(app: &App, body: &mut Body) -> Option<Result<Option<Bytes>, Refused>> {
    tokio::select! {
        biased;
        () = app.hub.draining() => None,
        chunk = body::next_chunk(body, app.settings.stream_pause_max) => Some(chunk),
    }
}

fn shutting_down() -> Refused {
    let later = "The server is shutting down. Send the rest later.";
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, later)
}

struct Publishing<'a> {
    app: &'a App,
    hub: &'a Hub<String>,
    envelope: Envelope,
    addresses: Vec<Address>,
    foreign: Foreign,
    /// Gone when the client is.
    request: Weak<()>,
    /// Places that events have taken in topics since other requests had their turn.
    pushed: usize,
    /// Events that were given to the hub.
    sent: u64,
    /// Events that are published, without those that were published before.
    published: u64,
    /// Events that were published before, with the same id.
    repeated: u64,
    last: Option<Confirmed>,
    /// The HTTP status of the last publish.
    status: StatusCode,
    /// Events that are being committed, with their numbers in the stream, oldest first.
    waiting: VecDeque<(u64, Receipt)>,
}

/// The reason why a stream stops, and the number of the event at which it stops.
struct Stopped {
    number: u64,
    why: Refused,
    /// The server shuts down, and the publisher can send the rest to the next one.
    is_shutdown: bool,
}

/// The most events of one chunk whose commits are under way: as many as a few commits take. A
/// stream that is faster than the disk is read at the speed of the disk.
const WAITING_MAX: usize = 256;

/// Places in topics that events take before other requests of the same thread get their turn.
const PUSHED_AT_ONCE: usize = 64;

impl Publishing<'_> {
    /// Publishes all events of the body.
    async fn publish_all(
        &mut self,
        format: Format,
        finish: bool,
        body: &mut Body,
    ) -> Result<(), Stopped> {
        let mut reader = Reader::new(format, self.app.settings.event_bytes_max);
        loop {
            let chunk = match next_chunk(self.app, body).await {
                Some(chunk) => chunk.map_err(|why| self.at_next(why))?,
                None => return Err(Stopped { is_shutdown: true, ..self.at_next(shutting_down()) }),
            };
            let Read { events, error } = reader.read(chunk.as_deref());
            for event in events {
                self.publish(event).await?;
            }
            if let Some(error) = error {
                return Err(self.at_next(error));
            }
            // A refused event stops the stream before the next chunk, which may take long.
            self.settle(0).await?;
            if chunk.is_none() {
                break;
            }
        }
        if finish {
            self.finish().await.map_err(|why| self.at_next(why))?;
        }
        Ok(())
    }

    async fn publish(&mut self, arrived: Arrived) -> Result<(), Stopped> {
        if self.request.strong_count() == 0 {
            return Err(self.at_next(bad_request("The client has left.")));
        }
        let receipt = self.send(arrived).map_err(|why| self.at_next(why))?;
        self.sent += 1;
        self.waiting.push_back((self.sent, receipt));
        // In memory a commit is not waited for, and a piece of the body may hold 16,384 events.
        self.pushed += self.addresses.len();
        if self.pushed >= PUSHED_AT_ONCE {
            self.pushed = 0;
            tokio::task::yield_now().await;
        }
        self.settle(WAITING_MAX).await
    }

    fn send(&self, arrived: Arrived) -> Result<Receipt, Refused> {
        let arrived = self.foreign.apply(arrived);
        let mut publish = self.envelope.publish(self.hub, &self.addresses);
        if let Some(event_type) = arrived.event_type {
            publish = publish.event(event_type);
        }
        if let Some(id) = arrived.id {
            publish = publish.id(id);
        }
        publish.publish(arrived.data).map_err(|error| not_published(&error))
    }

    async fn finish(&mut self) -> Result<(), Refused> {
        // All topics first: one that cannot be finished must not keep the others open.
        let finish = |topic| self.hub.finish(topic).map_err(|error| not_published(&error));
        let receipts: Vec<_> = self.envelope.topics.iter().map(finish).collect();
        for receipt in receipts {
            reply::confirmed(&self.app.settings, &receipt?).await?;
        }
        Ok(())
    }

    /// Ends the topics of a stream that broke with an event that says so: their subscribers would
    /// wait for ever. Each topic by itself, as one of them may be finished already.
    async fn break_off(&self) {
        let data = json!({ "published": self.published }).to_string();
        for topic in self.addresses.iter().filter(|address| matches!(address, Address::Topic(_))) {
            let publish = self.hub.to_addresses([topic.clone()]).event(BROKEN).last();
            let ended = match publish.publish(data.clone()) {
                Ok(receipt) => receipt.durable().await.map(drop),
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) | Err(PublishError::Finished) => {}
                Err(error) => {
                    tracing::warn!(?topic, %error, "a topic whose stream broke stays open");
                }
            }
        }
    }

    /// Waits for the oldest commits until at most `left` are under way.
    async fn settle(&mut self, left: usize) -> Result<(), Stopped> {
        while self.waiting.len() > left {
            let Some((number, receipt)) = self.waiting.pop_front() else { break };
            let confirmed = reply::confirmed(&self.app.settings, &receipt).await;
            let (status, confirmed) = confirmed.map_err(|why| {
                let is_shutdown = false;
                Stopped { number, why, is_shutdown }
            })?;
            self.status = status;
            let is_new = !confirmed.is_repeated();
            self.published += u64::from(is_new);
            self.repeated += u64::from(!is_new);
            self.last = Some(confirmed);
        }
        Ok(())
    }

    /// A stop at the next event of the stream.
    fn at_next(&self, why: Refused) -> Stopped {
        Stopped { number: self.sent + 1, why, is_shutdown: false }
    }

    /// The refusal that ends the stream. Waits for the commits under way first, so that the number
    /// of published events in the answer is exact.
    async fn stop(&mut self, stopped: Stopped) -> Refused {
        let mut first = stopped;
        while !self.waiting.is_empty() {
            if let Err(stopped) = self.settle(0).await
                && stopped.number < first.number
            {
                first = stopped;
            }
        }
        let far = match &self.last {
            Some(last) => format!("Published: {}, the last as {}.", self.published, last.id()),
            None => "Nothing was published.".to_owned(),
        };
        first.why.map_detail(|why| format!("Event {} of the stream: {why} {far}", first.number))
    }

    fn answer(&self) -> Response {
        let id = self.last.as_ref().map(|last| last.id().as_str());
        let subscribers = self.last.as_ref().map_or(0, Confirmed::matched);
        reply::json(&json!({
            "id": id,
            "events": self.published,
            "repeated": self.repeated,
            "subscribers": subscribers,
        }))
    }
}
