//! The `downlink` program.

use std::process::ExitCode;

/// Many threads make many small allocations of one size. mimalloc is made for this.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    downlink_server::command::run(std::env::args_os())
}
