//! The messages between the nodes of a cluster: disconnects and revocations.
//!
//! The node that takes the request of an app sends the change to all nodes. The messages pass
//! through the engine, the NATS servers of the cluster. A node that was away reads the messages
//! that the engine still keeps. A revocation holds for longer than the engine keeps its message, so
//! from time to time one of the nodes sends all revocations again.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD as BASE64};
use downlink::{
    cluster::{NODE_MESSAGE_BYTES_MAX, NodeMessage, NodeMessages},
    hub::{Hub, PublishError},
};
use downlink_access::Revocation;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};

use crate::access::Control;

/// A node sends the revocations again after a random time between this time and one and a half
/// times this time. `downlink cluster check` advises operators to let the engine keep messages for
/// at least half an hour. With this setting, a new node finds all revocations in the engine.
const SEND_AGAIN_EVERY: Duration = Duration::from_secs(10 * 60);

/// The maximum number of bytes of a message besides its revocations.
const ENVELOPE_BYTES_MAX: usize = 64;

/// A message between nodes.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Message {
    /// End the streams of this client.
    Disconnect(String),
    /// Apply these revocations, each as base64.
    Revoke(Vec<String>),
    /// Like `Revoke`, but from a node that repeats all revocations that it has.
    RevokeAgain(Vec<String>),
    /// A kind of message that only later versions know.
    #[serde(other, deserialize_with = "ignore")]
    Unknown,
}

fn ignore<'de, D: serde::Deserializer<'de>>(value: D) -> Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(value).map(drop)
}

/// Ends the streams of a client on all nodes.
///
/// # Errors
///
/// [`PublishError`] if the other nodes may not have got the message.
pub(crate) async fn disconnect(hub: &Hub<String>, client: &str) -> Result<(), PublishError> {
    send(hub, &Message::Disconnect(client.to_owned())).await
}

/// Applies a revocation on all nodes.
///
/// # Errors
///
/// [`PublishError`] if the other nodes may not have got the message.
pub(crate) async fn revoke(hub: &Hub<String>, revocation: &Revocation) -> Result<(), PublishError> {
    send(hub, &Message::Revoke(vec![BASE64.encode(revocation.to_bytes())])).await
}

async fn send(hub: &Hub<String>, message: &Message) -> Result<(), PublishError> {
    let bytes = serde_json::to_vec(message).unwrap_or_default();
    hub.send_to_nodes(&bytes)?.durable().await.map(drop)
}

/// Applies the messages of the nodes until the hub is closed, and sends the revocations again from
/// time to time.
pub(crate) async fn apply(hub: Hub<String>, control: Arc<Control>, mut messages: NodeMessages) {
    let mut again = next_again();
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(NodeMessage { bytes, is_live, .. }) = message else { return };
                match serde_json::from_slice(&bytes) {
                    // A disconnect that is not live was sent before this node started. It is
                    // ignored, because the streams of this node were opened later.
                    Ok(Message::Disconnect(client)) if is_live => drop(hub.disconnect(&client)),
                    Ok(Message::Revoke(revoked)) => revoke_here(&hub, &control, &revoked).await,
                    Ok(Message::RevokeAgain(revoked)) => {
                        again = next_again();
                        revoke_here(&hub, &control, &revoked).await;
                    }
                    Ok(Message::Disconnect(_) | Message::Unknown) => {}
                    Err(error) => tracing::warn!(%error, "a message of a node cannot be read"),
                }
            }
            () = sleep_until(again) => {
                again = next_again();
                // The node waits until this loop has read its messages. So this loop must not wait
                // until the node has sent one.
                let (hub, control) = (hub.clone(), Arc::clone(&control));
                tokio::spawn(async move { send_again(&hub, &control).await });
            }
        }
    }
}

/// The time at which this node sends the revocations again, unless another node does so earlier.
/// The time is random, so usually only one of the nodes sends.
fn next_again() -> Instant {
    Instant::now() + SEND_AGAIN_EVERY.mul_f64(1.0 + fastrand::f64() / 2.0)
}

/// Applies the revocations that this node does not have yet.
async fn revoke_here(hub: &Hub<String>, control: &Arc<Control>, revoked: &[String]) {
    for text in revoked {
        let bytes = BASE64.decode(text).unwrap_or_default();
        let Some(revocation) = Revocation::from_bytes(&bytes) else {
            tracing::warn!("a revocation of another node cannot be read");
            continue;
        };
        if control.holds(&revocation) {
            continue;
        }
        if let Err(error) = control.revoke(hub, revocation).await {
            tracing::error!(%error, "a revocation of another node is only in memory");
        }
    }
}

async fn send_again(hub: &Hub<String>, control: &Control) {
    let all = control.revocations();
    let mut part = Vec::new();
    let mut bytes = ENVELOPE_BYTES_MAX;
    let mut parts = Vec::new();
    for text in all.iter().map(|revocation| BASE64.encode(revocation.to_bytes())) {
        if bytes + text.len() + 3 > NODE_MESSAGE_BYTES_MAX {
            parts.push(std::mem::take(&mut part));
            bytes = ENVELOPE_BYTES_MAX;
        }
        bytes += text.len() + 3;
        part.push(text);
    }
    parts.extend(Some(part).filter(|part| !part.is_empty()));
    for part in parts {
        if let Err(error) = send(hub, &Message::RevokeAgain(part)).await {
            // Some node sends the revocations again later.
            tracing::debug!(%error, "the revocations cannot be sent to the other nodes");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Message {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn messages_of_later_versions_are_ignored() {
        assert!(
            matches!(read(r#"{"disconnect":"alice"}"#), Message::Disconnect(client) if client == "alice")
        );
        assert!(matches!(read(r#"{"revoke":["YQ"]}"#), Message::Revoke(all) if all == ["YQ"]));
        assert!(matches!(read(r#"{"later":{"a":[1]}}"#), Message::Unknown));
    }
}
