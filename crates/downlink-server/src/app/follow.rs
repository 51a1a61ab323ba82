//! `GET /follow` and `GET /follow/end`: the requests of a relay to the server that it follows.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use downlink::{
    access::Caller,
    relay::{FEED_MEDIA_TYPE, FeedError},
};
use downlink_access::Right;
use futures_util::StreamExt as _;
use http_body_util::BodyDataStream;

use super::{
    query::Query,
    reply::{Refused, bad_request, sentence},
    state::App,
};

/// Sends the feed of the whole log.
pub(super) async fn follow(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    caller.check(Right::Follow)?;
    let query = Query::read(query.as_deref(), &["after"])?;
    if app.hub.is_draining() {
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "The server is shutting down."));
    }
    let feed = app.hub.feed(query.one("after")?).map_err(|error| match error {
        FeedError::InvalidPosition(_) => bad_request(sentence(&error)),
        error => Refused::new(StatusCode::SERVICE_UNAVAILABLE, sentence(&error)),
    })?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(FEED_MEDIA_TYPE)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // A proxy such as nginx must pass on the feed as it arrives, and must not collect it first.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    // A feed may be open for weeks. It ends when the relay loses its right.
    let control = Arc::clone(&app.control);
    let ended = Box::pin(async move { control.rights_ended(&caller, &[]).await });
    let feed = BodyDataStream::new(feed).take_until(ended);
    Ok((headers, Body::from_stream(feed)).into_response())
}

/// Answers with the newest id of the log that assigns the ids. If this server is a relay itself,
/// this is the log of the server at the end of the chain of upstreams.
pub(super) async fn end(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refused> {
    caller.check(Right::Follow)?;
    Query::read(query.as_deref(), &[])?;
    match app.hub.feed_end().await {
        Ok(end) => Ok(([(header::CACHE_CONTROL, "no-store")], format!("{end}\n")).into_response()),
        Err(error) => Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, sentence(&error))),
    }
}
