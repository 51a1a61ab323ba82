//! The example `chat`.

fn main() {}
