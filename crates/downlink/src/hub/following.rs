//! The methods of a hub that are about its upstream, which is the hub that it follows.

use downlink_log::Cursor;
use tokio::sync::oneshot;

use super::{Hop, Hops, Hub, UpstreamStatus};

impl<T: Send + Sync + 'static> Hub<T> {
    /// The state of the connection to the upstream. `None` if the hub follows no other hub.
    pub fn upstream(&self) -> Option<UpstreamStatus> {
        self.0.upstream.as_ref().map(|upstream| upstream.status.borrow().clone())
    }

    /// The number by which relays recognise this hub.
    pub(crate) fn hop(&self) -> Hop {
        self.0.hop
    }

    /// The hubs above this hub, and this hub.
    pub(crate) fn hops(&self) -> Hops {
        let Some(upstream) = &self.0.upstream else { return Hops::Reached(vec![self.0.hop]) };
        let status = upstream.status.borrow();
        let and_this = |hops: &[Hop]| [hops, &[self.0.hop]].concat();
        match &*status.hops {
            _ if !status.reached => Hops::Tried(and_this(&status.tried)),
            [] => Hops::Tried(and_this(&status.tried)),
            hops => Hops::Reached(and_this(hops)),
        }
    }

    /// The end of the log in which events get their offsets. If this hub follows another one, that
    /// is the log of the last hub in the chain of upstreams, and the future completes when this hub
    /// has everything below this end. `None` if the upstream cannot be asked.
    pub(crate) async fn end(&self) -> Option<Cursor> {
        let Some(upstream) = &self.0.upstream else { return Some(self.0.log.tail()) };
        let (sender, answer) = oneshot::channel();
        upstream.questions.send(sender).await.ok()?;
        answer.await.ok()?
    }
}
