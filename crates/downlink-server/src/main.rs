//! The `downlink` program.

use std::process::ExitCode;

/// The server's threads make many small allocations of the same size. mimalloc is a fast allocator
/// for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    downlink_server::command::run(std::env::args_os())
}
