//! The `downlink` program.

fn main() {}
