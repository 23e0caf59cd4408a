//! libmemspy.so, preloaded into a program to record its memory calls.
//!
//! # The rules of the hook path
//! No allocation from the host's heap, no lock, no panic, no std I/O, no thread, no libc function that may allocate or
//! be a cancellation point; errno untouched; the real function called exactly once, its result passed through. When
//! the shim fails, the program must not: degrade, count it, say it once.
#![deny(clippy::undocumented_unsafe_blocks)]

mod memory;
#[cfg_attr(not(test), allow(dead_code))] // until the hooks call it
mod modules;
#[cfg_attr(not(test), allow(dead_code))] // until the hooks call it
mod stacks;
mod sys;
#[cfg_attr(not(test), allow(dead_code))] // until the hooks call it
mod unwind;

#[cfg(not(test))]
#[global_allocator]
static OWN_MEMORY: memory::OwnMemory = memory::OwnMemory;
