//! The signals by which a person or a supervisor asks a program to stop.
//!
//! [`stop_signal`] listens from the moment it is called, so that a program does not miss a signal
//! while it starts. The effect of a second signal is up to the program.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
#[cfg(windows)]
use tokio::signal::windows::{CtrlC as Signal, ctrl_c};

/// Completes at the first Ctrl-C (SIGINT) or, on Unix, the first SIGTERM, which is how supervisors
/// ask a process to end.
///
/// The function itself begins to listen, even if the future is polled later. From then on, these
/// signals no longer end the process, even after the future is complete or dropped. If a second
/// signal should end the program at once, call this function again after the first signal, and exit
/// when the new future completes.
///
/// # Errors
///
/// The error of the operating system, if it cannot install signal handlers.
///
/// # Panics
///
/// If it is not called in a tokio runtime with IO enabled.
///
/// # Examples
///
/// ```no_run
/// # #[cfg(feature = "axum")]
/// # async fn example() -> std::io::Result<()> {
/// use downlink::serve::stop_signal;
///
/// let stopped = stop_signal()?;
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// downlink::serve(listener, axum::Router::new()).with_graceful_shutdown(stopped).await
/// # }
/// ```
pub fn stop_signal() -> io::Result<StopSignal> {
    Ok(StopSignal {
        #[cfg(unix)]
        interrupt: signal(SignalKind::interrupt())?,
        #[cfg(unix)]
        terminate: signal(SignalKind::terminate())?,
        #[cfg(windows)]
        interrupt: ctrl_c()?,
    })
}

/// The future that [`stop_signal`] returns.
///
/// # Cancel safety
///
/// Dropping the future stops the wait for a signal, and has no other effect.
#[derive(Debug)]
#[must_use = "a stop signal has no effect until it is passed to `with_graceful_shutdown`"]
pub struct StopSignal {
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
}

impl Future for StopSignal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let interrupted = self.interrupt.poll_recv(cx).is_ready();
        #[cfg(unix)]
        let interrupted = self.terminate.poll_recv(cx).is_ready() || interrupted;
        if interrupted { Poll::Ready(()) } else { Poll::Pending }
    }
}
