//! The settings of a node of a cluster, and its connection to the engine: the NATS servers, which
//! keep the events of the cluster as entries of a journal.

pub(crate) mod messages;

use std::{path::PathBuf, time::Duration};

use crate::address::Address;
use anyhow::{Context as _, bail};
use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD as BASE64};
use clap::Args;
use downlink::hub::Hub;
use downlink_access::{KeyFileError, Secret};
use downlink_cluster::HubId;
use downlink_nats::{ConnectSettings, Credentials, JetStream, ServerUrl, Tls, stream_of};

/// The wait before the second attempt to reach the engine. It doubles from attempt to attempt.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// The maximum wait between two attempts to reach the engine.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The engine of a cluster, and how to connect to it.
#[derive(Args, Clone, Debug)]
pub struct ClusterArguments {
    /// Makes this server a node of a cluster: the NATS servers that keep its events, separated by
    /// commas, such as nats://10.0.0.1,nats://10.0.0.2. The store is then a cache, which may be
    /// deleted. Before the first start, run downlink cluster init.
    #[arg(long = "cluster", env = "DOWNLINK_CLUSTER", value_name = "URL", value_delimiter = ',', value_parser = parse_server, requires = "hub")]
    pub servers: Vec<ServerUrl>,
    /// The name of the cluster's hub: letters, digits, - and _. All nodes have the same one.
    #[arg(long, env = "DOWNLINK_HUB", value_name = "NAME", requires = "servers")]
    pub hub: Option<String>,
    /// The name of this node, which other nodes and downlink cluster status show. The default is the
    /// name of the machine with the address of --listen.
    #[arg(long = "node", env = "DOWNLINK_NODE", value_name = "NAME", requires = "servers")]
    pub node: Option<String>,
    /// A file with the credentials for the NATS servers, as nsc writes it (.creds).
    #[arg(
        long = "cluster-creds",
        env = "DOWNLINK_CLUSTER_CREDS",
        value_name = "FILE",
        requires = "servers"
    )]
    pub creds: Option<PathBuf>,
    /// The user for the NATS servers.
    #[arg(
        long = "cluster-user",
        env = "DOWNLINK_CLUSTER_USER",
        value_name = "NAME",
        requires = "password_file",
        conflicts_with = "creds"
    )]
    pub user: Option<String>,
    /// A file with the password of --cluster-user. Without --cluster-user, the file has a token.
    #[arg(
        long = "cluster-password-file",
        env = "DOWNLINK_CLUSTER_PASSWORD_FILE",
        value_name = "FILE",
        requires = "servers",
        conflicts_with = "creds"
    )]
    pub password_file: Option<PathBuf>,
    /// A PEM file with the certificates that the NATS servers must have, instead of those of the
    /// system. With this flag, the connection must be encrypted.
    #[arg(
        long = "cluster-ca",
        env = "DOWNLINK_CLUSTER_CA",
        value_name = "FILE",
        requires = "servers"
    )]
    pub ca: Option<PathBuf>,
    /// A PEM file with the certificate of this node, for NATS servers that ask for one.
    #[arg(
        long = "cluster-cert",
        env = "DOWNLINK_CLUSTER_CERT",
        value_name = "FILE",
        requires = "key"
    )]
    pub cert: Option<PathBuf>,
    /// A PEM file with the key of --cluster-cert.
    #[arg(
        long = "cluster-key",
        env = "DOWNLINK_CLUSTER_KEY",
        value_name = "FILE",
        requires = "cert"
    )]
    pub key: Option<PathBuf>,
}

fn parse_server(text: &str) -> Result<ServerUrl, String> {
    ServerUrl::new(text).map_err(|error| format!("{error}: write it like nats://10.0.0.1:4222"))
}

impl ClusterArguments {
    /// Whether the server is a node of a cluster.
    pub fn is_node(&self) -> bool {
        !self.servers.is_empty()
    }

    /// The name of the hub, if the server is a node of a cluster.
    pub fn hub(&self) -> Option<&str> {
        self.hub.as_deref().filter(|_| self.is_node())
    }

    /// The name of this node, which listens on this address.
    pub(crate) fn node_name(&self, listen: &Address) -> String {
        let own = || {
            #[cfg(unix)]
            let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
            #[cfg(not(unix))]
            let machine = "node".to_owned();
            format!("{machine} {listen}")
        };
        self.node.clone().unwrap_or_else(own)
    }

    /// The hub's stream in the engine. `None` if the server is no node of a cluster.
    ///
    /// # Errors
    ///
    /// An error that says which setting to change.
    pub fn stream(&self) -> anyhow::Result<Option<JetStream>> {
        let Some(hub) = self.hub() else { return Ok(None) };
        let client_certificate = self.cert.clone().zip(self.key.clone());
        let tls = Tls {
            is_required: self.ca.is_some() || client_certificate.is_some(),
            root_certificates: self.ca.clone(),
            client_certificate,
            ..Tls::default()
        };
        let credentials = self.credentials()?;
        let settings = ConnectSettings { servers: self.servers.clone(), credentials, tls };
        let stream = stream_of(hub).with_context(|| format!("cannot use --hub {hub:?}"))?;
        Ok(Some(JetStream::new(settings, &stream)?))
    }

    fn credentials(&self) -> anyhow::Result<Credentials> {
        if let Some(creds) = &self.creds {
            return Ok(Credentials::File(creds.clone()));
        }
        let Some(file) = &self.password_file else { return Ok(Credentials::None) };
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        let secret = text.trim().to_owned();
        if secret.is_empty() {
            bail!("{} is empty: write the password into it", file.display());
        }
        Ok(match &self.user {
            Some(user) => Credentials::UserAndPassword { user: user.clone(), password: secret },
            None => Credentials::Token(secret),
        })
    }
}

/// Waits until the engine says which hub the stream belongs to. Until then, writes a line of the
/// log whenever there is a new reason why the engine cannot be used.
pub(crate) async fn connect(journal: JetStream) -> (HubId, JetStream) {
    let (mut wait, mut said) = (WAIT_MIN, String::new());
    loop {
        match journal.hub().await {
            Ok(hub) => {
                tracing::info!("the engine of the cluster is reached");
                return (hub, journal.for_hub(hub));
            }
            Err(error) => {
                let reason = match journal.connect_error() {
                    Some(reason) => format!("{error}: {reason}"),
                    None => error.to_string(),
                };
                if reason != said {
                    tracing::warn!("the engine of the cluster cannot be used: {reason}");
                    said = reason;
                }
            }
        }
        tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

/// How often [`watch`] looks at the connection to the engine.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The reason why the engine delivers no entries. `known` is the hub that the stream belonged to
/// before.
async fn why_away(journal: &JetStream, known: Option<HubId>) -> String {
    // If no NATS server can be reached, `hub` waits for one.
    let found = tokio::time::timeout(LOOK_EVERY / 2, journal.hub()).await;
    match (found, journal.connect_error()) {
        (Ok(Ok(hub)), _) if known.is_some_and(|known| known != hub) => {
            "the stream belongs to another hub now: restart this server to use it".to_owned()
        }
        (Ok(Ok(_)), _) => "it answers, but delivers no entries".to_owned(),
        (_, Some(reason)) => reason,
        (Ok(Err(error)), None) => error.to_string(),
        (Err(_), None) => "it does not answer".to_owned(),
    }
}

/// Writes a line of the log when the engine stops delivering entries, with the reason, and when it
/// delivers entries again. Ends when the hub drains, that is, when the server begins to shut down.
/// `journal` has a separate connection to the engine, because the connection of the node is used
/// only on the node's thread.
pub(crate) async fn watch(hub: Hub<String>, journal: JetStream) {
    let mut said: Option<String> = None;
    let mut known = None;
    while let Some(status) = hub.cluster() {
        let is_connected = status.is_connected();
        if let Some(version) = status.too_new {
            tracing::error!(
                version,
                "this server is too old for its cluster and no longer serves: install a newer one"
            );
            return;
        }
        if is_connected && known.is_none() {
            known = journal.hub().await.ok();
        }
        if is_connected && said.take().is_some() {
            tracing::info!("the engine of the cluster delivers events again");
        }
        if !is_connected && status.reached {
            let reason = why_away(&journal, known).await;
            if said.as_ref() != Some(&reason) {
                tracing::warn!("the engine of the cluster is away: {reason}");
                said = Some(reason);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = hub.draining() => return,
        }
    }
}

/// The ticket key that all nodes of a cluster share.
pub(crate) fn ticket_key(secret: &[u8; 16]) -> Result<Secret, KeyFileError> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, b"downlink ticket key");
    Secret::from_file_bytes(BASE64.encode(tag.as_ref()).as_bytes())
}
