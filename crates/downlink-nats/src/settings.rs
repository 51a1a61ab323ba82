//! The settings of the connection to the servers.

use std::{fmt, path::PathBuf};

use async_nats::ServerAddr;
use thiserror::Error;

/// The maximum length of the name of a stream in bytes. The server uses the name in names of files,
/// which have at most 255 characters, and adds some characters of its own.
const STREAM_NAME_BYTES_MAX: usize = 200;

/// The servers, and how to connect to them.
///
/// A server may announce other servers of its cluster. The client ignores them, so all connections
/// can be led through proxies.
#[derive(Clone, Debug, Default)]
pub struct ConnectSettings {
    /// URLs such as `nats://nats-1:4222` or `tls://nats-2:4222`, at least one.
    pub servers: Vec<ServerUrl>,
    /// The credentials for all servers.
    pub credentials: Credentials,
    /// The settings of TLS.
    pub tls: Tls,
}

/// The URL of a server.
#[derive(Clone, Eq, PartialEq)]
pub struct ServerUrl(ServerAddr);

impl ServerUrl {
    /// Reads a URL. Without a scheme it is `nats`, and without a port it is 4222.
    ///
    /// # Errors
    ///
    /// [`SettingsError::Url`] if the text is no URL, or if the scheme is not `nats` or `tls`.
    /// [`SettingsError::UrlWithCredentials`] if the URL has a user, because the client would not
    /// use it.
    pub fn new(text: &str) -> Result<Self, SettingsError> {
        let server = text.parse::<ServerAddr>().map_err(|_| SettingsError::Url)?;
        if server.is_websocket() || server.host().is_empty() {
            return Err(SettingsError::Url);
        }
        if server.username().or(server.password()).is_some() {
            return Err(SettingsError::UrlWithCredentials);
        }
        Ok(Self(server))
    }

    pub(crate) fn addr(&self) -> &ServerAddr {
        &self.0
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0.host(), self.0.port())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerUrl({self})")
    }
}

/// The credentials of this program at the servers. Their `Debug` output shows no secret.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// No credentials.
    #[default]
    None,
    /// A file with a JWT and the seed of a key, as `nsc` writes it. It is read for each connection,
    /// so it may be replaced while the program runs.
    File(PathBuf),
    /// A user with a password.
    UserAndPassword {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Token(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::UserAndPassword { user, .. } => {
                f.debug_struct("UserAndPassword").field("user", user).finish_non_exhaustive()
            }
            Self::Token(_) => f.write_str("Token(..)"),
        }
    }
}

/// The settings of TLS.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Use TLS for all servers, also if the scheme of the URL is `nats` and the server does not
    /// require TLS.
    pub is_required: bool,
    /// Begin the connection with TLS. The server needs `handshake_first`.
    pub is_first: bool,
    /// A PEM file with the certificates to trust, in place of those of the system.
    pub root_certificates: Option<PathBuf>,
    /// The PEM files with the certificate and the key of this program.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// The settings are wrong.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SettingsError {
    /// There is no server.
    #[error("no server is given")]
    NoServer,
    /// The text is not the URL of a server.
    #[error("not the URL of a NATS server")]
    Url,
    /// The URL has a user or a password.
    #[error("the URL of a server cannot contain credentials")]
    UrlWithCredentials,
    /// The name of a stream must consist of 1 to 200 letters, digits, `-` and `_`.
    #[error("a stream has a name of at most 200 letters, digits, - and _")]
    StreamName,
    /// The name of a hub must consist of 1 to 64 letters, digits, `-` and `_`.
    #[error("a hub has a name of at most 64 letters, digits, - and _")]
    HubName,
    /// The text is not a monitoring address.
    #[error("not a monitoring address such as http://nats-1:8222")]
    MonitorUrl,
}

/// Checks the name of a stream. The server allows more names, but some of them cannot be part of a
/// subject.
pub(crate) fn check_stream_name(name: &str) -> Result<(), SettingsError> {
    is_name(name, STREAM_NAME_BYTES_MAX).then_some(()).ok_or(SettingsError::StreamName)
}

/// Whether a text consists of 1 to `bytes_max` letters, digits, `-` and `_`.
pub(crate) fn is_name(text: &str, bytes_max: usize) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=bytes_max).contains(&text.len()) && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let servers = vec![ServerUrl::new("nats://localhost").unwrap()];
        let user = "ann".to_owned();
        let secrets = [
            Credentials::UserAndPassword { user, password: "hidden".into() },
            Credentials::Token("hidden".into()),
        ];
        for credentials in secrets {
            let settings =
                ConnectSettings { servers: servers.clone(), credentials, tls: Tls::default() };
            let shown = format!("{settings:?}");
            assert!(!shown.contains("hidden") && shown.contains("localhost:4222"), "{shown}");
        }
    }

    #[test]
    fn urls_of_other_schemes_are_refused() {
        for text in ["http://localhost", "ws://localhost", "nats://", "", "a b"] {
            assert_eq!(ServerUrl::new(text), Err(SettingsError::Url), "{text}");
        }
        assert_eq!(ServerUrl::new("[::1]:4223").unwrap().to_string(), "::1:4223");
    }

    /// The client ignores credentials in a URL, and would connect without them.
    #[test]
    fn urls_with_credentials_are_refused() {
        for text in ["nats://ann:secret@localhost", "nats://token@localhost"] {
            assert_eq!(ServerUrl::new(text), Err(SettingsError::UrlWithCredentials), "{text}");
        }
    }

    #[test]
    fn the_name_of_a_stream_is_a_part_of_a_subject() {
        let longest = "a".repeat(STREAM_NAME_BYTES_MAX);
        for name in ["hub", "HUB_1-a", &longest] {
            assert_eq!(check_stream_name(name), Ok(()), "{name}");
        }
        let longer = "a".repeat(STREAM_NAME_BYTES_MAX + 1);
        for name in ["", "a.b", "a b", "*", ">", "ä", &longer] {
            assert_eq!(check_stream_name(name), Err(SettingsError::StreamName), "{name}");
        }
    }
}
