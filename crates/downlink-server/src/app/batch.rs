//! `POST /events/batch`: one JSON object a line, all published or none.

use axum::{
    body::Body,
    extract::{RawQuery, State},
    response::Response,
};
use downlink::hub::{BATCH_EVENTS_MAX, Batch, Publish};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    App, body,
    query::Query,
    reply::{self, Refused, bad_request},
};

pub(super) async fn publish(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Response, Refused> {
    Query::read(query.as_deref(), &[])?;
    let settings = &app.settings;
    let text = body::text(body, settings.batch_bytes_max, settings.body_timeout).await?;
    let mut batch = Batch::new(&app.hub);
    for (at, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        if batch.len() == BATCH_EVENTS_MAX {
            return Err(bad_request(format!("A batch has at most {BATCH_EVENTS_MAX} events.")));
        }
        let line: Line<'_> = serde_json::from_str(line)
            .map_err(|error| bad_request(format!("Line {at} is not an event: {error}.")))?;
        let (publish, data) = line.into_publish(&app).map_err(|why| {
            bad_request(format!("Line {at} is not an event: {why}."))
        })?;
        batch.add(publish, data);
    }
    if batch.is_empty() {
        return Err(bad_request("The batch is empty: send one JSON object a line."));
    }
    let receipts = batch.publish().map_err(|error| error.to_problem())?;
    let ids: Vec<&str> = receipts.iter().map(|receipt| receipt.id().as_str()).collect();
    Ok(reply::json(&json!({ "ids": ids })))
}

/// One line of a batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    topic: Option<String>,
    #[serde(default)]
    topics: Vec<String>,
    client: Option<String>,
    #[serde(default)]
    clients: Vec<String>,
    #[serde(default)]
    everyone: bool,
    event: Option<String>,
    id: Option<String>,
    retry: Option<u64>,
    #[serde(default)]
    last: bool,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Line<'_> {
    fn into_publish(self, app: &App) -> Result<(Publish<String>, String), &'static str> {
        let mut to = self.everyone.then(|| app.hub.to_everyone());
        for topic in self.topic.iter().chain(&self.topics) {
            to = Some(match to {
                Some(to) => to.and_to(topic),
                None => app.hub.to(topic),
            });
        }
        for client in self.client.iter().chain(&self.clients) {
            to = Some(match to {
                Some(to) => to.and_to_client(client),
                None => app.hub.to_client(client),
            });
        }
        let mut publish = to.ok_or("it names no topic, no client and not everyone")?;
        if let Some(event_type) = self.event {
            publish = publish.event(event_type);
        }
        if let Some(id) = self.id {
            publish = publish.id(id);
        }
        if let Some(millis) = self.retry {
            publish = publish.retry(std::time::Duration::from_millis(millis));
        }
        if self.last {
            publish = publish.last();
        }
        Ok((publish, data_of(self.data)))
    }
}

/// A string is the data itself; any other JSON is sent as it is, without white space.
fn data_of(value: &RawValue) -> String {
    if let Ok(text) = serde_json::from_str::<String>(value.get()) {
        return text;
    }
    compact(value.get())
}

/// JSON without the white space between its tokens. Numbers keep every digit.
fn compact(json: &str) -> String {
    let mut compact = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in json.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if character.is_ascii_whitespace() {
            continue;
        } else {
            in_string = character == '"';
        }
        compact.push(character);
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_between_tokens_goes() {
        assert_eq!(compact("{ \"a b\" : [ 1 , 2 ] }"), "{\"a b\":[1,2]}");
        assert_eq!(compact(r#"{"a": "x \" y", "b": 1}"#), r#"{"a":"x \" y","b":1}"#);
        assert_eq!(compact(r#"["\\", 2]"#), r#"["\\",2]"#);
        assert_eq!(compact("12345678901234567890.10"), "12345678901234567890.10");
    }

    fn data(json: &str) -> String {
        data_of(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_string_is_the_data_itself() {
        assert_eq!(data(r#""a\nb""#), "a\nb");
        assert_eq!(data("[ 1, 2 ]"), "[1,2]");
        assert_eq!(data("null"), "null");
    }
}
