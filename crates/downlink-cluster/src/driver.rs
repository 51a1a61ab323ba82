//! Connects a node with a journal: turns the node's requests into futures, and their results into
//! the node's input.
//!
//! The driver starts no task and reads no clock. One task owns it, and polls it whenever its waker
//! is called or the node's timeout has passed.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use downlink_log::Timestamp;

use crate::{
    entry::{EntryName, WriterId},
    fed_log::FedLog,
    journal::{Bounds, Journal, JournalError, Opened, RawEntry, Tail},
    node::{node::Node, request::Request},
    position::Position,
};

/// The maximum number of entries that one call of [`Driver::poll`] reads from the tail.
const ENTRIES_PER_POLL: usize = 256;

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, JournalError>> + Send>>;

/// A request without an answer.
enum Pending {
    Open(Answer<Opened>),
    Append(EntryName, Answer<Position>),
    Read(Answer<(Vec<RawEntry>, Bounds)>),
    Bounds(Answer<Bounds>),
}

/// The answer to a request.
enum Reply {
    Opened(Result<Opened, JournalError>),
    Appended(EntryName, Result<Position, JournalError>),
    Read(Result<(Vec<RawEntry>, Bounds), JournalError>),
    Bounds(Result<Bounds, JournalError>),
}

impl Pending {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Reply> {
        match self {
            Self::Open(answer) => answer.as_mut().poll(cx).map(Reply::Opened),
            Self::Append(name, answer) => {
                answer.as_mut().poll(cx).map(|result| Reply::Appended(*name, result))
            }
            Self::Read(answer) => answer.as_mut().poll(cx).map(Reply::Read),
            Self::Bounds(answer) => answer.as_mut().poll(cx).map(Reply::Bounds),
        }
    }
}

/// A node with its journal.
pub struct Driver<J: Journal, L> {
    node: Node<L>,
    journal: J,
    tail: Option<J::Tail>,
    /// The requests that the engine has not answered. At most one of them opens the journal, one
    /// reads entries, and one asks for the bounds. The others append entries with events, or
    /// heartbeats. The outbox limits the number of entries with events.
    pending: Vec<Pending>,
    /// Returns a random number that a clone of the process would not return.
    random: Box<dyn FnMut() -> u64 + Send>,
}

impl<J: Journal, L: FedLog> Driver<J, L> {
    /// Connects `node` with `journal`.
    pub fn new(node: Node<L>, journal: J, random: impl FnMut() -> u64 + Send + 'static) -> Self {
        let random = Box::new(random);
        Self { node, journal, tail: None, pending: Vec::new(), random }
    }

    /// The node.
    pub fn node(&self) -> &Node<L> {
        &self.node
    }

    /// The node, for publishers and readers. The caller polls the driver afterwards.
    pub fn node_mut(&mut self) -> &mut Node<L> {
        &mut self.node
    }

    /// Ends the driver and returns its node.
    pub fn into_node(self) -> Node<L> {
        self.node
    }

    /// Works until there is nothing to do now. Returns a time: the caller has to call this method
    /// again at that time, even if the waker is not called.
    pub fn poll(&mut self, now: Timestamp, cx: &mut Context<'_>) -> Timestamp {
        if self.node.timeout() <= now {
            self.node.handle_timeout(now);
        }
        for _ in 0..ENTRIES_PER_POLL {
            self.start_requests();
            let mut is_idle = self.poll_pending(now, cx);
            is_idle &= self.poll_tail(now, cx);
            if is_idle {
                return self.node.timeout();
            }
        }
        cx.waker().wake_by_ref();
        now
    }

    fn start_requests(&mut self) {
        while let Some(request) = self.node.poll_request() {
            let pending = match request {
                Request::Writer => {
                    let writer = WriterId((self.random)());
                    self.node.handle_writer(writer);
                    continue;
                }
                Request::Tail { from } => {
                    self.tail = Some(self.journal.tail(from));
                    continue;
                }
                Request::Open => Pending::Open(Box::pin(self.journal.open())),
                Request::Append { name, bytes } => {
                    Pending::Append(name, Box::pin(self.journal.append(name, bytes, None)))
                }
                Request::Read { range } => Pending::Read(Box::pin(self.journal.read(range))),
                Request::Bounds => Pending::Bounds(Box::pin(self.journal.bounds())),
            };
            self.pending.push(pending);
        }
    }

    /// Returns true if no request has got its answer.
    fn poll_pending(&mut self, now: Timestamp, cx: &mut Context<'_>) -> bool {
        let mut replies = Vec::new();
        self.pending.retain_mut(|pending| match pending.poll(cx) {
            Poll::Ready(reply) => {
                replies.push(reply);
                false
            }
            Poll::Pending => true,
        });
        let is_idle = replies.is_empty();
        for reply in replies {
            match reply {
                Reply::Opened(result) => self.node.handle_opened(now, result),
                Reply::Appended(name, result) => self.node.handle_appended(now, name, result),
                Reply::Read(result) => self.node.handle_read(now, result),
                Reply::Bounds(result) => self.node.handle_bounds(now, result),
            }
        }
        is_idle
    }

    /// Returns true if the tail has no entry now.
    fn poll_tail(&mut self, now: Timestamp, cx: &mut Context<'_>) -> bool {
        // A request of the node may replace the tail. The old tail must not be read after that.
        self.start_requests();
        let Some(tail) = &mut self.tail else { return true };
        match tail.poll_next(cx) {
            Poll::Pending => true,
            Poll::Ready(item) => {
                if item.is_err() {
                    self.tail = None;
                }
                self.node.handle_tail(now, item);
                false
            }
        }
    }
}

impl<J: Journal, L: fmt::Debug> fmt::Debug for Driver<J, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("node", &self.node).finish_non_exhaustive()
    }
}
