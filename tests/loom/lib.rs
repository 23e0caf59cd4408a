//! Whose a buffer is (`src/shim/owner.rs`, the file that the shim is built from), under loom: each test is run through
//! every interleaving of its threads that the memory model allows. `scripts/torture loom` runs them, and holds them
//! against ways to break the protocol.
//!
//! What a buffer holds is a cell: loom refuses two threads that touch it at once, or without the one having seen what
//! the other did. A thread that owns a buffer writes there as a thread makes its lines, without any lock.

#[cfg(not(loom))]
compile_error!("RUSTFLAGS=\"--cfg loom\" is missing; scripts/torture loom sets it");

#[cfg(all(test, loom))]
#[path = "../../src/shim/owner.rs"]
mod owner;

#[cfg(all(test, loom))]
mod tests;
