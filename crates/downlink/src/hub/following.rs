//! The methods of a hub that are about its upstream, which is the hub that it follows.

use downlink_log::Cursor;
use tokio::sync::{mpsc, oneshot};

use super::{Hop, Hops, Hub, Question, UpstreamStatus};

impl<T: Send + Sync + 'static> Hub<T> {
    /// The state of the connection to the upstream. `None` if the hub follows no other hub.
    pub fn upstream(&self) -> Option<UpstreamStatus> {
        self.0.upstream.as_ref().map(|upstream| upstream.status.borrow().clone())
    }

    /// The queue for questions about the end of the log. `None` if events get their offsets in this
    /// hub's own log.
    fn questions(&self) -> Option<&mpsc::Sender<Question>> {
        #[cfg(feature = "cluster")]
        if let Some(cluster) = &self.0.cluster {
            return Some(&cluster.questions);
        }
        self.0.upstream.as_ref().map(|upstream| &upstream.questions)
    }

    /// Whether this hub is a node of a cluster that has not yet reached the end of the engine's
    /// list of events.
    fn is_new_node(&self) -> bool {
        #[cfg(feature = "cluster")]
        if let Some(cluster) = &self.0.cluster {
            return !cluster.status.borrow().reached;
        }
        false
    }

    /// Whether this hub is a node of a cluster and may not have everything that the engine has.
    pub(crate) fn is_node_behind(&self) -> bool {
        #[cfg(feature = "cluster")]
        if let Some(cluster) = &self.0.cluster {
            let status = cluster.status.borrow();
            return !status.is_connected() || status.lag > 0;
        }
        false
    }

    /// The number by which relays recognise this hub.
    pub(crate) fn hop(&self) -> Hop {
        self.0.hop
    }

    /// The hubs above this hub, and this hub.
    pub(crate) fn hops(&self) -> Hops {
        if self.is_new_node() {
            return Hops::Tried(vec![self.0.hop]);
        }
        let Some(upstream) = &self.0.upstream else { return Hops::Reached(vec![self.0.hop]) };
        let status = upstream.status.borrow();
        let and_this = |hops: &[Hop]| [hops, &[self.0.hop]].concat();
        match &*status.hops {
            _ if !status.reached => Hops::Tried(and_this(&status.tried)),
            [] => Hops::Tried(and_this(&status.tried)),
            hops => Hops::Reached(and_this(hops)),
        }
    }

    /// The end of the log in which events get their offsets. If this hub follows another one, this
    /// log belongs to the last hub in the chain of upstreams. The future then completes when this
    /// hub has everything below the end. `None` if the upstream cannot be asked.
    pub(crate) async fn end(&self) -> Option<Cursor> {
        let Some(questions) = self.questions() else { return Some(self.0.log.tail()) };
        let (sender, answer) = oneshot::channel();
        questions.send(sender).await.ok()?;
        answer.await.ok()?
    }
}
