//! How many connections the process has file descriptors for.
//!
//! A process often starts with a soft limit of 1,024 descriptors, and may raise it to the hard
//! limit. The default of `connections_max` is the hard limit minus a reserve. If the process cannot
//! raise its limit, the default is the soft limit minus the reserve.

use super::limits::REFUSALS_MAX;

/// Descriptors reserved for other uses. Two thirds of them are for the connections that are being
/// refused, because [`REFUSALS_MAX`] applies twice: to connections beyond `connections_max`, and to
/// connections beyond a limit of their address. The last third is for the listener, the runtime,
/// files, databases and name look-ups. With half the reserve, refusals alone could use it up. Twice
/// the reserve would rarely help. A process that opens more files should set `connections_max`.
pub(super) const DESCRIPTORS_RESERVED: u64 = 3 * REFUSALS_MAX as u64;

/// The maximum number of connections, even if the system has no limit. By default, Linux allows one
/// process at most this many descriptors (`fs.nr_open`).
const CONNECTIONS_MAX: u64 = 1 << 20;

/// The number of connections that this process has file descriptors for, minus a reserve for other
/// uses. Raises the soft limit of open files to the hard limit.
///
/// This is the default of [`Serve::connections_max`](super::Serve::connections_max).
#[must_use]
pub fn connections_supported() -> usize {
    let descriptors = raise_limit();
    let connections = connections_for(descriptors);
    tracing::debug!(
        ?descriptors,
        connections_max = connections,
        "counted the file descriptors for connections"
    );
    connections
}

/// The number of connections for a number of descriptors. `None` means no limit. The result is at
/// least 1. If there are two or more descriptors, the result is smaller than their number.
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
            tracing::warn!(%error, ?limit.current, "cannot raise the limit of open files");
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
    fn the_reserve_is_not_used_for_connections() {
        assert_eq!(connections_for(Some(1_024)), 832);
        assert_eq!(connections_for(Some(385)), 193);
    }

    #[test]
    fn connections_get_half_of_a_small_limit() {
        assert_eq!(connections_for(Some(384)), 192);
        assert_eq!(connections_for(Some(383)), 192);
        assert_eq!(connections_for(Some(20)), 10);
    }

    #[test]
    fn one_connection_is_always_possible() {
        assert_eq!(connections_for(Some(1)), 1);
        assert_eq!(connections_for(Some(0)), 1);
    }

    #[test]
    fn without_a_limit_the_maximum_is_used() {
        assert_eq!(connections_for(None), 1 << 20);
        assert_eq!(connections_for(Some(u64::MAX)), 1 << 20);
    }

    #[cfg(unix)]
    #[test]
    fn the_soft_limit_is_raised_to_the_hard_limit() {
        use rustix::process::{Resource, getrlimit};

        let raised = raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raised, limit.maximum);
    }
}
