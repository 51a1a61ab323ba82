//! Draining is the graceful end of a hub. The hub refuses new subscriptions. Existing subscriptions
//! end after a complete frame (encoded event), and their clients reconnect later.

use std::time::Duration;

use super::{Hub, handle::Shared};

impl<T: Send + Sync + 'static> Hub<T> {
    /// Ends every subscription once the subscription has read all events, and refuses new
    /// subscriptions. A subscription that is waiting for events from the store ends at once,
    /// without these events. Its client can resume and get them later. Each client gets its own
    /// random reconnection time. Publishing still works. The call returns at once; the
    /// subscriptions end later.
    pub fn drain(&self) {
        // `end_all` ends only the readers that exist now. (A reader is the position of a
        // subscription in the log.) A reader that opens later must see the flag `drain`:
        // `Subscribe::open` checks the flag after it has opened a reader, and returns an error if
        // the flag is set. So the flag must be set first. Otherwise, a reader that opens between
        // the two calls would stay open.
        self.0.drain.send_replace(true);
        self.0.log.end_all(downlink_log::EndReason::Drained);
    }

    /// Whether the hub is draining.
    pub fn is_draining(&self) -> bool {
        *self.0.drain.borrow()
    }

    /// Waits until a drain of the hub begins. Use this to stop other work at the same time. The
    /// future does not hold a handle to the hub.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<T> {
        let mut drain = self.0.drain.subscribe();
        async move {
            if drain.wait_for(|on| *on).await.is_err() {
                // The last handle was dropped without a drain, so the hub will never drain.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for a signal, then drains the hub. Pass the future to the graceful shutdown of a
    /// server.
    ///
    /// ```no_run
    /// # async fn example(listener: tokio::net::TcpListener, app: axum::Router) -> std::io::Result<()> {
    /// use downlink::hub::Hub;
    ///
    /// let hub = Hub::<String>::text();
    /// let signal = tokio::signal::ctrl_c();
    /// axum::serve(listener, app).with_graceful_shutdown(hub.drain_on(signal)).await
    /// # }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before the signal comes, the hub does not drain.
    pub fn drain_on<F: Future>(&self, signal: F) -> impl Future<Output = ()> + use<T, F> {
        let hub = self.clone();
        async move {
            signal.await;
            hub.drain();
        }
    }
}

impl<T> Shared<T> {
    /// A random reconnection time for a client whose stream the hub ends early.
    pub(super) fn reconnection_time(&self) -> Duration {
        let spread = &self.settings.drain_spread;
        let width = spread.end().saturating_sub(*spread.start());
        *spread.start() + width.mul_f64(fastrand::f64()).min(width)
    }
}
