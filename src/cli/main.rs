//! The `memspy` program: parse, match, exit code.
fn main() {}
