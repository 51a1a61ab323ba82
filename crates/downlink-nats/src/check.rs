//! The check of a hub: its stream, its account, and its servers.

use futures_util::future::join_all;

use crate::{
    api::{self, Account},
    finding::{self, Finding},
    hub::{HubError, describe},
    journal::JetStream,
    monitor::{self, MonitorUrl},
};

impl JetStream {
    /// What an operator should know about the hub, errors first.
    ///
    /// A client cannot ask a server whether it writes each entry to the disk before it acknowledges
    /// it. So the monitoring addresses of the servers are asked, as many as the caller gives. Without
    /// them, the check knows only whether the stream is limited to servers with the tag
    /// [`SYNC_TAG`](crate::SYNC_TAG).
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
                let account = engine.request("INFO", &api::Nothing {}).await;
                let account = account.ok().as_ref().and_then(|account: &Account| {
                    let (used, max) = account.storage(description.config.num_replicas);
                    finding::almost_full(used, max)
                });
                let of_account = |used: u64| Finding::new("account-full", &used.to_string());
                findings.extend(account.map(of_account));
                findings
            }
            Err(HubError::NoStream { stream }) => vec![Finding::new("no-stream", &stream)],
            Err(HubError::NoLeader) => vec![Finding::new("no-leader", "")],
            Err(error) => return Err(error),
        };
        let of_monitors = join_all(monitors.iter().map(MonitorUrl::findings)).await;
        if monitors.is_empty()
            && let Ok(connection) = engine.connection().await
        {
            let server = connection.client.server_info();
            findings.extend(monitor::old_server(&server.server_name, &server.version));
        }
        findings.extend(of_monitors.into_iter().flatten());
        findings.sort_by_key(|finding| finding.severity);
        Ok(findings)
    }
}
