//! A few connections for many readers: first come, first served.

use std::{fmt, ops::Deref};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;

/// Connections and the queue for them.
pub(super) struct Turns {
    /// Held for moments; no connection is used under it.
    queue: Mutex<Queue>,
    moved: Condvar,
}

/// Invariant: `served <= taken`; the difference is how many wait or are about to.
struct Queue {
    idle: Vec<Connection>,
    /// Numbers taken so far, and the one whose turn it is.
    taken: u64,
    served: u64,
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

impl Turns {
    pub(super) fn new(connections: Vec<Connection>) -> Self {
        let queue = Queue { idle: connections, taken: 0, served: 0 };
        Self { queue: Mutex::new(queue), moved: Condvar::new() }
    }

    /// Waits for a turn.
    pub(super) fn wait(&self) -> Turn<'_> {
        let mut queue = self.queue.lock();
        let number = queue.taken;
        queue.taken += 1;
        loop {
            if queue.served == number
                && let Some(connection) = queue.idle.pop()
            {
                queue.served += 1;
                self.moved.notify_all();
                return Turn { turns: self, connection: Some(connection) };
            }
            self.moved.wait(&mut queue);
        }
    }
}

/// A connection for as long as it is held.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    /// Some until the drop.
    connection: Option<Connection>,
}

impl Deref for Turn<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("given back only by the drop")
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.queue.lock().idle.extend(self.connection.take());
        self.turns.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    #[test]
    fn turns_come_in_the_order_of_asking() {
        let turns = Arc::new(Turns::new(vec![Connection::open_in_memory().unwrap()]));
        let order = Arc::new(Mutex::new(Vec::new()));
        let held = turns.wait();
        let mut threads = Vec::new();
        for number in 1..=20_u64 {
            let (turns_, order) = (Arc::clone(&turns), Arc::clone(&order));
            threads.push(thread::spawn(move || {
                let turn = turns_.wait();
                order.lock().push(number);
                drop(turn);
            }));
            while turns.queue.lock().taken <= number {
                thread::yield_now();
            }
        }
        drop(held);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*order.lock(), (1..=20).collect::<Vec<_>>());
    }
}
