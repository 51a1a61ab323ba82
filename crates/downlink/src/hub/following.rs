//! A hub that follows another one: what it tells about its upstream.

use downlink_log::Cursor;
use tokio::sync::oneshot;

use super::{Hop, Hub, UpstreamStatus};

impl<T: Send + Sync + 'static> Hub<T> {
    /// The state of the connection to the upstream. `None` if the hub follows no other hub.
    pub fn upstream(&self) -> Option<UpstreamStatus> {
        self.0.upstream.as_ref().map(|upstream| upstream.status.borrow().clone())
    }

    /// The number of this hub.
    pub(crate) fn hop(&self) -> Hop {
        self.0.hop
    }

    /// The hubs through which the events of this hub come, and this hub as the last one. `None` if
    /// it follows another hub and has not reached it yet.
    pub(crate) fn hops(&self) -> Option<Vec<Hop>> {
        let mut hops = match &self.0.upstream {
            None => Vec::new(),
            Some(upstream) => {
                let hops = upstream.status.borrow().hops.clone();
                (!hops.is_empty()).then_some(hops)?
            }
        };
        hops.push(self.0.hop);
        Some(hops)
    }

    /// The end of the log that decides, once this hub has everything below it. `None` if the
    /// upstream cannot be asked.
    pub(crate) async fn end(&self) -> Option<Cursor> {
        let Some(upstream) = &self.0.upstream else { return Some(self.0.log.tail()) };
        let (sender, answer) = oneshot::channel();
        upstream.questions.send(sender).await.ok()?;
        answer.await.ok()?
    }
}
