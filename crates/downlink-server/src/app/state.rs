//! The state that all routes share.
//!
//! axum passes a clone of the state to each route. All clones refer to the same hub (the log of
//! events with its subscriptions), settings and access control.

use std::sync::Arc;

use downlink::hub::Hub;

use super::{counters::Counters, forward::Forwarder};
use crate::{
    access::{Control, Role},
    config::Settings,
    logs::Requesters,
};

/// The state that every route can read.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) hub: Hub<String>,
    /// Forwards publishes to the upstream; `None` if the server follows no other server.
    pub(crate) forwarder: Option<Arc<Forwarder>>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) control: Arc<Control>,
    /// The role of the listener through which the request has come.
    pub(crate) role: Role,
    /// The counts that all listeners of the server share.
    pub(crate) counters: Arc<Counters>,
    /// The requesters of the open streams of all listeners.
    pub(crate) requesters: Arc<Requesters>,
}
