//! The runtime of the short commands.

/// Runs a short command. One thread is enough for it.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // An abandoned read of stdin must not delay the exit.
    runtime.shutdown_background();
    done
}
