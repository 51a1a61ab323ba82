//! The mailbox of a driver, the task that serves many event streams. Through the mailbox, other
//! threads wake streams by their keys (numbers), and send new streams. Connections distribute their
//! streams among the mailboxes of all drivers.
//!
//! A mailbox has one lock. A sender holds it to add items, and the driver holds it to take all
//! items at once. The first item that arrives wakes the driver. Later items do not wake it again
//! until it has taken all items. The list of woken streams contains each stream at most once. So
//! the list is never longer than the largest number of open streams. A key may arrive after its
//! stream has ended, and may then already belong to another stream. The driver polls this other
//! stream without need, which does no harm.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Wake, Waker};

use downlink_log::WakeMany;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::handed_over::Arrival;

/// The woken and the new streams of one driver.
#[derive(Default)]
pub(super) struct Mailbox {
    mail: Mutex<MailboxItems>,
    /// The number of streams that were sent to this mailbox and have not ended.
    streams: watch::Sender<usize>,
}

/// The items that arrived since the driver last collected them.
#[derive(Default)]
pub(super) struct MailboxItems {
    pub(super) woken: Vec<u32>,
    pub(super) arrived: Vec<Arrival>,
    /// For each key, whether it is in `woken`. The list reaches up to the highest key that was ever
    /// woken.
    is_woken: Vec<bool>,
    /// The driver's waker, while the driver waits.
    driver: Option<Waker>,
    /// Whether the driver has ended.
    closed: bool,
}

impl Mailbox {
    /// Moves all items to `mail`, and returns whether there were any. If there were none, stores
    /// `waker`, so that the next item wakes the driver.
    pub(super) fn collect(&self, mail: &mut MailboxItems, waker: &Waker) -> bool {
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

    /// Sends a stream to the driver. If the driver has ended, the stream is closed.
    pub(super) fn push(&self, arrival: Arrival) {
        self.streams.send_modify(|streams| *streams += 1);
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

    /// Called when the driver ends. Closes the streams that the driver has not taken, and all
    /// streams that are sent later.
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

    /// The number of streams that have not ended.
    pub(super) fn streams(&self) -> usize {
        *self.streams.borrow()
    }

    /// Records that a stream has ended.
    pub(super) fn note_end(&self) {
        self.streams.send_modify(|streams| *streams -= 1);
    }

    fn change(&self, change: impl FnOnce(&mut MailboxItems)) {
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

/// Wakes streams by their keys. The lock is taken once for all keys.
impl WakeMany for Mailbox {
    fn wake_many(&self, keys: &[u32]) {
        self.change(|mail| keys.iter().for_each(|key| mail.wake(*key)));
    }
}

impl MailboxItems {
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

/// The waker of one stream. The poll that follows a wake-up sees everything that the waking thread
/// has written before, because both threads take the mailbox's lock in between.
pub(super) struct StreamWaker {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) key: u32,
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.mailbox.change(|mail| mail.wake(self.key));
    }
}

/// The mailboxes of all drivers of a server. Connections hand over their streams through this type.
pub(in crate::serve) struct DirectStreams(pub(super) Box<[Arc<Mailbox>]>);

impl DirectStreams {
    /// Whether there are drivers that take streams.
    pub(in crate::serve) fn are_taken(&self) -> bool {
        !self.0.is_empty()
    }

    /// Sends a stream to the driver with the fewest streams. Closes the stream if there are no
    /// drivers.
    pub(in crate::serve) fn push(&self, arrival: Arrival) {
        if let Some(mailbox) = self.0.iter().min_by_key(|mailbox| mailbox.streams()) {
            mailbox.push(arrival);
        }
    }

    /// The number of streams that have not ended.
    pub(in crate::serve) fn len(&self) -> usize {
        self.0.iter().map(|mailbox| mailbox.streams()).sum()
    }

    /// Completes when no stream is left.
    pub(in crate::serve) async fn all_ended(&self) {
        for mailbox in &self.0 {
            // The sender is in the mailbox, so the wait cannot fail.
            let _ = mailbox.streams.subscribe().wait_for(|streams| *streams == 0).await;
        }
    }
}

/// Drops a value that belongs to the app, and catches a panic of its code, so that other streams
/// continue.
pub(super) fn outlive(dropping: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(dropping)).is_err() {
        tracing::error!("a response body panicked when it was dropped");
    }
}
