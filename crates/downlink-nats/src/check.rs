//! The check of a hub: its stream, its account, and its servers.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    finding::{self, Finding},
    hub::{HubError, describe},
    journal::JetStream,
    monitor::{self, MonitorUrl},
};

impl JetStream {
    /// What an operator should know about the hub, errors first.
    ///
    /// Some servers acknowledge an entry before they write it to the disk. Only the monitoring
    /// address of a server shows this, so the check asks each address that the caller gives.
    /// Without these addresses, the check knows only whether the stream is limited to servers with
    /// the tag [`SYNC_TAG`](crate::SYNC_TAG).
    ///
    /// The storage of the account is checked only if the user may publish to `$JS.API.INFO`.
    ///
    /// # Errors
    ///
    /// [`HubError`] if JetStream does not answer. A missing stream is a finding.
    ///
    /// # Cancel safety
    ///
    /// The check changes nothing.
    pub async fn check(&self, monitors: &[MonitorUrl]) -> Result<Vec<Finding>, HubError> {
        let engine = self.engine();
        let mut findings = match describe(&engine).await {
            Ok(description) => {
                let payload_max = engine.payload_max().await.unwrap_or(usize::MAX);
                let mut findings = finding::of_stream(&description, payload_max);
                let account: Option<Value> = engine.request("INFO", &json!({})).await.ok();
                let replicas = description.config.num_replicas;
                if let Some(used) = account.and_then(|account| used_storage(&account, replicas)) {
                    findings.push(Finding::new("account-full", &used.to_string()));
                }
                findings
            }
            Err(HubError::NoStream { stream }) => vec![Finding::new("no-stream", &stream)],
            Err(HubError::NoLeader) => vec![Finding::new("no-leader", "")],
            Err(error) => return Err(error),
        };
        if monitors.is_empty()
            && let Ok(connection) = engine.connection().await
        {
            let server = connection.client.server_info();
            findings.extend(monitor::old_server(&server.server_name, &server.version));
        }
        findings.extend(join_all(monitors.iter().map(MonitorUrl::findings)).await.concat());
        findings.sort_by_key(|finding| finding.severity);
        Ok(findings)
    }
}

/// How much of the storage of an account is used, in percent; `None` if it is not almost full. An
/// account with tiers has a limit for each number of replicas.
fn used_storage(account: &Value, replicas: usize) -> Option<u64> {
    let tier = account["tiers"].get(format!("R{replicas}")).unwrap_or(account);
    finding::almost_full(tier["storage"].as_u64()?, tier["limits"]["max_storage"].as_i64()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_has_its_own_limit() {
        let tier =
            |used: u64, max: i64| json!({ "storage": used, "limits": { "max_storage": max } });
        let mut account = tier(95, 100);
        assert_eq!(used_storage(&account, 3), Some(95));
        account["tiers"] = json!({ "R3": tier(10, 100), "R1": tier(90, 100) });
        assert_eq!(used_storage(&account, 3), None);
        assert_eq!(used_storage(&account, 1), Some(90));
        assert_eq!(used_storage(&tier(95, -1), 1), None);
        assert_eq!(used_storage(&json!({}), 1), None);
    }
}
