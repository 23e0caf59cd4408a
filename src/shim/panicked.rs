//! What happens on a panic: the process stops at once.
//!
//! The hook path has no panic; this is for the day on which that turns out to be wrong. The build puts it in the place
//! of std's handler (see `build.rs`), which would print, allocate and use thread-locals, all of it inside malloc.

core::arch::global_asm!(
    ".section .text.memspy_panicked,\"ax\",@progbits",
    ".globl memspy_panicked",
    ".hidden memspy_panicked",
    ".type memspy_panicked, @function",
    "memspy_panicked:",
    ".cfi_startproc",
    "ud2",
    ".cfi_endproc",
    ".size memspy_panicked, . - memspy_panicked",
    ".previous",
);
