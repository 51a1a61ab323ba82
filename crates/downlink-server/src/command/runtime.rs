//! The runtime of the commands that end by themselves.

/// The runtime of the short commands: one thread is enough.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // An abandoned read of stdin must not delay the exit.
    runtime.shutdown_background();
    done
}
