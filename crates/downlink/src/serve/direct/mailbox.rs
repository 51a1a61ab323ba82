//! What reaches a driver from other threads: woken streams, and new ones.
//!
//! One lock, held for a push or a swap; the driver is woken once however much comes. A stream is in
//! the list of the woken at most once, whatever its waker does, so the list is as long as there are
//! streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Wake, Waker};

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
    /// The driver's waker while it waits.
    driver: Option<Waker>,
    /// Nobody looks any more.
    closed: bool,
}

impl Mailbox {
    /// Takes what has come. If that is nothing, the waker is kept for when something does.
    pub(super) fn collect(&self, mail: &mut Mail, waker: &Waker) {
        mail.woken.clear();
        let mut here = self.mail.lock();
        std::mem::swap(&mut here.woken, &mut mail.woken);
        std::mem::swap(&mut here.arrived, &mut mail.arrived);
        let old = if mail.woken.is_empty() && mail.arrived.is_empty() {
            here.driver.replace(waker.clone())
        } else {
            here.driver.take()
        };
        drop(here);
        drop(old);
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

/// The waker of one stream.
#[derive(Debug)]
pub(super) struct StreamWaker {
    mailbox: Arc<Mailbox>,
    key: u32,
    /// Set from the wake-up until the stream is about to be polled. The swaps pair with each other
    /// (AcqRel): what was written before a wake-up that finds this set is seen by that poll.
    woken: AtomicBool,
}

impl StreamWaker {
    /// The waker of a stream that is polled first of all.
    pub(super) fn new(mailbox: Arc<Mailbox>, key: u32) -> Arc<Self> {
        Arc::new(Self { mailbox, key, woken: AtomicBool::new(true) })
    }

    /// Marks the stream as woken; false if it was.
    pub(super) fn mark(&self) -> bool {
        !self.woken.swap(true, Ordering::AcqRel)
    }

    /// Whether the stream is marked as woken.
    pub(super) fn is_marked(&self) -> bool {
        self.woken.load(Ordering::Relaxed)
    }

    /// Forgets the wake-up: the stream is about to be polled.
    pub(super) fn reset(&self) {
        self.woken.swap(false, Ordering::AcqRel);
    }
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.mark() {
            self.mailbox.change(|mail| mail.woken.push(self.key));
        }
    }
}
