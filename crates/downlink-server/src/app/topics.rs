//! `GET /topics` and `POST /finish`.

use axum::{
    Extension,
    extract::{RawQuery, State},
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use downlink::{
    access::{Caller, Refusal},
    hub::{Address, InvalidName, Selection, Topic, TopicOverview, TopicSelector},
};
use serde_json::{Value, json};

use super::{
    envelope::publisher,
    forward::Forwarded,
    guard::Sender,
    publish::{answer, idempotency_key},
    query::Query,
    reply::{self, Refused, bad_request, not_published, shown},
    state::App,
};

/// The number of topics in the answer to a request without `limit=`.
const LISTED: usize = 100;
/// The maximum value of `limit=`.
const LISTED_MAX: usize = 10_000;

pub(super) async fn topics(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = Query::read(query.as_deref(), &["topic", "prefix", "limit", "after"])?;
    if let Some(topic) = query.one("topic")? {
        if ["prefix", "limit", "after"].iter().any(|name| query.is_given(name)) {
            return Err(bad_request("Send topic without prefix, limit and after."));
        }
        let name = Topic::new(topic).map_err(|error| not_a_topic("topic", topic, error))?;
        check_topic(&caller, &name)?;
        let found = app.hub.topic_overview(topic);
        let found = found.map_err(|error| not_a_topic("topic", topic, error))?;
        return Ok(reply::json(&row(&found)));
    }
    let limit = query.number("limit")?.unwrap_or(LISTED);
    if limit == 0 || limit > LISTED_MAX {
        return Err(bad_request(format!("The parameter limit is between 1 and {LISTED_MAX}.")));
    }
    let after = query
        .one("after")?
        .map(|after| Topic::new(after).map_err(|error| not_a_topic("after", after, error)));
    let after = after.transpose()?;
    let prefix = query.one("prefix")?.unwrap_or_default();
    caller.check_credential()?;
    let found = visible(&app, &caller, prefix, after, limit).await;
    let next = found.last().filter(|_| found.len() == limit).map(|last| last.topic.as_str());
    let rows: Vec<Value> = found.iter().map(row).collect();
    Ok(reply::json(&json!({ "topics": rows, "next": next })))
}

/// The topics that the caller may read, in the order of their names. The answer must not reveal the
/// name of any other topic. If there may be more topics, `next` in the answer is the name of its
/// last topic, after which the client continues. So the last topic must be one that the caller may
/// read. This function reads on until it has `limit` such topics, or until there are no more
/// topics.
async fn visible(
    app: &App,
    caller: &Caller,
    prefix: &str,
    mut after: Option<Topic>,
    limit: usize,
) -> Vec<TopicOverview> {
    let at_once = limit.max(LISTED);
    let mut visible = Vec::new();
    loop {
        let found = app.hub.topic_overviews(prefix, after.as_ref(), at_once);
        let is_last = found.len() < at_once;
        for topic in found {
            let Ok(name) = Topic::new(&topic.topic) else { continue };
            let is_granted = app.control.covers_topic(caller, &name);
            // The grant may cover a topic although the right to this topic was revoked for the
            // client.
            if is_granted && check_topic(caller, &name).is_ok() {
                visible.push(topic);
            }
            if visible.len() == limit {
                return visible;
            }
            after = Some(name);
        }
        if is_last {
            return visible;
        }
        tokio::task::yield_now().await;
    }
}

pub(super) async fn finish(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(sender): Extension<Sender>,
    RawQuery(raw_query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let query = Query::read(raw_query.as_deref(), &["topic"])?;
    let topic = query.one("topic")?;
    let topic = topic.ok_or_else(|| bad_request("No topic: add ?topic=NAME to the address."))?;
    let name = Topic::new(topic).map_err(|error| not_a_topic("topic", topic, error))?;
    let publisher = publisher(&caller, &headers)?;
    let key = idempotency_key(&headers)?;
    caller.check_publish(&[Address::Topic(name)])?;
    // To finish a topic counts as one publish. Otherwise a client could finish any number of new
    // topics, and so reach the server's limit of topics.
    app.control.count_publishes(&caller, sender.address, 1)?;
    if let Some(forwarder) = &app.forwarder {
        let forwarded = Forwarded::new("/finish", raw_query.as_deref(), &headers, &publisher);
        return forwarder.send(&app.hub, forwarded, String::new()).await;
    }
    let finish = app.hub.to(topic);
    let finish =
        key.into_iter().fold(finish, |finish, key| finish.idempotency_key(&publisher, key));
    let receipt = finish.finish().map_err(|error| not_published(&error))?;
    let (status, confirmed) = reply::confirmed(&app.settings, &receipt).await?;
    Ok((status, answer(&confirmed)).into_response())
}

/// Checks that a caller may see a topic.
fn check_topic(caller: &Caller, topic: &Topic) -> Result<(), Refusal> {
    let selectors = vec![TopicSelector::from(topic.clone())];
    caller.check_subscription(&Selection { selectors, client: None })
}

fn not_a_topic(name: &str, topic: &str, error: InvalidName) -> Refused {
    bad_request(format!("The parameter {name} is {}, not a topic: {error}.", shown(topic)))
}

fn row(topic: &TopicOverview) -> Value {
    json!({
        "topic": topic.topic,
        "subscribers": topic.subscribers,
        "events": topic.events,
        "bytes": topic.bytes,
        "published": topic.published,
        "oldest": topic.oldest.as_ref().map(|id| id.as_str()),
        "cursor": topic.cursor.as_str(),
        "finished": topic.finished,
    })
}
