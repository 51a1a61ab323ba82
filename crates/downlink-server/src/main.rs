//! The `downlink` program.

use std::process::ExitCode;

/// Many small allocations of one size, from many threads: what it is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    downlink_server::command::run(std::env::args_os())
}
