//! The settings of access control, for `downlink serve`.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::bail;
use clap::Args;
use downlink::hub::TopicSelector;
use downlink_access::TokenGrant;

use crate::{address::Address, duration::parse_time, host::parse_host};

use super::{AbuseLimits, AskSettings, origin::parse_origin};

/// The settings that give rights. Without any of them, only the keys that the server makes at its
/// first start give rights.
#[derive(Args, Clone, Debug)]
#[non_exhaustive]
pub struct AccessSettings {
    /// A second address, for apps and operators: `unix:` and a path, or a loopback address. It
    /// serves every path. The address of --listen then serves only the paths for pages and users,
    /// and accepts no keys. A Unix socket gives every right to those who can connect.
    #[arg(long, env = "DOWNLINK_ADMIN_LISTEN", value_name = "ADDR:PORT|unix:PATH")]
    pub admin_listen: Option<Address>,
    /// Topics or patterns that everyone may subscribe to without a credential. May be given several
    /// times, or separated by `;`.
    #[arg(
        long,
        env = "DOWNLINK_PUBLIC",
        value_name = "TOPICS",
        value_delimiter = ';',
        value_parser = parse_selector
    )]
    pub public: Vec<TopicSelector>,
    /// A file with a key for an app, which publishes anywhere, subscribes to anything, and issues
    /// tickets. By default, the server makes downlink-publish.key beside the store. May be given
    /// several times.
    #[arg(long, env = "DOWNLINK_PUBLISH_KEY_FILE", value_name = "FILE", value_delimiter = ',')]
    pub publish_key_file: Vec<PathBuf>,
    /// A file with a key for an operator, who may do everything. May be given several times.
    #[arg(long, env = "DOWNLINK_ADMIN_KEY_FILE", value_name = "FILE", value_delimiter = ',')]
    pub admin_key_file: Vec<PathBuf>,
    /// A file with a key for a relay, which follows this server with --follow. May be given several
    /// times.
    #[arg(long, env = "DOWNLINK_RELAY_KEY_FILE", value_name = "FILE", value_delimiter = ',')]
    pub relay_key_file: Vec<PathBuf>,
    /// A file with the secret that seals tickets. By default, the server makes downlink-ticket.key
    /// beside the store. May be given several times: the first one seals new tickets, and all of
    /// them open tickets.
    #[arg(long, env = "DOWNLINK_TICKET_KEY_FILE", value_name = "FILE", value_delimiter = ',')]
    pub ticket_key_file: Vec<PathBuf>,
    /// A file with a shared secret for JSON Web Tokens (HS256, HS384, HS512). May be given several
    /// times.
    #[arg(long, env = "DOWNLINK_JWT_KEY_FILE", value_name = "FILE", value_delimiter = ',')]
    pub jwt_key_file: Vec<PathBuf>,
    /// A PEM file with public keys for JSON Web Tokens (RS, PS, ES, EdDSA). Needs --jwt-issuer and
    /// --jwt-audience. May be given several times.
    #[arg(long, env = "DOWNLINK_JWT_PUBLIC_KEY", value_name = "FILE", value_delimiter = ',')]
    pub jwt_public_key: Vec<PathBuf>,
    /// The URL of a key set for JSON Web Tokens: `https://`, or `file://` and a path. Needs --jwt-issuer
    /// and --jwt-audience.
    #[arg(long, env = "DOWNLINK_JWKS_URL", value_name = "URL")]
    pub jwks_url: Option<String>,
    /// The issuer (`iss`) that a token must have.
    #[arg(long, env = "DOWNLINK_JWT_ISSUER", value_name = "TEXT")]
    pub jwt_issuer: Option<String>,
    /// An audience (`aud`) that a token must have. May be given several times.
    #[arg(long, env = "DOWNLINK_JWT_AUDIENCE", value_name = "TEXT", value_delimiter = ',')]
    pub jwt_audience: Vec<String>,
    /// The cookie that contains a token.
    #[arg(
        long,
        env = "DOWNLINK_JWT_COOKIE",
        value_name = "NAME",
        default_value = downlink_access::COOKIE_NAME_DEFAULT
    )]
    pub jwt_cookie: String,
    /// Topics that every token without a claim `downlink` may subscribe to. `$client` stands for
    /// its `sub`, as in `users/$client/*`. May be given several times, or separated by `;`.
    #[arg(
        long,
        env = "DOWNLINK_TOKEN_GRANT",
        value_name = "TOPICS",
        value_delimiter = ';',
        value_parser = parse_token_grant
    )]
    pub token_grant: Vec<TokenGrant>,
    /// The maximum lifetime of a token, from `iat` on.
    #[arg(
        long,
        env = "DOWNLINK_TOKEN_LIFETIME_MAX",
        value_name = "TIME",
        default_value = "24h",
        value_parser = parse_time
    )]
    pub token_lifetime_max: Duration,
    /// The origin of pages that may use the server from another site, such as
    /// `https://app.example`. `*` allows every page, but without credentials. May be given several
    /// times, or separated by commas.
    #[arg(
        long,
        env = "DOWNLINK_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        value_parser = parse_origin
    )]
    pub cors_origin: Vec<String>,
    /// The URL at which browsers reach the server, such as `https://push.example`. The URLs of
    /// tickets begin with it, and its origin is the server's own origin.
    #[arg(long, env = "DOWNLINK_PUBLIC_URL", value_name = "URL", value_parser = parse_public_url)]
    pub public_url: Option<String>,
    /// A host name that clients may use for the server, besides the loopback names and the host of
    /// --public-url. Without one, a server on a loopback address accepts only those, and a server on
    /// another address accepts every name. May be given several times, or separated by commas.
    #[arg(
        long = "host",
        env = "DOWNLINK_HOST",
        value_name = "NAME[:PORT]",
        value_delimiter = ',',
        value_parser = parse_host
    )]
    pub hosts: Vec<String>,
    /// The app that decides about subscriptions.
    #[command(flatten)]
    pub ask: AskSettings,
    /// The limits against abuse.
    #[command(flatten)]
    pub abuse: AbuseLimits,
}

impl AccessSettings {
    /// Checks the rules that concern several settings together. `listen` is the address of the
    /// public listener.
    ///
    /// # Errors
    ///
    /// An error that says which setting to change.
    pub(crate) fn check(&self, listen: &Address) -> anyhow::Result<()> {
        self.abuse.check(listen)?;
        match &self.admin_listen {
            Some(Address::Tcp(address)) if !is_loopback(address.ip()) => bail!(
                "--admin-listen {address} can be reached from other machines, and the server has \
                 no TLS yet: use --admin-listen unix:/run/downlink-admin.sock or a loopback address"
            ),
            _ => Ok(()),
        }
    }

    /// The settings in force after a reload that has read the settings `new`. The addresses of the
    /// listeners and the limits of connections stay as they are in `self`.
    pub(crate) fn reloaded(&self, new: Self) -> Self {
        let (admin_listen, abuse) = (self.admin_listen.clone(), self.abuse.reloaded(new.abuse));
        Self { admin_listen, abuse, ..new }
    }

    /// The host names that the `Host` header may have, besides the loopback names.
    pub(crate) fn host_names(&self) -> Vec<String> {
        let of_url = self.public_url.as_deref().and_then(|url| url.split("://").nth(1));
        let of_url = of_url.map(|rest| rest.split('/').next().unwrap_or(rest).to_owned());
        self.hosts.iter().cloned().chain(of_url).collect()
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn parse_selector(text: &str) -> Result<TopicSelector, String> {
    TopicSelector::parse(text).map_err(|error| format!("{text:?} is no topic or pattern: {error}"))
}

fn parse_token_grant(text: &str) -> Result<TokenGrant, String> {
    TokenGrant::parse(text).map_err(|error| format!("{text:?} is no topic or pattern: {error}"))
}

/// Parses the URL of the server, and removes the slash at its end.
fn parse_public_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    let (origin, path) = match url.match_indices('/').nth(2) {
        Some((at, _)) => url.split_at(at),
        None => (url, ""),
    };
    parse_origin(origin)?;
    let is_path = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\".contains(&byte));
    let is_web = origin.starts_with("http://") || origin.starts_with("https://");
    if !is_web || !is_path {
        return Err("write the URL without a query, such as https://push.example/live".into());
    }
    Ok(url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_has_no_query_and_no_slash_at_its_end() {
        let parsed = |text| parse_public_url(text);
        assert_eq!(parsed("https://push.example/").as_deref(), Ok("https://push.example"));
        assert_eq!(parsed("http://h:81/live").as_deref(), Ok("http://h:81/live"));
        for text in ["push.example", "https://", "https://h/?a", "ftp://h", "*", "https://h/a b"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
