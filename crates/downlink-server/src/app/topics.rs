//! `GET /topics` and `POST /finish`.

use axum::{
    Extension,
    extract::{RawQuery, State},
    response::{IntoResponse as _, Response},
};
use downlink::hub::{Address, InvalidName, Topic, TopicOverview};
use serde_json::{Value, json};

use super::{
    guard::Caller,
    query::Query,
    reply::{self, Refused, bad_request, not_published, shown},
    state::App,
};

/// The number of topics in the answer to a request without `limit=`. The next constant is the
/// maximum of `limit=`.
const LISTED: usize = 100;
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
        app.control.check_topic(&caller.verified, &name)?;
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
    app.control.check_credential(&caller.verified)?;
    let found = app.hub.topic_overviews(prefix, after.as_ref(), limit);
    let next = found.last().filter(|_| found.len() == limit).map(|last| last.topic.as_str());
    // A caller sees the topics that the caller may read. So there may be fewer than `limit` rows
    // although there are more topics.
    let may_see = |found: &&TopicOverview| {
        let topic = Topic::new(&found.topic);
        topic.is_ok_and(|topic| app.control.covers_topic(&caller.verified, &topic))
    };
    let rows: Vec<Value> = found.iter().filter(may_see).map(row).collect();
    Ok(reply::json(&json!({ "topics": rows, "next": next })))
}

pub(super) async fn finish(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = Query::read(query.as_deref(), &["topic"])?;
    let topic = query.one("topic")?;
    let topic = topic.ok_or_else(|| bad_request("No topic: add ?topic=NAME to the address."))?;
    let name = Topic::new(topic).map_err(|error| not_a_topic("topic", topic, error))?;
    app.control.check_publish(&caller.verified, &[Address::Topic(name)])?;
    let receipt = app.hub.finish(topic).map_err(|error| not_published(&error))?;
    let (status, confirmed) = reply::confirmed(&app.settings, &receipt).await?;
    let answer = json!({ "id": confirmed.id().as_str(), "subscribers": confirmed.matched() });
    Ok((status, reply::json(&answer)).into_response())
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
