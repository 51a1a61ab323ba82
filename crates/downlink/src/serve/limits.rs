//! The limits of a server, and their defaults.

use std::time::Duration;

use crate::http::Spread;

/// Time for a request head to arrive, from the connection or from its first byte.
///
/// Ten seconds let the slowest honest client through, retransmissions included; a minute would let
/// an attacker hold every connection with a few bytes each.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time that an idle connection waits for its next request.
///
/// Balancers keep their connections for a minute (60 s at AWS and in nginx) and send a request on
/// one at any moment: if this server closes first, the request meets a closed connection. Twice as
/// long would hold the places of clients that are gone.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Time that a write may make no progress before the socket is closed.
///
/// A mobile client that changes cells is back within a few seconds. A peer that is gone for longer
/// resumes when it returns, so its memory is better spent on others. A peer that takes far less
/// than is sent, a few bytes now and then, counts as gone.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(10);

/// Bytes that the kernel takes for one socket before it has sent them. The bytes in flight and some
/// overhead come on top.
///
/// Without this limit a stalled peer holds megabytes of the kernel's memory (measured 4.2 MB)
/// before the server notices. Half would wake the writer of a large event for every few packets;
/// double is memory for nothing, as the bytes in flight are not counted.
pub const UNSENT_BYTES_MAX: u32 = 8 * 1024;

/// Time from the signal to the end of [`Serve`](super::Serve).
///
/// Most supervisors grant this much between asking a process to end and killing it.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// When the clients of ended or refused streams return: one to five seconds later.
///
/// Earlier, a restarting server is not up yet; later, people notice that the page stands still.
pub const RECONNECTION_SPREAD: Spread =
    Spread::between(Duration::from_secs(1), Duration::from_secs(5));

/// Newcomers beyond `connections_max` that get an answer at the same time; any more are closed
/// without one.
///
/// Each costs a descriptor and a task for a moment. Half would leave a burst of reloading browsers
/// without an answer; double is half of the descriptors that a default soft limit on macOS allows.
pub const REFUSALS_MAX: usize = 64;

/// The longest wait; the arithmetic of instants overflows with much longer ones.
pub(super) const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The size of hyper's buffer for one connection in each direction, and so of a request head,
/// beyond which the answer is 431.
///
/// Half would refuse the cookies that some sites pile up. Double is memory that each stalled peer
/// holds besides one batch of events: with hyper's own default, 408 KiB, ten thousand of them hold
/// 4 GB.
pub(super) const BUFFER_BYTES_MAX: usize = 32 * 1024;

/// The limits that apply to all connections of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServeLimits {
    pub(super) drain_within: Duration,
    pub(super) reconnection: Spread,
    pub(super) header_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) write_stall_max: Duration,
    /// 0 leaves this limit to the system.
    pub(super) unsent_bytes_max: u32,
    pub(super) connections_max: usize,
}
