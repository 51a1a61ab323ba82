//! `POST /revoke`. A request revokes one of these:
//!
//! - the credentials of a client
//! - the rights of a client to a topic or pattern
//! - a key

use std::{slice, time::SystemTime};

use axum::{
    Extension,
    extract::{RawQuery, State},
    http::StatusCode,
    response::Response,
};
use downlink::access::Caller;
use downlink_access::{KeyId, Revocation, Revoked, Right};
use serde_json::json;

use super::{
    clients::only_here,
    query::Query,
    reply::{self, Refused, bad_request, sentence, shown},
    state::App,
};
use crate::{access::RevokeError, cluster::messages};

pub(super) async fn revoke(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    let query = Query::read(query.as_deref(), &["client", "topic", "key"])?;
    query.one("topic")?;
    let (client, topic, key) = (query.client()?, query.selectors()?.pop(), query.one("key")?);
    let revoked = match (client, topic, key) {
        (Some(client), topic, None) => {
            caller.verified().check_issue_for(&client)?;
            match topic {
                Some(topic) => {
                    // Refuses a user whose right is already revoked. Otherwise, the user could
                    // repeat the revocation without end.
                    let (access, now) = (caller.access(), SystemTime::now().into());
                    access.recheck(caller.verified(), slice::from_ref(&topic), now)?;
                    Revoked::Topic(client, topic)
                }
                None => Revoked::Client(client),
            }
        }
        (None, None, Some(key)) => {
            caller.check(Right::Admin)?;
            Revoked::Key(parse_key(key)?)
        }
        _ => {
            return Err(bad_request(
                "Name what to revoke: ?client=ID, ?client=ID&topic=NAME, or ?key=ID.",
            ));
        }
    };
    let revocation = Revocation { revoked, at: SystemTime::now().into() };
    let revoked = app.control.revoke(&app.hub, revocation.clone()).await;
    if app.settings.cluster.is_node() {
        messages::revoke(&app.hub, &revocation).await.map_err(|error| only_here(&error))?;
    }
    revoked.map_err(|error| refused(&error))?;
    Ok(reply::json(&json!({ "revoked": true })))
}

fn parse_key(text: &str) -> Result<KeyId, Refused> {
    KeyId::parse(text).ok_or_else(|| {
        bad_request(format!(
            "The parameter key is {}, but the id of a key has 16 hexadecimal digits. downlink key \
             id FILE prints it.",
            shown(text)
        ))
    })
}

fn refused(error: &RevokeError) -> Refused {
    match error {
        RevokeError::TooManyKeys => Refused::new(
            StatusCode::CONFLICT,
            "Too many keys are revoked. Remove the files of revoked keys, and restart the server.",
        ),
        RevokeError::Disk(_) => {
            tracing::error!(error = %sentence(error), "a revocation is only in memory");
            let status = StatusCode::INSUFFICIENT_STORAGE;
            let lost = "It holds until the server ends. Repeat it when the disk has room.";
            Refused::new(status, format!("{} {lost}", sentence(error)))
        }
    }
}
