//! `POST /tickets`: issues a ticket, with which a page subscribes.
//!
//! `EventSource` cannot send a header, so a page cannot send a token. An app asks for a ticket with
//! its key or with the token of its user. The answer has a URL with the ticket, and the app passes
//! this URL to the page.

use std::time::Duration;

use axum::{
    Extension,
    extract::{RawQuery, State},
    response::Response,
};
use downlink::access::{Caller, Refusal};
use downlink_access::TICKET_LIFETIME_MAX;
use serde_json::json;

use super::{
    query::Query,
    reply::{self, Refused, bad_request, shown},
    state::App,
};
use crate::duration::parse_time;

pub(super) async fn issue(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = Query::read(query.as_deref(), &["topic", "client", "lifetime"])?;
    let (topics, client) = (query.selectors()?, query.client()?);
    if topics.is_empty() && client.is_none() {
        return Err(bad_request("A ticket needs a topic or a client: add ?topic=NAME."));
    }
    let lifetime = match query.one("lifetime")? {
        None => TICKET_LIFETIME_MAX,
        Some(text) => lifetime(text)?,
    };
    let issued = caller.issue(topics, client, lifetime);
    let (ticket, until) = issued.map_err(Refusal::from)?;
    // Requests that are refused before this line do not count. Otherwise, a user could use up the
    // limit of the app with refused requests.
    app.control.count_ticket(&caller)?;
    let url = format!("{}/events?ticket={ticket}", app.control.rules().public_url);
    Ok(reply::json(&json!({ "url": url, "ticket": ticket, "expires": until.as_millis() })))
}

fn lifetime(text: &str) -> Result<Duration, Refused> {
    let lifetime = parse_time(text).ok().filter(|time| !time.is_zero());
    let lifetime = lifetime.filter(|time| *time <= TICKET_LIFETIME_MAX);
    lifetime.ok_or_else(|| {
        bad_request(format!(
            "The parameter lifetime is {}: write a time of at most one hour, such as 10m.",
            shown(text)
        ))
    })
}
