//! End-to-end tests: real programs under the real shim, judged by independent witnesses.
//!
//! One file for each part of the product. A test is named after the fact that it states, and its program lies in
//! `tests/programs`.
#![deny(unsafe_code)]

mod support;

/// `memspy check`: verdict, exit codes, suppressions, baselines, budgets, report formats.
mod check;
/// The command line: help, usage errors, completions, manual pages.
mod cli;
/// `memspy snapshot`, `memspy mark`: a running service is asked; windows between marks, growth.
mod demand;
/// `memspy diff`: two versions of a program, site by site.
mod diff;
/// `memspy doctor`: what can be recorded, and why not.
mod doctor;
/// `memspy events` and `memspy recover`: order, filters, programs that were killed.
mod events;
/// `memspy explain`: each kernel call with its reason.
mod explain;
/// `memspy check -- CMD`: real programs through the gate, and the exit codes.
mod gate;
/// `docs/memory.md`: its commands run and print what stands in it.
mod guide;
/// Hostile names, through every report.
mod hostile;
/// Leak mode: what a check finds, held against Valgrind, and that it leaves the host alone.
mod leaks;
/// `memspy sites --kind mappings`: what programs map themselves.
mod mapping_sites;
/// `memspy maps`, `where`, `timeline`: the address space against /proc and strace.
mod maps;
/// Names from the packed symbol tables of stripped programs.
mod mini_names;
/// Names in reports: files, builds, debug information near and far, and what can be wrong with them.
mod names;
/// `memspy run`: launching, environment, signals, exit status, place of the logs.
mod run;
/// `memspy sites`, `flamegraph` and `export`: figures held against other readers of the same files.
mod sites;
/// Call stacks: held against gdb, checked hit by hit, on stacks of every kind.
mod stacks;
/// `memspy summary`: the story, its JSON, bad input; the schema of the log.
mod summary;
/// What libmemspy.so exports and needs; that nobody else defines a hook.
mod symbols;

/// What a test program says it did, held against its log.
mod oracle;
/// What a process that died left behind, read from FORMAT.md alone.
mod remains;

/// Ends of every kind, sudden ones included.
mod exit;
/// The malloc family.
mod heap;
/// Mapping calls, and the kernel calls behind malloc.
mod mapping;
/// Children by fork, vfork, spawn and exec.
mod process;
/// Handlers, jumps, cancellation.
mod signal;
/// Other preloads, sanitizers, sandboxes, odd launchers.
mod startup;
/// Death and interruption at each instruction of a hook.
#[allow(unsafe_code)]
mod step;
/// Full disks, missing directories, limits, closed descriptors.
mod storage;
/// Many, short, small and late threads.
mod thread;
/// `docs/hazards.md` and `docs/torture.md` against the tests and rows that there are.
mod torture;
/// What an observer of the host could see.
mod transparency;
