//! Builds the shim that the program embeds.
fn main() {}
