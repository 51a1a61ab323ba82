//! A relay forwards publishes to the server that it follows.
//!
//! The relay checks the rights and the limits of the publisher. Then it sends the event with its
//! own key, and never with the credentials of the publisher. It also sends the name space of the
//! publisher, so that the event ids and idempotency keys of a publisher are the same at each relay.
//!
//! If the connection breaks, the relay does not know whether the event was published. It then sends
//! the event again with the same idempotency key: the key of the publisher, or a key of its own. So
//! the event is published once.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::{
    Extension,
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use downlink::hub::Hub;
use downlink_access::Secret;
use reqwest::{Client, Method};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    counters::PublishResult,
    envelope::PUBLISHER,
    reply::{Refused, RefusedAs},
};
use crate::{access::client_builder, config::FollowUrl, logs::Logged};

/// How long the relay tries to forward a publish. Programs often wait 15 to 30 seconds for an
/// answer. A server that restarts is away for a few seconds.
const FORWARD_WITHIN: Duration = Duration::from_secs(12);

/// The wait before the second attempt. It doubles from attempt to attempt.
const WAIT_MIN: Duration = Duration::from_millis(50);

/// The maximum wait between two attempts.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The maximum number of bytes of the upstream's answer. The answer to a batch has an id for each
/// event.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// The headers of the upstream's answer that the relay passes on.
const PASSED_ON: [HeaderName; 2] = [header::CONTENT_TYPE, header::RETRY_AFTER];

/// Sends publishes to the upstream.
#[derive(Debug)]
pub struct Forwarder {
    client: Client,
    url: String,
    bearer: Option<HeaderValue>,
    /// The number of requests that the upstream has answered with a success. Relaxed is enough,
    /// because the number is only shown.
    forwarded: AtomicU64,
}

/// A publish to forward.
#[derive(Debug)]
pub(super) struct Forwarded {
    /// The path and the query below the URL of the upstream.
    target: String,
    /// The idempotency key, which the publisher has given or the relay has made.
    key: String,
    /// The name space of the publisher.
    publisher: String,
}

/// The answer of the upstream.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// The answer to the publish of one event.
#[derive(Debug, Deserialize)]
pub(super) struct PublishedThere {
    pub(super) id: String,
    pub(super) subscribers: usize,
    #[serde(default)]
    pub(super) repeated: bool,
}

impl Forwarded {
    /// A publish with this path and query. `headers` are those of the request, which may have an
    /// idempotency key.
    pub(super) fn new(
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        publisher: &str,
    ) -> Self {
        let given = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
        let target = match query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        let key = given.map_or_else(random_key, str::to_owned);
        Self { target, key, publisher: publisher.to_owned() }
    }

    /// A publish with these parameters and a key of the relay.
    pub(super) fn with_parameters<'a>(
        path: &str,
        parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
        publisher: &str,
    ) -> Self {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(parameters);
        Self::new(path, Some(&query.finish()), &HeaderMap::new(), publisher)
    }
}

/// A random key, which no other request has.
fn random_key() -> String {
    format!("relay-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

/// Why an attempt has failed.
enum Failed {
    /// The upstream has not got the request.
    NotSent(String),
    /// The upstream may have got the request.
    NoAnswer(String),
    /// The upstream says that it cannot publish at present.
    Away(Answered),
}

impl Failed {
    fn may_be_published(&self) -> bool {
        match self {
            Self::NotSent(_) => false,
            Self::NoAnswer(_) => true,
            // A status other than 503 may come from a proxy that has lost the answer of the
            // upstream. An upstream that is itself a relay reports a lost answer with the code
            // `outcome_unknown`.
            Self::Away(answered) => {
                answered.status != StatusCode::SERVICE_UNAVAILABLE
                    || answered.code().as_deref() == Some("outcome_unknown")
            }
        }
    }
}

impl Forwarder {
    /// Makes a forwarder to this URL. `key` is the relay's own key.
    ///
    /// # Errors
    ///
    /// The HTTP client cannot be made, or the key cannot be sent in a header.
    pub fn new(follow: &FollowUrl, key: Option<&Secret>) -> anyhow::Result<Self> {
        let bearer = key.map(|key| {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {}", &**key.text()))?;
            bearer.set_sensitive(true);
            anyhow::Ok(bearer)
        });
        let client = client_builder().connect_timeout(Duration::from_secs(3)).build()?;
        let (url, forwarded) = (follow.url.clone(), AtomicU64::new(0));
        Ok(Self { client, url, bearer: bearer.transpose()?, forwarded })
    }

    /// The number of requests that the upstream has answered with a success.
    pub(super) fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }

    /// Forwards a request, and answers as the upstream does.
    pub(super) async fn send(
        &self,
        hub: &Hub<String>,
        forwarded: Forwarded,
        body: String,
    ) -> Result<Response, Refused> {
        let Answered { status, headers, body } = self.answer(hub, &forwarded, body.into()).await?;
        let mut response = (status, Body::from(body)).into_response();
        *response.headers_mut() = headers;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status.is_success() {
            return Ok((Extension(Logged::Published(1)), response).into_response());
        }
        let result = PublishResult::of_status(status);
        response.extensions_mut().insert(RefusedAs { code: None, result });
        Ok(response)
    }

    /// Forwards one event of a stream.
    ///
    /// # Errors
    ///
    /// The refusal of the upstream, or of this relay if the upstream is away.
    pub(super) async fn event(
        &self,
        hub: &Hub<String>,
        forwarded: Forwarded,
        data: String,
    ) -> Result<(StatusCode, PublishedThere), Refused> {
        let answered = self.answer(hub, &forwarded, data.into()).await?;
        if !answered.status.is_success() {
            return Err(answered.into_refused());
        }
        let there = serde_json::from_slice(&answered.body);
        there.map(|there| (answered.status, there)).map_err(|_| strange_answer())
    }

    /// Sends a request until the upstream answers, or the time is over.
    async fn answer(
        &self,
        hub: &Hub<String>,
        forwarded: &Forwarded,
        body: Bytes,
    ) -> Result<Answered, Refused> {
        let until = Instant::now() + FORWARD_WITHIN;
        let (mut wait, mut may_be_published) = (WAIT_MIN, false);
        loop {
            let attempt = timeout_at(until, self.attempt(forwarded, body.clone())).await;
            let failed = match attempt {
                Ok(Ok(answered)) => {
                    let success = u64::from(answered.status.is_success());
                    self.forwarded.fetch_add(success, Ordering::Relaxed);
                    return check_relay(answered, may_be_published);
                }
                Ok(Err(failed)) => failed,
                Err(_elapsed) => Failed::NoAnswer("it did not answer in time".to_owned()),
            };
            may_be_published |= failed.may_be_published();
            if Instant::now() + wait >= until || hub.is_draining() {
                return given_up(failed, may_be_published);
            }
            sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    async fn attempt(&self, forwarded: &Forwarded, body: Bytes) -> Result<Answered, Failed> {
        let url = format!("{}{}", self.url, forwarded.target);
        let mut request = self
            .client
            .request(Method::POST, url)
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .header("idempotency-key", &forwarded.key)
            .header(PUBLISHER, &forwarded.publisher)
            .body(body);
        if let Some(bearer) = &self.bearer {
            request = request.header(header::AUTHORIZATION, bearer.clone());
        }
        let mut response = request.send().await.map_err(|error| match error.is_connect() {
            true => Failed::NotSent(innermost(&error)),
            false => Failed::NoAnswer(innermost(&error)),
        })?;
        let status = response.status();
        let mut headers = HeaderMap::new();
        for name in PASSED_ON {
            if let Some(value) = response.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await;
            match chunk.map_err(|error| Failed::NoAnswer(innermost(&error)))? {
                Some(chunk) if body.len() + chunk.len() <= ANSWER_BYTES_MAX => body.extend(chunk),
                Some(_) => return Err(Failed::NoAnswer("its answer is too long".to_owned())),
                None => break,
            }
        }
        let answered = Answered { status, headers, body: body.into() };
        let is_away = matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        );
        if is_away { Err(Failed::Away(answered)) } else { Ok(answered) }
    }
}

impl Answered {
    /// The code of a problem.
    fn code(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Problem {
            code: Option<String>,
        }
        serde_json::from_slice(&self.body).ok().and_then(|problem: Problem| problem.code)
    }

    /// The refusal of the upstream.
    fn into_refused(self) -> Refused {
        #[derive(Deserialize)]
        struct Problem {
            detail: Option<String>,
        }
        let problem = serde_json::from_slice(&self.body);
        let detail = problem.ok().and_then(|problem: Problem| problem.detail);
        Refused::new(self.status, detail.unwrap_or_else(|| "The upstream refuses it.".to_owned()))
    }
}

/// Turns a refusal of the relay's own key into a refusal for the publisher. Any other answer stays
/// as it is.
fn check_relay(answered: Answered, may_be_published: bool) -> Result<Answered, Refused> {
    match answered.status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            tracing::error!(
                status = answered.status.as_u16(),
                "the upstream refuses the key of this relay: give it the file of --follow-key-file \
                 as --relay-key-file"
            );
            let outcome = if may_be_published { "Perhaps it" } else { "Nothing" };
            Err(Refused::new(
                StatusCode::BAD_GATEWAY,
                format!("The upstream refuses the key of this relay. {outcome} was published."),
            ))
        }
        _ => Ok(answered),
    }
}

fn given_up(failed: Failed, may_be_published: bool) -> Result<Answered, Refused> {
    if may_be_published {
        let why = match failed {
            Failed::NotSent(why) | Failed::NoAnswer(why) => why,
            Failed::Away(answered) => format!("it answers {}", answered.status),
        };
        let detail = format!(
            "The upstream has got the request, but not answered it ({why}). Perhaps it was \
             published. If you gave an Idempotency-Key, send the request again with the same key."
        );
        let refused = Refused::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        return Err(refused.code("outcome_unknown"));
    }
    match failed {
        Failed::Away(answered) if answered.status == StatusCode::SERVICE_UNAVAILABLE => {
            Ok(answered)
        }
        Failed::Away(_) => Err(strange_answer()),
        Failed::NotSent(why) | Failed::NoAnswer(why) => Err(Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("The upstream cannot be reached ({why}). Nothing was published."),
        )
        .code("upstream_away")),
    }
}

fn strange_answer() -> Refused {
    Refused::new(
        StatusCode::BAD_GATEWAY,
        "The upstream gave an answer that a downlink server does not give. Look at --follow.",
    )
}

/// The innermost reason of an error, which says most.
fn innermost(error: &reqwest::Error) -> String {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}
