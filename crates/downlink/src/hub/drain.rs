//! Draining: the hub refuses new subscriptions, and those that exist end at a frame boundary and
//! come back later.

use std::time::Duration;

use super::{Hub, handle::Shared};

impl<T: Send + Sync + 'static> Hub<T> {
    /// Ends every subscription once it has read what there is, each with a reconnection time of its
    /// own, and refuses new ones. Publishing goes on. Never waits for a reader.
    pub fn drain(&self) {
        // Set before the readers are asked to end, so a reader that opens later sees it.
        self.0.drain.send_replace(true);
        self.0.log.end_all(downlink_log::EndReason::Drained);
    }

    /// Whether the hub drains.
    pub fn is_draining(&self) -> bool {
        *self.0.drain.borrow()
    }

    /// Waits until the hub drains, for work that should stop then. Holds no handle to the hub.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<T> {
        let mut drain = self.0.drain.subscribe();
        async move {
            if drain.wait_for(|on| *on).await.is_err() {
                // The last handle is gone without a drain, so there will be none.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for a signal, then drains. Give the future to a server's graceful shutdown.
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
    /// Dropping the future before the signal came leaves the hub as it is.
    pub fn drain_on<F: Future>(&self, signal: F) -> impl Future<Output = ()> + use<T, F> {
        let hub = self.clone();
        async move {
            signal.await;
            hub.drain();
        }
    }
}

impl<T> Shared<T> {
    /// A reconnection time for a client whose stream the hub ends early.
    pub(super) fn reconnection_time(&self) -> Duration {
        let spread = &self.settings.drain_spread;
        let width = spread.end().saturating_sub(*spread.start());
        *spread.start() + width.mul_f64(fastrand::f64()).min(width)
    }
}
