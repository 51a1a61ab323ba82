//! What reaches a driver from other threads: woken streams, and new ones.
//!
//! One lock, held for a push, or for a swap and a walk over what was woken; the driver is woken once
//! however much comes. A stream is in the list of the woken at most once, whatever its waker does, so the
//! list is never longer than there were streams at once. The name of a stream that is over may come after
//! it, and name another one by then: being polled for nothing does no harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use downlink_log::WakeMany;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::stream::outlive;
use super::visit::Arrival;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    /// Streams that were sent here and are not over. The last to end (AcqRel) notifies after that,
    /// and who waits has registered before it looks (Acquire).
    streams: AtomicUsize,
    ended: Notify,
}

/// What has come since the driver last looked.
#[derive(Debug, Default)]
pub(super) struct Mail {
    pub(super) woken: Vec<u32>,
    pub(super) arrived: Vec<Arrival>,
    /// Whether each stream is among the woken; as long as the highest name that ever was woken.
    is_woken: Vec<bool>,
    /// The driver's waker while it waits.
    driver: Option<Waker>,
    /// Nobody looks any more.
    closed: bool,
}

impl Mailbox {
    /// Takes what has come. If that is nothing, the waker is kept for when something does: false.
    pub(super) fn collect(&self, mail: &mut Mail, waker: &Waker) -> bool {
        mail.woken.clear();
        let mut here = self.mail.lock();
        std::mem::swap(&mut here.woken, &mut mail.woken);
        mail.woken.iter().for_each(|key| here.is_woken[*key as usize] = false);
        std::mem::swap(&mut here.arrived, &mut mail.arrived);
        let any = !mail.woken.is_empty() || !mail.arrived.is_empty();
        let old = if any { here.driver.take() } else { here.driver.replace(waker.clone()) };
        drop(here);
        drop(old);
        any
    }

    /// Sends the driver a stream; one that comes after the driver's end is closed.
    pub(super) fn push(&self, arrival: Arrival) {
        self.streams.fetch_add(1, Ordering::AcqRel);
        let mut arrival = Some(arrival);
        self.change(|mail| {
            if !mail.closed {
                mail.arrived.extend(arrival.take());
            }
        });
        if let Some(late) = arrival {
            outlive(|| drop(late));
            self.note_end();
        }
    }

    /// The driver is over: closes the streams that it has not taken, and all that still come.
    pub(super) fn close(&self) {
        let mut left = Vec::new();
        self.change(|mail| {
            mail.closed = true;
            left = std::mem::take(&mut mail.arrived);
        });
        for arrival in left {
            outlive(|| drop(arrival));
            self.note_end();
        }
    }

    /// Streams that are not over.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Acquire)
    }

    /// Notes that a stream is over.
    pub(super) fn note_end(&self) {
        if self.streams.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ended.notify_waiters();
        }
    }

    /// Completes when there is no stream.
    pub(super) async fn all_ended(&self) {
        loop {
            // Waits from here on, whenever it is polled.
            let ended = self.ended.notified();
            if self.streams() == 0 {
                return;
            }
            ended.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Mail)) {
        let driver = {
            let mut mail = self.mail.lock();
            change(&mut mail);
            mail.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// Wakes streams by their names, which are their keys, under one lock for all of them.
impl WakeMany for Mailbox {
    fn wake_many(&self, keys: &[u32]) {
        self.change(|mail| keys.iter().for_each(|key| mail.wake(*key)));
    }
}

impl Mail {
    fn wake(&mut self, key: u32) {
        let at = key as usize;
        if at >= self.is_woken.len() {
            self.is_woken.resize(at + 1, false);
        }
        if !std::mem::replace(&mut self.is_woken[at], true) {
            self.woken.push(key);
        }
    }
}

/// The waker of one stream. What was written before a wake-up is seen by the poll that follows it: both
/// take the mailbox's lock in between.
#[derive(Debug)]
pub(super) struct StreamWaker {
    mailbox: Arc<Mailbox>,
    key: u32,
}

impl StreamWaker {
    pub(super) fn of(key: u32, mailbox: Arc<Mailbox>) -> Waker {
        Waker::from(Arc::new(Self { mailbox, key }))
    }
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mailbox.change(|mail| mail.wake(self.key));
    }
}
