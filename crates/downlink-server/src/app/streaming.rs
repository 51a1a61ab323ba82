//! Publishes a request body that is a stream of events. Each event is published as it arrives.
//!
//! If the stream stops early, the events before that point stay published, and the answer says how
//! many there are. The module `foreign` decides what happens to the ids and types of events. This
//! module drops the comments and reconnection times of the stream: another server wrote them for
//! its connection to the publisher, not for the subscribers.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{
    Extension,
    body::{Body, Bytes},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use downlink::{
    access::Caller,
    hub::{Address, Hub, PublishError, Receipt},
};
use serde_json::json;
use tokio::time::sleep;

use super::{
    body,
    envelope::Envelope,
    foreign::Foreign,
    forward::{Forwarded, Forwarder},
    reply::{self, Refused, bad_request, not_published},
    state::App,
    stream_reader::{Arrived, Format, Read, Reader},
};
use crate::{access::ClientAddress, logs::Logged};

/// The type of the last event of a topic whose stream broke off.
const BROKEN: &str = "upstream.broken";

/// A stream to publish.
pub(super) struct Stream {
    pub(super) caller: Caller,
    pub(super) address: ClientAddress,
    pub(super) envelope: Envelope,
    pub(super) addresses: Vec<Address>,
    pub(super) format: Format,
    pub(super) foreign: Foreign,
    /// Whether the topics are finished when the stream ends. A finished topic takes no more events.
    pub(super) finish: bool,
    pub(super) body: Body,
}

/// Publishes a stream. Returns the answer when the body has ended or the stream has stopped early.
/// A stream stops early if its body is invalid, breaks off or pauses for too long, if an event is
/// refused, if the rights of the publisher end, or if the server shuts down.
pub(super) async fn publish(app: &App, stream: Stream) -> Result<Response, Refused> {
    if stream.finish && stream.envelope.topics.is_empty() {
        return Err(bad_request("Only topics can be finished: finish_on_end needs a topic."));
    }
    if stream.finish {
        // Each topic to finish counts as one publish, even if the stream has no events. The reason
        // is that a finished topic counts towards the server's limit of topics.
        let topics = stream.envelope.topics.len();
        app.control.count_publishes(&stream.caller, stream.address, topics)?;
    }
    let here = Arc::new(());
    let is_here = Arc::downgrade(&here);
    if !stream.finish {
        return publish_to_the_end(app.clone(), stream, is_here).await;
    }
    // The stream is published in its own task. If the client disconnects, the future of the request
    // is dropped, but the server must still finish the topics. When `is_here` can no longer be
    // upgraded, the task knows that the request was dropped.
    let publishing = tokio::spawn(publish_to_the_end(app.clone(), stream, is_here));
    let published = publishing.await.unwrap_or_else(|error| {
        tracing::error!(%error, "the task of a streamed publish failed");
        Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "The server has failed."))
    });
    drop(here);
    published
}

async fn publish_to_the_end(
    app: App,
    stream: Stream,
    request: Weak<()>,
) -> Result<Response, Refused> {
    let Stream { caller, address, envelope, addresses, format, foreign, finish, mut body } = stream;
    let mut publishing = Publishing {
        app: &app,
        hub: &app.hub,
        caller,
        address,
        envelope,
        addresses,
        foreign,
        request,
        pushed: 0,
        stream: fastrand::u64(..),
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

/// The next step of a stream.
enum Next {
    /// A chunk of the body. `None` if the body has ended.
    Chunk(Option<Bytes>),
    /// The stream stops before its end.
    Stop(Refused),
    /// The server has begun to shut down.
    ShuttingDown,
}

/// Waits for the next chunk of the body, for the end of the publisher's rights, or for the shutdown
/// of the server.
///
/// The default of the maximum pause is an hour, not some seconds, because a language model may
/// compute for a long time and a sensor may be silent. Without a maximum, a client that has lost
/// its network would hold its connection for ever.
async fn next(app: &App, caller: &Caller, to: &[Address], body: &mut Body) -> Next {
    let read = tokio::select! {
        biased;
        () = app.hub.draining() => return Next::ShuttingDown,
        chunk = body::next_chunk(body, app.settings.stream_pause_max) => chunk,
        error = app.control.rights_ended(caller, to) => Err(error.into()),
    };
    // The rights may have ended in the same moment, so they are checked once more.
    let checked = read.and_then(|chunk| Ok(caller.check_publish(to).map(|()| chunk)?));
    checked.map_or_else(Next::Stop, Next::Chunk)
}

/// The parameters of a request to publish to these addresses.
fn parameters(addresses: &[Address]) -> impl Iterator<Item = (&str, &str)> {
    addresses.iter().map(|address| match address {
        Address::Topic(topic) => ("topic", topic.as_str()),
        Address::Client(client) => ("client", client.as_str()),
        _ => ("everyone", "true"),
    })
}

fn shutting_down() -> Refused {
    let later = "The server is shutting down. Send the rest later.";
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, later)
}

struct Publishing<'a> {
    app: &'a App,
    hub: &'a Hub<String>,
    caller: Caller,
    address: ClientAddress,
    envelope: Envelope,
    addresses: Vec<Address>,
    foreign: Foreign,
    /// Can be upgraded as long as the client is connected.
    request: Weak<()>,
    /// The number of appends since this task last let other requests of the thread run. The hub
    /// appends an event once for each of its addresses (topics, clients, everyone).
    pushed: usize,
    /// A random number for this stream. In a cluster, the events that are published with the same
    /// number keep their order.
    stream: u64,
    /// The number of events that this stream has given to the hub, which is the log of events.
    sent: u64,
    /// The number of events that this stream published. Repeated events are not counted.
    published: u64,
    /// The number of events that had already been published with the same id.
    repeated: u64,
    /// The id of the last event, and the number of its subscribers.
    last: Option<(String, usize)>,
    /// The HTTP status of the last publish.
    status: StatusCode,
    /// The events that the store has not committed yet, with their numbers in the stream, oldest
    /// first.
    waiting: VecDeque<(u64, Receipt)>,
}

/// The reason why a stream stops, and the number of the event at which it stops.
struct Stopped {
    number: u64,
    why: Refused,
    /// Whether the stream stops because the server is shutting down. The publisher can then send
    /// the rest of the stream to the next server.
    is_shutdown: bool,
}

/// The maximum number of a stream's events that wait for their commits. At this number, the server
/// stops reading the stream until the disk has caught up. Below this number, the server publishes
/// the next event of a chunk without waiting for the commit of the previous event. So when one
/// commit ends, the next events already wait for the store.
const WAITING_MAX: usize = 256;

/// After this many appends, the task lets other requests of the same thread run. An event with
/// three addresses counts as three appends.
const PUSHED_AT_ONCE: usize = 64;

/// The maximum wait until the limits of publishes allow the next event of a stream. If the wait
/// would be longer, the stream stops with an error.
const TURN_WAIT_MAX: Duration = Duration::from_secs(1);

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
            let chunk = match next(self.app, &self.caller, &self.addresses, body).await {
                Next::Chunk(chunk) => chunk,
                Next::Stop(why) => return Err(self.at_next(why)),
                Next::ShuttingDown => return Err(self.at_shutdown()),
            };
            let Read { events, error } = reader.read(chunk.as_deref());
            for event in events {
                self.publish(event).await?;
            }
            if let Some(error) = error {
                return Err(self.at_next(error));
            }
            // Waits for all commits of this chunk, because the next chunk may come much later. If
            // the store refuses an event, the stream stops now and not after the next chunk.
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
        self.wait_for_turn().await?;
        if let Some(forwarder) = &self.app.forwarder {
            return self.forward(forwarder, arrived).await;
        }
        let receipt = self.send(arrived).map_err(|why| self.at_next(why))?;
        self.sent += 1;
        self.waiting.push_back((self.sent, receipt));
        // Without a store, the task never waits for a commit, and one chunk of the body may have
        // 16,384 events. So the task yields here, to let other requests run.
        self.pushed += self.addresses.len();
        if self.pushed >= PUSHED_AT_ONCE {
            self.pushed = 0;
            tokio::task::yield_now().await;
        }
        self.settle(WAITING_MAX).await
    }

    /// Waits until the limits of publishes allow the next event. Meanwhile the server does not read
    /// the body, so the client sends more slowly. The wait ends early if the rights of the client
    /// end or the server shuts down.
    async fn wait_for_turn(&self) -> Result<(), Stopped> {
        let count = || self.app.control.count_publishes(&self.caller, self.address, 1);
        while let Err(exceeded) = count() {
            if exceeded.wait > TURN_WAIT_MAX {
                return Err(self.at_next(exceeded.into()));
            }
            // The waits for all events of one chunk may together take minutes. So each wait also
            // checks for the end of the rights and for the shutdown.
            tokio::select! {
                biased;
                () = self.hub.draining() => return Err(self.at_shutdown()),
                error = self.app.control.rights_ended(&self.caller, &self.addresses) => {
                    return Err(self.at_next(error.into()));
                }
                () = sleep(exceeded.wait) => {}
            }
        }
        Ok(())
    }

    /// Sends an event to the upstream, the server that this relay follows.
    async fn forward(&mut self, forwarder: &Forwarder, arrived: Arrived) -> Result<(), Stopped> {
        let arrived = self.foreign.apply(arrived);
        let (event_type, id) = (arrived.event_type, arrived.id);
        let of_event = [("event", event_type.as_deref()), ("id", id.as_deref())];
        let of_event = of_event.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let parameters = parameters(&self.addresses).chain(of_event);
        let publisher = &self.envelope.publisher;
        let forwarded = Forwarded::with_parameters("/events", parameters, publisher);
        let published = forwarder.event(self.hub, forwarded, arrived.data).await;
        let (status, there) = published.map_err(|why| match self.hub.is_draining() {
            true => self.at_shutdown(),
            false => self.at_next(why),
        })?;
        self.sent += 1;
        self.status = status;
        self.published += u64::from(!there.repeated);
        self.repeated += u64::from(there.repeated);
        self.last = Some((there.id, there.subscribers));
        Ok(())
    }

    fn send(&self, arrived: Arrived) -> Result<Receipt, Refused> {
        let arrived = self.foreign.apply(arrived);
        let publish = self.envelope.publish(self.hub, &self.addresses);
        let mut publish = publish.in_stream(self.stream);
        if let Some(event_type) = arrived.event_type {
            publish = publish.event(event_type);
        }
        if let Some(id) = arrived.id {
            publish = publish.id(self.envelope.own_id(&id));
        }
        publish.publish(arrived.data).map_err(|error| not_published(&error))
    }

    async fn finish(&mut self) -> Result<(), Refused> {
        if let Some(forwarder) = &self.app.forwarder {
            let mut finished = Ok(());
            for topic in &self.envelope.topics {
                let parameters = [("topic", topic.as_str())];
                let forwarded = Forwarded::with_parameters("/finish", parameters, "");
                let there = forwarder.event(self.hub, forwarded, String::new()).await;
                finished = finished.and(there.map(drop));
            }
            return finished;
        }
        // All topics are finished before a result is checked, so that an error of one topic does
        // not leave the other topics unfinished.
        let finish = |topic| {
            let finished = self.hub.to(topic).in_stream(self.stream).finish();
            finished.map_err(|error| not_published(&error))
        };
        let receipts: Vec<_> = self.envelope.topics.iter().map(finish).collect();
        for receipt in receipts {
            reply::confirmed(&self.app.settings, &receipt?).await?;
        }
        Ok(())
    }

    /// Finishes the topics of a stream that broke off. The last event of each topic tells the
    /// subscribers that the stream broke off. Without this event, they would wait for ever. Each
    /// topic gets a separate event, because the hub would refuse a single event for all topics if
    /// one of them is already finished.
    async fn break_off(&self) {
        let data = json!({ "published": self.published }).to_string();
        for topic in self.addresses.iter().filter(|address| matches!(address, Address::Topic(_))) {
            if let Some(forwarder) = &self.app.forwarder {
                let of_event = [("event", BROKEN), ("last", "true")];
                let parameters = parameters(std::slice::from_ref(topic)).chain(of_event);
                let forwarded = Forwarded::with_parameters("/events", parameters, "");
                if forwarder.event(self.hub, forwarded, data.clone()).await.is_err() {
                    tracing::warn!(?topic, "cannot finish a topic whose stream broke");
                }
                continue;
            }
            let publish = self.hub.to_addresses([topic.clone()]).event(BROKEN).last();
            let publish = publish.in_stream(self.stream);
            let ended = match publish.publish(data.clone()) {
                Ok(receipt) => receipt.durable().await.map(drop),
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) | Err(PublishError::Finished) => {}
                Err(error) => {
                    tracing::warn!(?topic, %error, "cannot finish a topic whose stream broke");
                }
            }
        }
    }

    /// Waits for commits, oldest event first, until at most `left` events are not yet committed.
    async fn settle(&mut self, left: usize) -> Result<(), Stopped> {
        while self.waiting.len() > left {
            let Some((number, receipt)) = self.waiting.pop_front() else { break };
            let confirmed = reply::confirmed(&self.app.settings, &receipt).await;
            let (status, confirmed) = confirmed.map_err(|why| {
                let is_shutdown = false;
                Stopped { number, why, is_shutdown }
            })?;
            self.app.counters.note_confirmed(&confirmed);
            self.status = status;
            let is_new = !confirmed.is_repeated();
            self.published += u64::from(is_new);
            self.repeated += u64::from(!is_new);
            self.last = Some((confirmed.id().as_str().to_owned(), confirmed.matched()));
        }
        Ok(())
    }

    /// The [`Stopped`] of a stream that stops at its next event.
    fn at_next(&self, why: Refused) -> Stopped {
        Stopped { number: self.sent + 1, why, is_shutdown: false }
    }

    /// The [`Stopped`] of a stream that stops because the server is shutting down.
    fn at_shutdown(&self) -> Stopped {
        Stopped { is_shutdown: true, ..self.at_next(shutting_down()) }
    }

    /// Waits for all commits that are not complete yet, so that the number of published events is
    /// known. Then returns the refusal. If the commit of an earlier event failed, the refusal is
    /// about this earlier event.
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
            Some((id, _)) => format!("Published: {}, the last as {id}.", self.published),
            None => "Nothing was published.".to_owned(),
        };
        first.why.map_detail(|why| format!("Event {} of the stream: {why} {far}", first.number))
    }

    fn answer(&self) -> Response {
        let id = self.last.as_ref().map(|(id, _)| id);
        let subscribers = self.last.as_ref().map_or(0, |(_, subscribers)| *subscribers);
        let answer = reply::json(&json!({
            "id": id,
            "events": self.published,
            "repeated": self.repeated,
            "subscribers": subscribers,
        }));
        (Extension(Logged::Published(self.published)), answer).into_response()
    }
}
