//! The example `targeted`.

fn main() {}
