//! Reports to the supervisor: systemd with `Type=notify` or `Type=notify-reload`.

use sd_notify::NotifyState;

/// Reports the server's state to the supervisor (`Type=notify` and `Type=notify-reload` in systemd).
pub(super) fn tell_supervisor(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot report the server's state to the supervisor");
    }
}

/// Reports to the supervisor that a reload begins. The report has the time of the monotonic clock,
/// from which systemd knows that the report is the answer to its signal.
pub(super) fn tell_supervisor_of_reload() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell_supervisor(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "cannot read the monotonic clock"),
    }
}
