//! What the kernel says of the sockets of one driver.
//!
//! They are in a poll of their own, which is in the runtime's as one descriptor: that is what spares
//! each of them its place in the runtime. All is edge-triggered: said once, when it becomes so.

use std::io;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use tokio::io::unix::AsyncFd;

use super::socket::Socket;

/// What is taken from the kernel at a time: 12 KiB of buffer. Twice as many save no time that could
/// be measured, half as many cost a system call more when everybody leaves at once.
const EVENTS_MAX: usize = 1_024;

/// How often that is done before streams have their turn again.
const ROUNDS_MAX: usize = 4;

/// Something became so at a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Happening {
    pub(super) key: u32,
    /// The peer will send nothing more, or the connection has failed.
    pub(super) gone: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Readiness {
    poll: AsyncFd<mio::Poll>,
    events: Events,
}

impl Readiness {
    /// # Errors
    ///
    /// The system's, such as for want of descriptors.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime that has IO enabled.
    #[expect(
        deprecated,
        reason = "its successor is unsafe: the descriptor must stay open, which mio's poll sees to"
    )]
    pub(super) fn new() -> io::Result<Self> {
        let poll = AsyncFd::with_interest(mio::Poll::new()?, tokio::io::Interest::READABLE)?;
        Ok(Self { poll, events: Events::with_capacity(EVENTS_MAX) })
    }

    /// Watches for the peer's end and, while something is blocked, for room.
    ///
    /// Asking for room all the time would make an event of each acknowledgement.
    pub(super) fn watch(&self, socket: &Socket, key: u32) -> io::Result<()> {
        let fd = socket.as_raw_fd();
        let token = Token(key as usize);
        self.poll.get_ref().registry().register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    /// Begins or ends watching for room.
    pub(super) fn watch_for_room(&self, socket: &Socket, key: u32, room: bool) -> io::Result<()> {
        let fd = socket.as_raw_fd();
        let interest = Interest::READABLE;
        let interest = if room { interest | Interest::WRITABLE } else { interest };
        let token = Token(key as usize);
        self.poll.get_ref().registry().reregister(&mut SourceFd(&fd), token, interest)
    }

    /// Ends watching a socket that goes on elsewhere. One that is closed is forgotten by itself.
    pub(super) fn forget(&self, socket: &Socket) -> io::Result<()> {
        let fd = socket.as_raw_fd();
        self.poll.get_ref().registry().deregister(&mut SourceFd(&fd))
    }

    /// Takes what news there is, and has the task woken by the next.
    pub(super) fn take(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(Happening),
    ) -> io::Result<()> {
        let Self { poll, events } = self;
        for _ in 0..ROUNDS_MAX {
            let Poll::Ready(ready) = poll.poll_read_ready_mut(cx) else { return Ok(()) };
            let mut guard = ready?;
            guard.get_inner_mut().poll(events, Some(Duration::ZERO))?;
            let mut taken = 0;
            for event in &*events {
                let gone = event.is_read_closed() || event.is_write_closed() || event.is_error();
                let key = u32::try_from(event.token().0).unwrap_or(u32::MAX);
                take(Happening { key, gone });
                taken += 1;
            }
            if taken < EVENTS_MAX {
                // The whole of the kernel's list was taken: the next change makes a new edge.
                guard.clear_ready();
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }
}
