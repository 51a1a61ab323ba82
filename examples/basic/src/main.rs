//! The example `basic`.

fn main() {}
