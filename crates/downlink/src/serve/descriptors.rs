//! How many connections the process has file descriptors for.
//!
//! The soft limit that a process starts with is often 1,024 and may be raised by the process
//! itself up to the hard one. What is left after a reserve is the default of `connections_max`.
//! Nothing here fails: a limit that cannot be raised is used as it is.

/// Descriptors kept from connections: [`REFUSALS_MAX`](super::REFUSALS_MAX) for newcomers that are
/// being refused, and as many for the listener, the runtime, files, databases and name look-ups.
/// Half would be used up by refusals alone; double buys nothing, as a process with more open files
/// than that knows it and sets `connections_max`.
pub(super) const DESCRIPTORS_RESERVED: u64 = 128;

/// The connections a process may hold where the system names no limit: what Linux allows one
/// process at most by default (`fs.nr_open`).
const CONNECTIONS_WITHOUT_LIMIT: u64 = 1 << 20;

/// Raises the soft limit to the hard one and answers how many connections fit.
pub(super) fn connections_max() -> usize {
    let descriptors = raise_limit();
    let connections = connections_for(descriptors);
    tracing::debug!(?descriptors, connections_max = connections, "descriptors counted");
    connections
}

/// What fits into a number of descriptors; `None` is no limit. Never 0, never the whole.
fn connections_for(descriptors: Option<u64>) -> usize {
    let Some(descriptors) = descriptors else { return saturate(CONNECTIONS_WITHOUT_LIMIT) };
    let reserved = DESCRIPTORS_RESERVED.min(descriptors / 2);
    saturate((descriptors - reserved).clamp(1, CONNECTIONS_WITHOUT_LIMIT))
}

fn saturate(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(unix)]
fn raise_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
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
