//! The HTTP API. This module makes the hub, which is the log of events with its subscriptions, and
//! the routes that use it.
//!
//! First, the module `guard` checks `Host`, `Origin` and the rights of a request. Then the route
//! reads the query and refuses unknown parameters. No request changes anything before it has passed
//! both checks.

mod batch;
mod body;
mod classic;
mod clients;
mod content;
mod counters;
mod described;
mod discard;
mod envelope;
mod follow;
mod foreign;
mod forward;
mod guard;
mod metrics;
mod page;
mod process;
mod publish;
mod query;
mod reply;
mod revoke;
mod state;
mod status;
mod stream_reader;
mod streaming;
mod subscribe;
mod tickets;
mod topics;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::{Method, Uri},
    middleware,
    routing::{get, post},
};
use downlink::{
    cluster::NodeMessages,
    hub::{Durability, Hub, HubError, HubRetention, HubStore, Limits, Retention},
    relay::Upstream,
};

pub use self::counters::Counters;
pub use self::forward::Forwarder;
use downlink_nats::JetStream;

use self::state::App;
pub use crate::logs::Requesters;
use crate::{
    access::{Control, Role},
    cluster,
    config::Settings,
    logs::StreamLines,
    retain::RetainRule,
};

/// The default time for which the server waits if another process has the store open. The other
/// process may be a server that is about to end. If the other process does not end, the user
/// started a second server by mistake, and gets an error after this time.
pub(crate) const STORE_WAIT: Duration = Duration::from_secs(5);

/// The paths that the server answers even when the limit of connections is reached.
pub const ANSWERED_AT_LIMIT: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The time for which the server waits if another process has the store open.
pub(crate) fn store_wait(settings: &Settings) -> Duration {
    settings.store_wait.unwrap_or(STORE_WAIT)
}

/// Where the hub gets its events from.
#[derive(Debug)]
pub enum Source {
    /// From the publishers of this server.
    Publishers,
    /// From another server, which this server follows as a relay.
    Upstream(Upstream),
    /// From the engine of a cluster: NATS servers, which keep the events in this stream.
    Cluster(JetStream),
}

/// Makes the hub that these settings describe, with events from `source`. If the server is a node
/// of a cluster, also returns the messages that other nodes send. `requesters` has the senders of
/// the requests that opened the streams. When a stream ends, the observer of the hub removes the
/// stream's entry from `requesters` and writes a line of the log.
///
/// # Errors
///
/// [`HubError`] if the settings contradict each other.
pub fn hub(
    settings: &Settings,
    requesters: &Arc<Requesters>,
    source: Source,
) -> Result<(Hub<String>, Option<NodeMessages>), HubError> {
    let limits = Limits {
        subscribers_max: settings.subscribers_max,
        subscribers_per_client_max: settings.subscribers_per_client_max,
        selectors_max: settings.selectors_max,
        topics_max: settings.topics_max,
        subscribed_names_max: settings.subscribed_names_max,
        patterns_max: settings.patterns_max,
        bytes_max: settings.history_bytes_max,
        ..Limits::default()
    };
    let mut hub = Hub::builder().text();
    if let Some(file) = settings.store() {
        let durability =
            if settings.is_relaxed() { Durability::Relaxed } else { Durability::Commit };
        let store = HubStore::from(file).durability(durability);
        hub = hub.store(store.bytes_max(settings.store_bytes_max).wait_max(store_wait(settings)));
    }
    let hub = hub
        .retention(retention(settings))
        .limits(limits)
        .observer(StreamLines(Arc::clone(requesters)))
        .event_bytes_max(settings.event_bytes_max)
        .drain_spread(Duration::from_millis(500)..=Duration::from_secs(5));
    match source {
        Source::Publishers => Ok((hub.build()?, None)),
        Source::Upstream(upstream) => Ok((Hub::follow(hub, upstream)?, None)),
        Source::Cluster(stream) => {
            let name = settings.cluster.node_name(&settings.listen);
            let (hub, messages) = Hub::join(hub, &name, || cluster::connect(stream))?;
            Ok((hub, Some(messages)))
        }
    }
}

/// How much history the hub keeps with these settings.
pub(crate) fn retention(settings: &Settings) -> HubRetention {
    let all = Retention {
        events_max: settings.retain_events,
        bytes_max: settings.retain_bytes,
        age_max: Some(settings.retain_age),
    };
    let rules = HubRetention::from(all).everyone(all).finished_keep(settings.finished_keep);
    let add =
        |rules: HubRetention, rule: &RetainRule| rules.topics(rule.selector(), rule.over(all));
    settings.retain.iter().fold(rules, add)
}

/// The routes of the server, for this hub and one listener. All listeners of a server share
/// `counters`. `requesters` must be the value that [`hub`] got. A relay forwards publishes to its
/// upstream with `forwarder`.
pub fn app(
    (hub, requesters, forwarder): (Hub<String>, Arc<Requesters>, Option<Arc<Forwarder>>),
    settings: Settings,
    control: Arc<Control>,
    role: Role,
    counters: Arc<Counters>,
) -> Router {
    let settings = Arc::new(settings);
    let app = App { hub, forwarder, settings, control, role, counters, requesters };
    page::routes()
        .route("/events", get(subscribe::subscribe).post(publish::publish))
        .route("/events/batch", post(batch::publish))
        .route("/tickets", post(tickets::issue))
        .route("/revoke", post(revoke::revoke))
        .route("/topics", get(topics::topics))
        .route("/finish", post(topics::finish))
        .route("/clients", get(clients::clients).delete(clients::disconnect))
        .route("/follow", get(follow::follow))
        .route("/follow/end", get(follow::end))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(status::metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}

async fn unknown_path(uri: Uri) -> reply::Refused {
    reply::not_found(format!(
        "There is nothing at {}. Subscribe and publish at /events. Other addresses are /topics, \
         /clients, /healthz, /readyz and /metrics. There is a page at /.",
        reply::shown(uri.path())
    ))
}

async fn unknown_method(method: Method, uri: Uri) -> reply::Refused {
    reply::method_not_allowed(format!(
        "The address {} does not support {method}. The Allow header lists the methods it supports.",
        reply::shown(uri.path())
    ))
}
