//! How many connections the process has file descriptors for.
//!
//! A process often starts with a soft limit of 1,024, and may raise it up to the hard limit. The
//! limit less a reserve is the default of `connections_max`. A limit that cannot be raised is used
//! as it is.

/// Descriptors reserved for other uses: [`REFUSALS_MAX`](super::limits::REFUSALS_MAX) for newcomers
/// that are being refused, and as many for the listener, the runtime, files, databases and name
/// look-ups. Half would be used up by refusals alone. Double buys nothing, since a process with
/// more open files sets `connections_max`.
pub(super) const DESCRIPTORS_RESERVED: u64 = 128;

/// The most connections, also without a limit of the system. Linux allows one process at most this
/// many descriptors by default (`fs.nr_open`).
const CONNECTIONS_MAX: u64 = 1 << 20;

/// The number of connections that this process has file descriptors for. Some are reserved for
/// other uses. Raises the soft limit of open files to the hard one.
///
/// This is the default of [`Serve::connections_max`](super::Serve::connections_max).
#[must_use]
pub fn connections_supported() -> usize {
    let descriptors = raise_limit();
    let connections = connections_for(descriptors);
    tracing::debug!(?descriptors, connections_max = connections, "descriptors counted");
    connections
}

/// The connections for a number of descriptors; `None` is no limit. Never 0, never all of them.
fn connections_for(descriptors: Option<u64>) -> usize {
    let descriptors = descriptors.unwrap_or(u64::MAX);
    let reserved = DESCRIPTORS_RESERVED.min(descriptors / 2);
    (descriptors - reserved).clamp(1, CONNECTIONS_MAX) as usize
}

#[cfg(unix)]
fn raise_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, ?limit.current, "the limit of open files stays as it is");
            limit.current
        }
    }
}

#[cfg(not(unix))]
fn raise_limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserve_is_kept_from_connections() {
        assert_eq!(connections_for(Some(1_024)), 896);
        assert_eq!(connections_for(Some(257)), 129);
    }

    #[test]
    fn small_limit_is_shared_in_halves() {
        assert_eq!(connections_for(Some(256)), 128);
        assert_eq!(connections_for(Some(255)), 128);
        assert_eq!(connections_for(Some(20)), 10);
    }

    #[test]
    fn one_connection_is_always_possible() {
        assert_eq!(connections_for(Some(1)), 1);
        assert_eq!(connections_for(Some(0)), 1);
    }

    #[test]
    fn no_limit_is_the_systems_largest() {
        assert_eq!(connections_for(None), 1 << 20);
        assert_eq!(connections_for(Some(u64::MAX)), 1 << 20);
    }

    #[cfg(unix)]
    #[test]
    fn soft_limit_reaches_the_hard_one() {
        use rustix::process::{Resource, getrlimit};

        let raised = raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raised, limit.maximum);
    }
}
