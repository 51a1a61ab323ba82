//! Clusters: hubs on several machines that are one hub to publishers and subscribers.
//!
//! A *node* is a hub that is part of a cluster. An engine, such as NATS JetStream, keeps all events
//! of the cluster in one order, in a list that is called the *journal*. Every node reads the whole
//! journal, and has the same events under the same ids. So a publisher may use any node, and a
//! client may go from one node to another with its last event id.
//!
//! A publish is complete when the engine has the event and the node has read it back. If the engine
//! loses its newest events, the nodes find out, and clients that had such events get a gap.
//!
//! [`Hub::join`](crate::Hub::join) makes a node. The crate `downlink-nats` has the engine NATS
//! JetStream.

#[cfg(feature = "store")]
mod grow;
mod log;
mod node_thread;
mod publishes;

use std::sync::Arc;

use downlink_cluster::{HubId, Journal, NODE_NAME_BYTES_MAX};
use tokio::sync::{mpsc, watch};

#[cfg(feature = "store")]
pub use self::grow::grow;
use self::node_thread::{Parts, QUESTIONS_MAX};
use crate::hub::{ClusterHandle, Hub, HubBuilder, HubError, PublishQueue, QueueEnd};
pub use crate::hub::{
    ClusterNode, ClusterStatus, ClusterTotals, NODE_MESSAGE_BYTES_MAX, NodeMessage,
};

/// The number of messages between nodes that wait for the program.
const MESSAGES_MAX: usize = 256;

impl<T: Send + Sync + 'static> Hub<T> {
    /// Makes a hub that is a node of a cluster. `name` is the name of the node, which other nodes
    /// show. Each node needs its own name, and a name is cut at 64 bytes. `connect` returns the
    /// identity of the cluster's hub, and its journal in the engine. This function runs on the
    /// node's thread, and tries again for as long as the engine is away. If the builder has a
    /// [`store`](HubBuilder::store), the store is a cache of the events. The cache makes a restart
    /// quick, and may be deleted.
    ///
    /// The node connects in the background, and connects again for as long as it exists. Until it
    /// has everything that the engine has, its subscriptions wait and publishes are refused with
    /// [`PublishError::EngineAway`](crate::PublishError::EngineAway). [`Hub::cluster`] tells its
    /// state.
    ///
    /// An event gets its id when the engine has the event, so the getters of the receipt return
    /// `None`. To get the id, wait for [`durable`](crate::hub::Receipt::durable), which takes at
    /// most twelve seconds.
    ///
    /// The task that reads the messages of other nodes must not wait for a publish of the same hub,
    /// because the node waits for this task.
    ///
    /// The second result has these [messages](Self::send_to_nodes). Drop it if the program sends
    /// none. If it is kept and not read, the node stops after some hundred messages.
    ///
    /// The hub starts one thread. The thread ends when the hub is closed, or when the last handle
    /// of the hub is dropped.
    ///
    /// # Errors
    ///
    /// [`HubError`], as [`HubBuilder::build`].
    pub fn join<C, F, J>(
        builder: HubBuilder<T>,
        name: &str,
        connect: C,
    ) -> Result<(Self, NodeMessages), HubError>
    where
        C: FnOnce() -> F + Send + 'static,
        F: Future<Output = (HubId, J)>,
        J: Journal + Send + 'static,
        J::Tail: Send,
    {
        let (status, watched) = watch::channel(ClusterStatus::default());
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let (messages, of_nodes) = mpsc::channel(MESSAGES_MAX);
        let queue = Arc::new(PublishQueue::default());
        let handle = ClusterHandle { status: watched, questions, queue: Arc::clone(&queue) };
        let (hub, applier, kept) = builder.build_node(handle)?;
        let mut end = name.len().min(NODE_NAME_BYTES_MAX);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let name = name[..end].into();
        let readers = applier.follower();
        node_thread::start(
            Parts {
                began: applier.now(),
                name,
                kept,
                applier,
                queue: QueueEnd(queue),
                readers,
                asked,
                status,
                messages,
            },
            connect,
        )?;
        Ok((hub, NodeMessages(of_nodes)))
    }
}

/// The messages of the nodes of a cluster, from [`Hub::join`].
#[derive(Debug)]
pub struct NodeMessages(mpsc::Receiver<NodeMessage>);

impl NodeMessages {
    /// The next message. `None` if the hub is closed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no message is lost.
    pub async fn next(&mut self) -> Option<NodeMessage> {
        self.0.recv().await
    }
}
