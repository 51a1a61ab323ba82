//! The limits of a server, and their defaults.

use std::time::Duration;

use crate::http::Spread;

/// The maximum time for a request head to arrive. For the first request, it counts from the start
/// of the connection. For later requests, it counts from the first byte of the head.
///
/// Ten seconds are enough for the slowest honest client, including retransmissions. With a much
/// longer time, such as a minute, an attacker could occupy all connections for long by sending a
/// few bytes on each.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum time that an idle connection waits for its next request.
///
/// Load balancers keep idle connections for a minute (60 s at AWS and in nginx), and may send a
/// request on an idle connection at any moment. If this server closed the connection at the same
/// moment, the request would fail. So this server keeps idle connections for longer than the load
/// balancers do. With twice the time, clients that are gone would occupy connections for too long.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// The maximum time that a write may make no progress before the server closes the socket.
///
/// A mobile client that changes its network cell is back within a few seconds. If a peer is away
/// for longer, the server closes the connection and uses the memory for other peers. The peer
/// resumes when it returns. A peer that reads far less than the server sends, such as a few bytes
/// now and then, also counts as gone.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(10);

/// The maximum number of bytes that the kernel accepts for one socket and has not sent yet. The
/// bytes in flight (sent but not yet acknowledged) and some overhead are not counted.
///
/// Without this limit, a stalled peer occupies megabytes of the kernel's memory (measured 4.2 MB)
/// before the server notices the stall. With half the size, the kernel would wake the writer of a
/// large event for every few packets. Twice the size would not make writes faster: the speed
/// depends on the bytes in flight, which this limit does not count.
pub const UNSENT_BYTES_MAX: u32 = 8 * 1024;

/// The maximum time from the signal to the end of [`Serve`](super::Serve).
///
/// Most supervisors ask a process to end, and kill it after 30 seconds. With more time for a drain,
/// they would kill the server before the drain has ended.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// The range of the reconnection times for clients whose streams were ended or refused: one to five
/// seconds.
///
/// With shorter times, clients would reconnect before a restarted server is ready. With longer
/// times, people would notice that the page does not update.
pub const RECONNECTION_SPREAD: Spread =
    Spread::between(Duration::from_secs(1), Duration::from_secs(5));

/// The maximum number of connections beyond `connections_max` that get an answer at the same time.
/// The same maximum applies separately to the connections beyond a limit of their address. The
/// server closes any further connections without an answer.
///
/// Each of these connections needs a file descriptor and a task for a moment. A lower limit would
/// leave more browsers without an answer when many pages reload at once. The limit is not higher,
/// because macOS allows a process only 256 file descriptors by default.
pub const REFUSALS_MAX: usize = 64;

/// The longest timeout. If a timeout is much longer, adding it to the current time overflows.
pub(super) const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The size of hyper's buffer for one connection in each direction. It also limits the size of a
/// request head: a larger head gets the status 431.
///
/// With half the size, the server would refuse requests with the many cookies that some sites set.
/// Twice the size would cost memory, because each stalled peer occupies a whole buffer in addition
/// to one batch of events. With hyper's own default of 408 KiB, ten thousand stalled peers would
/// occupy 4 GB.
pub(super) const BUFFER_BYTES_MAX: usize = 32 * 1024;

/// The limits that apply to all connections of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServeLimits {
    pub(super) drain_within: Duration,
    pub(super) reconnection: Spread,
    pub(super) header_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) write_stall_max: Duration,
    /// With 0, the operating system chooses the limit.
    pub(super) unsent_bytes_max: u32,
    pub(super) connections_max: usize,
}
