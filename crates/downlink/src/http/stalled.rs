//! A body that a server drops because its peer has read nothing for too long.
//!
//! Only the server knows that, and only the source of the body knows whom it served. Any middleware
//! may be between the two, so the news travel through a thread-local, which is set for the length of
//! the drop.

use std::cell::RefCell;
use std::time::Duration;

/// A response whose peer has stalled.
#[derive(Debug)]
pub(crate) struct Stalled {
    /// The address of the peer.
    pub(crate) peer: String,
    /// How long ago the response began.
    pub(crate) age: Duration,
}

thread_local! {
    static STALLED: RefCell<Option<Stalled>> = const { RefCell::new(None) };
}

/// Drops a body whose peer has stalled.
pub(crate) fn drop_stalled(stalled: Stalled, drop: impl FnOnce()) {
    /// Forgets the news also if the drop panics.
    struct Over;

    impl Drop for Over {
        fn drop(&mut self) {
            STALLED.take();
        }
    }

    STALLED.set(Some(stalled));
    let _over = Over;
    drop();
}

/// The news for the body that is being dropped, once.
pub(crate) fn take() -> Option<Stalled> {
    // A body may be dropped while its thread ends.
    STALLED.try_with(RefCell::take).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_news_are_there_once_and_for_the_length_of_the_drop() {
        let stalled = || Stalled { peer: "somebody".to_owned(), age: Duration::from_secs(7) };
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
