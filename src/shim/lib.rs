//! libmemspy.so, preloaded into a program to record its memory calls.
//!
//! # The rules of the hook path
//! No allocation from the host's heap, no lock, no panic, no std I/O, no thread, no libc function that may allocate or
//! be a cancellation point; errno untouched; the real function called exactly once, its result passed through. When
//! the shim fails, the program must not: degrade, count it, say it once.
//!
//! # The way of an event
//! `hooks` (entry, body) → `real` (the call itself) → `clock`, `glibc` (what it did underneath) → `stack`, `unwind` (who
//! called) → `record` → `thread`
//! (whose buffer) → `slot` (the line) → now and then `flush` → `file`. Everything else is for the start (`start`,
//! `config`, `elf`, `tail`), the end (`close_out`, `snapshot`) and the rare (`pool`, `scratch`, `memory`).
#![deny(clippy::undocumented_unsafe_blocks)]
// Test harness and fuzzer must not export the hooks, and much of the shim is used by nothing else.
#![cfg_attr(any(test, fuzzing), allow(dead_code, unused_imports))]

mod align;
mod alone;
mod arena;
mod bootstrap;
mod clock;
mod close_out;
mod config;
mod confine;
mod elf;
mod file;
mod flush;
mod glibc;
#[cfg(not(any(test, fuzzing)))]
mod hooks;
mod image;
mod leaks;
mod log;
mod memory;
mod modules;
mod owner;
#[cfg(not(any(test, fuzzing)))]
mod panicked;
mod path;
mod pool;
mod real;
mod record;
mod request;
mod reserve;
mod say;
mod scratch;
mod settings;
mod signal;
mod slot;
mod snapshot;
mod spawn;
mod stack;
mod stacks;
mod start;
mod sys;
mod tail;
mod thread;
mod unwind;
mod x86_64;

/// For `fuzz`: walks a stack by unwind data that `changes` have spoilt.
#[cfg(fuzzing)]
pub fn walk_spoilt(changes: &[u8]) {
    let _ = unwind::hostile::run(changes);
}

#[cfg(not(any(test, fuzzing)))]
#[global_allocator]
static OWN_MEMORY: memory::OwnMemory = memory::OwnMemory;

/// An early start. Hooks may run before it: other libraries' constructors, the loader.
#[cfg(not(any(test, fuzzing)))]
#[ctor::ctor(unsafe, priority = early)]
fn constructor() {
    start::start();
    if settings::leaks() {
        leaks::register_at_exit();
    }
}

/// Runs among the last destructors of a process that returns from main or calls exit. With a leak check the end comes
/// later, see `leaks::register_at_exit`.
#[cfg(not(any(test, fuzzing)))]
extern "C" fn destructor() {
    if !settings::leaks() {
        close_out::close_out("exit", leaks::Caller::Unknown);
    }
}

#[cfg(not(any(test, fuzzing)))]
#[used]
#[unsafe(link_section = ".fini_array")]
static DESTRUCTOR: extern "C" fn() = destructor;
