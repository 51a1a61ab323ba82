//! Reads any JSON as a grant. A grant that was read and written again has to be the same grant. It
//! has no right that the document does not name.

#![no_main]

use downlink_access::{GRANT_SELECTORS_MAX, Grant};
use downlink_log::TopicSelector;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|input: &[u8]| {
    let Ok(grant) = Grant::from_json(input) else { return };
    // A valid document is an object, and repeats no member, so this reader gets the same members.
    let members: Map<String, Value> = serde_json::from_slice(input).unwrap();
    check(&members, &grant);
    let written = Value::Object(write(&grant)).to_string();
    let again = Grant::from_json(written.as_bytes()).unwrap();
    // A fraction of a millisecond is cut off, and seconds cannot show every millisecond.
    let until = |grant: &Grant| grant.until().map(|until| until.as_millis() / 1_000);
    assert_eq!(until(&again), until(&grant));
    assert_eq!(write(&again), write(&grant));
});

/// Checks that each right of the grant is in the document.
fn check(members: &Map<String, Value>, grant: &Grant) {
    let is_given = |name: &str| members.get(name) == Some(&Value::Bool(true));
    assert_eq!(grant.publish_clients(), is_given("publish_clients"));
    assert_eq!(grant.everyone(), is_given("everyone"));
    assert_eq!(grant.issue(), is_given("issue"));
    assert_eq!(grant.follow(), is_given("follow"));
    assert_eq!(grant.admin(), is_given("admin"));
    let is_denied = members.get("hear_everyone") == Some(&Value::Bool(false));
    assert_eq!(grant.hear_everyone(), !is_denied);
    assert_eq!(Value::from(texts(grant.subscribe())), list(members, "subscribe"));
    assert_eq!(Value::from(texts(grant.publish())), list(members, "publish"));
    let client = grant.client().map(|client| Value::from(client.as_str()));
    assert_eq!(client.as_ref(), members.get("client"));
    assert_eq!(grant.until().is_some(), members.contains_key("until"));
}

fn write(grant: &Grant) -> Map<String, Value> {
    let mut members = Map::new();
    let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
    add("subscribe", texts(grant.subscribe()).into());
    add("publish", texts(grant.publish()).into());
    add("publish_clients", grant.publish_clients().into());
    add("hear_everyone", grant.hear_everyone().into());
    add("everyone", grant.everyone().into());
    add("issue", grant.issue().into());
    add("follow", grant.follow().into());
    add("admin", grant.admin().into());
    if let Some(client) = grant.client() {
        add("client", client.as_str().into());
    }
    if let Some(until) = grant.until() {
        add("until", (until.as_millis() / 1_000).into());
    }
    members
}

fn texts(selectors: &[TopicSelector]) -> Vec<String> {
    assert!(selectors.len() <= GRANT_SELECTORS_MAX);
    selectors.iter().map(ToString::to_string).collect()
}

fn list(members: &Map<String, Value>, name: &str) -> Value {
    members.get(name).cloned().unwrap_or_else(|| Value::Array(Vec::new()))
}
