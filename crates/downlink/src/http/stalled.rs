//! Tells a body that the server drops it because its peer has read nothing for too long.
//!
//! The server knows that the peer has stalled, but only the source of the body (the code from which
//! the body gets its frames) knows which subscription belongs to the peer. Middleware may wrap the
//! body, so the server cannot call the source. Instead, a thread-local carries the peer's address
//! and the age of the response to the source. The thread-local is set only while the server drops
//! the body.

use std::cell::RefCell;
use std::time::Duration;

/// The facts about a response whose peer has stalled.
#[derive(Debug)]
pub(crate) struct StalledPeer {
    /// The address of the peer.
    pub(crate) peer: String,
    /// How long ago the response began.
    pub(crate) age: Duration,
}

thread_local! {
    static STALLED: RefCell<Option<StalledPeer>> = const { RefCell::new(None) };
}

/// Drops a body whose peer has stalled.
pub(crate) fn drop_stalled(stalled: StalledPeer, drop: impl FnOnce()) {
    /// Clears the thread-local, even if the drop panics.
    struct ClearOnDrop;

    impl Drop for ClearOnDrop {
        fn drop(&mut self) {
            STALLED.take();
        }
    }

    STALLED.set(Some(stalled));
    let _clear = ClearOnDrop;
    drop();
}

/// Takes the stalled peer of the body that is being dropped. Returns `None` if the peer has not
/// stalled, or if an earlier call has taken the value.
pub(crate) fn take() -> Option<StalledPeer> {
    // A body may be dropped while its thread ends, and the thread-local may no longer exist.
    STALLED.try_with(RefCell::take).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stalled_peer_can_be_taken_once_while_the_body_is_dropped() {
        let stalled = || StalledPeer { peer: "somebody".to_owned(), age: Duration::from_secs(7) };
        drop_stalled(stalled(), || {
            assert_eq!(take().map(|stalled| stalled.peer).as_deref(), Some("somebody"));
            assert!(take().is_none());
        });
        drop_stalled(stalled(), || {});
        assert!(take().is_none());
        let panicked = std::panic::catch_unwind(|| drop_stalled(stalled(), || panic!("a bug")));
        assert!(panicked.is_err() && take().is_none());
    }
}
