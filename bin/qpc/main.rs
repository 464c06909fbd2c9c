//! The `qpc` command line.
fn main() {}
