//! The monitoring addresses of servers: a GET over HTTP/1.0, and the answers that a check needs.
//!
//! Only the monitoring address of a server shows its settings of JetStream. This file supports the
//! part of HTTP that such an address needs. It has no TLS, no redirects and no chunks.

use std::{fmt, io, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    finding::{Finding, almost_full},
    settings::SettingsError,
    stream::SYNC_TAG,
};

/// The maximum time for the answers of one monitoring address.
pub const MONITOR_WITHIN: Duration = Duration::from_secs(3);
/// The maximum size of an answer in bytes. An answer has some kilobytes, and one more kilobyte for
/// each hundred routes and tags.
pub const MONITOR_BYTES_MAX: u64 = 256 * 1_024;

/// The monitoring address of a server, such as `http://nats-1:8222`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MonitorUrl(String);

impl MonitorUrl {
    /// Reads an address: `http`, a name or an IP address, and a port.
    ///
    /// # Errors
    ///
    /// [`SettingsError::MonitorUrl`] if the text has another form.
    pub fn new(text: &str) -> Result<Self, SettingsError> {
        let host = text.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let is_host = |host: &&str| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
            host.bytes().all(is_allowed)
                && host.rsplit_once(':').is_some_and(|(name, port)| {
                    !name.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
                })
        };
        host.filter(is_host).map(|host| Self(host.into())).ok_or(SettingsError::MonitorUrl)
    }

    /// The findings about the server.
    pub(crate) async fn findings(&self) -> Vec<Finding> {
        let asking = async { Ok((self.get("/varz").await?, self.get("/jsz?config=true").await?)) };
        let result: io::Result<_> = match timeout(MONITOR_WITHIN, asking).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match result {
            Ok((server, jetstream)) => findings(&server, &jetstream),
            Err(error) => {
                let detail = format!("{self} gives no usable answer ({error})");
                vec![Finding::new("no-monitor", &detail)]
            }
        }
    }

    async fn get(&self, path: &str) -> io::Result<Value> {
        let mut socket = TcpStream::connect(&self.0).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.0);
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        socket.take(MONITOR_BYTES_MAX).read_to_end(&mut answer).await?;
        let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "no answer of NATS");
        let status = answer.split(|byte| *byte == b' ').nth(1);
        let end =
            answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or_else(unreadable)?;
        if status != Some(b"200") {
            return Err(unreadable());
        }
        let answer: Value = serde_json::from_slice(&answer[end..]).map_err(|_| unreadable())?;
        answer["server_id"].is_string().then_some(answer).ok_or_else(unreadable)
    }
}

impl fmt::Display for MonitorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// The findings in the answers about a server and about its JetStream.
fn findings(server: &Value, jetstream: &Value) -> Vec<Finding> {
    let name = server["server_name"].as_str().unwrap_or_default();
    let config = &jetstream["config"];
    let old = old_server(name, server["version"].as_str().unwrap_or_default());
    let mut findings: Vec<Finding> = old.into_iter().collect();
    if config["sync_always"] != true {
        let is_tag = |tag: &Value| tag.as_str().is_some_and(|it| it.eq_ignore_ascii_case(SYNC_TAG));
        let has_tag = server["tags"].as_array().is_some_and(|tags| tags.iter().any(is_tag));
        let code = if has_tag { "false-sync-tag" } else { "lazy-sync" };
        findings.push(Finding::new(code, name));
    }
    let used = jetstream["storage"].as_u64().unwrap_or(0);
    if let Some(used) = almost_full(used, config["max_storage"].as_i64().unwrap_or(0)) {
        findings.push(Finding::new("server-full", &format!("{name} has used {used} %")));
    }
    findings
}

/// A finding if the version of a server is below 2.11.
pub(crate) fn old_server(name: &str, version: &str) -> Option<Finding> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version_numbers = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let detail = format!("{name} has version {version}");
    (version_numbers < (2, 11)).then(|| Finding::new("old-server", &detail))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_addresses_of_http_with_a_port_are_taken() {
        for (text, shown) in [
            ("http://nats-1:8222", "http://nats-1:8222"),
            ("http://10.0.0.1:8222/", "http://10.0.0.1:8222"),
            ("http://[::1]:8222", "http://[::1]:8222"),
        ] {
            assert_eq!(MonitorUrl::new(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "nats-1:8222",
            "https://nats-1:8222",
            "http://nats-1",
            "http://:8222",
            "http://nats-1:0",
            "http://nats-1:99999",
            "http://nats-1:8222/varz",
            "http://ann:x@nats-1:8222",
            "http://nats-1:8222\r\nX: y",
        ] {
            assert_eq!(MonitorUrl::new(text), Err(SettingsError::MonitorUrl), "{text}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for old in ["2.10.29", "2.9.25", "1.4.1", "0.0.0", "", "x"] {
            assert!(old_server("a", old).is_some(), "{old}");
        }
        for new in ["2.11.0", "2.15.3", "2.12.0-RC.1", "3.0.0", "10.0.0"] {
            assert_eq!(old_server("a", new), None, "{new}");
        }
    }

    #[test]
    fn a_server_with_a_false_tag_or_a_full_storage_is_found() {
        let found = |tags: &[&str], sync_always: bool, storage: u64| {
            let server = json!({ "server_name": "a", "version": "2.15.3", "tags": tags });
            let config = json!({ "max_storage": 100, "sync_always": sync_always });
            let jetstream = json!({ "storage": storage, "config": config });
            findings(&server, &jetstream)
                .into_iter()
                .map(|finding| finding.code)
                .collect::<Vec<_>>()
        };
        assert_eq!(found(&["sync:always"], true, 89), [""; 0]);
        assert_eq!(found(&["sync:always"], false, 0), ["false-sync-tag"]);
        assert_eq!(found(&[], false, 90), ["lazy-sync", "server-full"]);
    }
}
