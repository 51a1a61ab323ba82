//! The address that a server listens on: an IP address and a port, or the path of a Unix socket
//! (`unix:/run/downlink.sock`).

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The prefix of a Unix socket's path.
const UNIX: &str = "unix:";

/// The value of `--listen`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// An IP address and a port. Port 0 means any free port.
    Tcp(SocketAddr),
    /// The path of a Unix socket. The path is empty if the socket has no name.
    Unix(PathBuf),
}

impl Address {
    /// Whether only programs on this machine can reach the address.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// The path of a Unix socket. `None` for an IP address.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(UNIX) {
            Some("") => Err("give a path after unix:, such as unix:/run/downlink.sock".into()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "write 127.0.0.1:8080, [::1]:8080 or unix:/run/downlink.sock".into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_the_text_that_it_was_parsed_from() {
        for text in ["127.0.0.1:8080", "[::1]:0", "unix:/run/a b.sock", "unix:here.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["unix:", "localhost", "8080", "127.0.0.1", "/run/downlink.sock"] {
            assert!(text.parse::<Address>().unwrap_err().contains("unix:/run/"), "{text}");
        }
    }

    #[test]
    fn unix_sockets_and_loopback_addresses_are_local() {
        let local = |text: &str| text.parse::<Address>().unwrap().is_local();
        assert!(local("unix:/run/a.sock") && local("127.0.0.9:1") && local("[::1]:1"));
        assert!(!local("0.0.0.0:1") && !local("192.0.2.1:1"));
    }
}
