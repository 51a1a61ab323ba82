//! The runtime of the short commands.

/// Runs a short command. It needs only one thread.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // A read of stdin may still be blocked. It must not delay the exit.
    runtime.shutdown_background();
    done
}
