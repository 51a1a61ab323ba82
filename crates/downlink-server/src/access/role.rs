//! The role of a listener decides which paths it serves, and which rights it gives to a request
//! without a credential. A production server has one listener or two. If it has two, the public
//! listener is for pages and users, and the admin listener is for apps and operators.

/// The role of a listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Role {
    /// `downlink dev`: gives every right to programs on this machine.
    Development,
    /// The only listener of `downlink serve`. It serves all paths, and gives a request the rights
    /// of its credential.
    Only,
    /// The public listener beside an admin listener. It serves the paths for pages and programs of
    /// users, and accepts no keys.
    Public,
    /// The admin listener on a TCP address. It serves all paths, and gives a request the rights of
    /// its credential.
    Admin,
    /// The admin listener on a Unix socket. It gives every right, because the permissions of the
    /// socket's file decide who can connect.
    AdminSocket,
}

/// The paths that a public listener beside an admin listener serves.
const PUBLIC_PATHS: [&str; 6] =
    ["/events", "/events/batch", "/tickets", "/downlink.js", "/healthz", "/readyz"];

/// The paths that need no right on any listener. A health check sends no credential, and the script
/// `downlink.js` contains nothing secret.
const OPEN_PATHS: [&str; 3] = ["/healthz", "/readyz", "/downlink.js"];

impl Role {
    /// Whether a listener with this role serves the path.
    pub(crate) fn serves(self, path: &str) -> bool {
        self != Self::Public || PUBLIC_PATHS.contains(&path)
    }

    /// Whether a listener with this role gives every right to requests without a credential.
    pub(crate) fn gives_all_rights(self) -> bool {
        matches!(self, Self::Development | Self::AdminSocket)
    }

    /// Whether this is the listener for pages and users of a production server. If the server has
    /// only one listener, it is this listener too.
    pub(crate) fn is_public(self) -> bool {
        matches!(self, Self::Only | Self::Public)
    }

    /// Whether a listener with this role accepts keys as credentials.
    pub(crate) fn takes_keys(self) -> bool {
        self != Self::Public
    }
}

/// Whether a path needs no right.
pub(crate) fn is_open(path: &str) -> bool {
    OPEN_PATHS.contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_listener_beside_an_admin_listener_serves_only_the_public_paths() {
        for path in ["/topics", "/clients", "/metrics", "/finish", "/revoke", "/", "/events/"] {
            assert!(!Role::Public.serves(path) && Role::Only.serves(path), "{path}");
        }
        assert!(PUBLIC_PATHS.iter().all(|path| Role::Public.serves(path)));
    }

    #[test]
    fn only_development_and_the_admin_socket_give_rights_without_a_credential() {
        assert!(Role::Development.gives_all_rights() && Role::AdminSocket.gives_all_rights());
        for role in [Role::Only, Role::Public, Role::Admin] {
            assert!(!role.gives_all_rights(), "{role:?}");
        }
    }
}
