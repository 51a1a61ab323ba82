//! The kernel's events for the sockets of one driver.
//!
//! A driver is a task that serves many event streams. Each driver has its own epoll set (a kqueue
//! on systems other than Linux) with its sockets. The runtime watches only the one descriptor of
//! this set, so no socket takes memory in the runtime. Events are edge-triggered, which means that
//! the kernel reports each change once.

use std::io;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use tokio::io::unix::AsyncFd;

use super::socket::Socket;

/// The maximum number of events that one call returns. The buffer for the events takes 12 KiB. A
/// larger buffer would save no measurable time. With a smaller buffer, the driver would need more
/// system calls when all peers leave at once.
const EVENTS_MAX: usize = 1_024;

/// The maximum number of times in a row that the driver asks the kernel for events. After that, it
/// serves its streams, even if the kernel has more events. So a flood of events cannot keep the
/// driver from its streams.
const ROUNDS_MAX: usize = 4;

/// The kernel's events for the sockets of one driver.
#[derive(Debug)]
pub(super) struct Readiness {
    poll: AsyncFd<mio::Poll>,
    events: Events,
}

impl Readiness {
    /// # Errors
    ///
    /// The error of the operating system, such as a lack of file descriptors.
    ///
    /// # Panics
    ///
    /// If it is not called in a tokio runtime with IO enabled.
    #[expect(
        deprecated,
        reason = "its successor is unsafe: the descriptor must stay open, and mio's poll keeps it open"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let poll = AsyncFd::with_interest(mio::Poll::new()?, tokio::io::Interest::READABLE)?;
        Ok(Self { poll, events: Events::with_capacity(EVENTS_MAX) })
    }

    /// Begins to watch a socket, to learn when the peer closes it.
    pub(super) fn watch(&self, socket: &Socket, key: u32) -> io::Result<()> {
        let fd = socket.0.as_raw_fd();
        let token = Token(key as usize);
        self.poll.get_ref().registry().register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    /// Begins to watch a socket for room to write if `room` is true, and stops if `room` is false.
    /// In both cases, it still watches for the end of the connection. While a socket is watched for
    /// room, each acknowledgement by the peer causes an event. So the caller watches for room only
    /// while the socket is full.
    pub(super) fn watch_for_room(&self, socket: &Socket, key: u32, room: bool) -> io::Result<()> {
        let fd = socket.0.as_raw_fd();
        let interest = Interest::READABLE;
        let interest = if room { interest | Interest::WRITABLE } else { interest };
        let token = Token(key as usize);
        self.poll.get_ref().registry().reregister(&mut SourceFd(&fd), token, interest)
    }

    /// Stops watching a socket that stays open. The kernel itself stops watching a closed socket.
    pub(super) fn forget(&self, socket: &Socket) -> io::Result<()> {
        let fd = socket.0.as_raw_fd();
        self.poll.get_ref().registry().deregister(&mut SourceFd(&fd))
    }

    /// Takes the events that have happened, and lets the next event wake the task. For each socket
    /// that has changed, calls `take` with the key (the number) of its stream. The second argument
    /// is true if the peer is gone: it will send nothing more, or the connection has failed.
    pub(super) fn take(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(u32, bool),
    ) -> io::Result<()> {
        let Self { poll, events } = self;
        for _ in 0..ROUNDS_MAX {
            let Poll::Ready(ready) = poll.poll_read_ready_mut(cx) else { return Ok(()) };
            let mut guard = ready?;
            guard.get_inner_mut().poll(events, Some(Duration::ZERO))?;
            let mut taken = 0;
            for event in &*events {
                let is_gone = event.is_read_closed() || event.is_write_closed() || event.is_error();
                let key = u32::try_from(event.token().0).unwrap_or(u32::MAX);
                take(key, is_gone);
                taken += 1;
            }
            if taken < EVENTS_MAX {
                // The kernel's list is empty, so the next change causes a new event.
                guard.clear_ready();
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }
}
