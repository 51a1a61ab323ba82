//! The runtime of `downlink publish` and `downlink subscribe`.

/// Runs a command on one thread.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // Another thread may still wait for stdin. The program does not wait for that thread.
    runtime.shutdown_background();
    done
}
