//! The methods of a hub that is a node of a cluster.

use downlink_cluster::{HubKey, Record as ClusterRecord};
use downlink_log::Fingerprint;
#[cfg(feature = "store")]
use downlink_log::Offset;

use super::{ClusterStatus, Hub, NODE_MESSAGE_BYTES_MAX, PublishError, Receipt, cluster::MESSAGE};

impl<T: Send + Sync + 'static> Hub<T> {
    /// Sends a message to all nodes of the cluster, this one included, in the order of the events.
    /// The receipt's [`durable`](Receipt::durable) completes when this node has the message. Nodes
    /// that are away get the message when they return, as long as the engine of the cluster keeps
    /// it.
    ///
    /// Use a message to apply a change on all nodes, such as a revocation.
    ///
    /// # Errors
    ///
    /// [`PublishError::EntryTooLarge`] beyond [`NODE_MESSAGE_BYTES_MAX`];
    /// [`PublishError::NotInCluster`] if the hub is no node of a cluster; otherwise as for a publish.
    pub fn send_to_nodes(&self, message: &[u8]) -> Result<Receipt, PublishError> {
        let cluster = self.0.cluster.as_ref().ok_or(PublishError::NotInCluster)?;
        if message.len() > NODE_MESSAGE_BYTES_MAX {
            return Err(PublishError::EntryTooLarge);
        }
        let record = ClusterRecord {
            at: self.now(),
            to: Vec::new(),
            id: None,
            key: None,
            fingerprint: Fingerprint::default(),
            finish: false,
            payload: Some([&[MESSAGE], message].concat()),
        };
        let submitted = cluster.queue.push(vec![record], None);
        let submitted = submitted.map_err(|error| PublishError::from_append(error).1)?;
        Ok(Receipt::of(&submitted, 0, None))
    }

    /// The offset after the newest event.
    #[cfg(feature = "store")]
    pub(crate) fn log_end(&self) -> Offset {
        self.0.log.tail().next
    }

    /// The key of the fingerprints.
    #[cfg(feature = "store")]
    pub(crate) fn fingerprint_key(&self) -> [u8; 16] {
        self.0.fingerprint_key
    }

    /// A secret that all nodes of the cluster share, for example to derive other keys from it.
    /// `None` if the hub is no node of a cluster, or if the node has not begun yet.
    pub fn cluster_secret(&self) -> Option<[u8; 16]> {
        self.0.cluster.as_ref()?.status.borrow().key.map(HubKey::to_bytes)
    }

    /// Waits until the hub's node has begun, and then returns the same secret as
    /// [`cluster_secret`]. `None` if the hub is no node of a cluster, or is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    ///
    /// [`cluster_secret`]: Self::cluster_secret
    pub async fn cluster_began(&self) -> Option<[u8; 16]> {
        let mut status = self.0.cluster.as_ref()?.status.clone();
        let began = status.wait_for(|status| status.key.is_some()).await.ok()?;
        began.key.map(HubKey::to_bytes)
    }

    /// The state of the cluster, as this node sees it. `None` if the hub is no node of a cluster.
    pub fn cluster(&self) -> Option<ClusterStatus> {
        self.0.cluster.as_ref().map(|cluster| cluster.status.borrow().clone())
    }
}
