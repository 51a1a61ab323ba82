//! Wake-ups that linger: the time, and the timer.
//!
//! What has to wait and until when is the log's to decide. Here is one task on the publisher's runtime
//! that lives while something waits. If it is dropped, with its runtime, it wakes what waited.

#[cfg(feature = "store")]
use std::sync::OnceLock;
use std::{sync::Arc, time::Duration};

#[cfg(feature = "store")]
use downlink_log::WakeCommitted;

use downlink_log::{Gathered, Timer, Wakes};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::record::Record;

/// The longest that a hub may linger: beyond, an event is no longer live for who watches.
pub const LINGER_MAX: Duration = Duration::from_secs(1);

/// How the readers of a hub are woken that lingers.
pub(super) struct Linger<T>(Arc<Shared<T>>);

struct Shared<T> {
    gathered: Gathered<Record<T>>,
    began: Instant,
    /// Where the timer runs for the thread of the store: what made the hub, or first published to it.
    #[cfg(feature = "store")]
    runtime: OnceLock<Handle>,
    /// The timer is set too late.
    hurry: Notify,
}

/// The timer. Wakes what it still has when it is dropped before its end.
struct Running<T: Send + Sync + 'static> {
    shared: Arc<Shared<T>>,
    ended: bool,
}

impl<T: Send + Sync + 'static> Linger<T> {
    /// `None` if there is nothing to wait for.
    pub(super) fn of(linger: Duration) -> Option<Self> {
        if linger.is_zero() {
            return None;
        }
        Some(Self(Arc::new(Shared {
            gathered: Gathered::new(linger),
            began: Instant::now(),
            #[cfg(feature = "store")]
            runtime: Handle::try_current().map_or_else(|_| OnceLock::new(), OnceLock::from),
            hurry: Notify::new(),
        })))
    }

    /// Wakes readers now, or at the end of their topics' linger.
    pub(super) fn wake(&self, wakes: Wakes<Record<T>>) {
        let Ok(runtime) = Handle::try_current() else { return wakes.wake() };
        #[cfg(feature = "store")]
        self.0.runtime.get_or_init(|| runtime.clone());
        self.wake_on(&runtime, wakes);
    }

    /// The same for the thread of a store, which has no runtime.
    #[cfg(feature = "store")]
    pub(super) fn into_wake_committed(self) -> Box<WakeCommitted<Record<T>>> {
        Box::new(move |wakes| {
            let Some(runtime) = self.0.runtime.get() else { return wakes.wake() };
            let _in_its_time = runtime.enter();
            self.wake_on(runtime, wakes);
        })
    }

    fn wake_on(&self, runtime: &Handle, wakes: Wakes<Record<T>>) {
        let (timer, due) = self.0.gathered.add(self.0.now(), wakes);
        match timer {
            Timer::Keep => {}
            Timer::Hurry => self.0.hurry.notify_one(),
            Timer::Start => {
                let timer = Running { shared: Arc::clone(&self.0), ended: false };
                runtime.spawn(timer.run());
            }
        }
        due.wake();
    }
}

impl<T> Clone for Linger<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Shared<T> {
    fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.began)
    }
}

impl<T: Send + Sync + 'static> Running<T> {
    async fn run(mut self) {
        let shared = &self.shared;
        while let Some(due) = shared.gathered.wake_due(shared.now()) {
            tokio::select! {
                () = sleep_until(shared.began + due) => {}
                () = shared.hurry.notified() => {}
            }
        }
        self.ended = true;
    }
}

impl<T: Send + Sync + 'static> Drop for Running<T> {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.gathered.wake_all(self.shared.now());
        }
    }
}
