//! What depends on the processor: the time stamp counter, the thread's slot, and read-modify-write instructions that
//! are atomic against signals on the same thread but not against other threads (no `lock` prefix: 1 ns, not 10).
//! Everything here is hook-safe.

use core::arch::x86_64::*;
use core::arch::{asm, global_asm};

// One initial-exec slot of 64 bytes: a `thread_local!` in a cdylib is general-dynamic, and `__tls_get_addr` allocates.
global_asm!(
    ".section .tbss.memspy,\"awT\",@nobits",
    ".p2align 6",
    ".globl memspy_thread",
    ".hidden memspy_thread",
    ".type memspy_thread, @object",
    ".size memspy_thread, 64",
    "memspy_thread:",
    ".zero 64",
    ".previous",
);

/// Size of the thread's slot in bytes.
pub(crate) const THREAD_SLOT_SIZE: usize = 64;

/// The calling thread's 64 bytes, zero when it starts.
#[inline(always)]
pub(crate) fn thread_slot() -> *mut u8 {
    let slot: *mut u8;
    // SAFETY: reads the offset that the loader put into the GOT and adds the thread pointer, which is at fs:0.
    unsafe {
        asm!(
            "mov {0}, qword ptr [rip + memspy_thread@GOTTPOFF]",
            "add {0}, qword ptr fs:[0]",
            out(reg) slot,
            // Neither the GOT's word nor the thread pointer changes while the thread lives.
            options(pure, nomem, nostack),
        );
    }
    slot
}

/// The thread pointer: which thread (or which dead thread's place) this is.
#[inline(always)]
pub(crate) fn thread_pointer() -> usize {
    let pointer: usize;
    // SAFETY: the ABI keeps the thread pointer at fs:0.
    unsafe { asm!("mov {}, qword ptr fs:[0]", out(reg) pointer, options(pure, readonly, nostack)) };
    pointer
}

/// The stack pointer: where the frames of the running functions are.
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let pointer: usize;
    // SAFETY: copies a register.
    unsafe { asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// The time stamp counter, read before what follows has effects (a release).
#[inline(always)]
pub(crate) fn tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction; Linux lets user space run it unless prctl forbids it.
    unsafe { _rdtsc() }
}

/// The time stamp counter, read after everything before it is done.
#[inline(always)]
pub(crate) fn tsc_ordered() -> u64 {
    // SAFETY: as in `tsc`; lfence waits for the loads before it.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// Adds to a word and answers its old value, in one instruction.
///
/// # Safety
/// `word` must be valid; no other thread may write it.
#[inline(always)]
pub(crate) unsafe fn add_local(word: *mut u64, mut value: u64) -> u64 {
    // SAFETY: the caller vouches for the word.
    unsafe { asm!("xadd qword ptr [{}], {}", in(reg) word, inout(reg) value, options(nostack)) };
    value
}

/// Replaces a word by `new` if it is `old`, in one instruction; answers whether it did.
///
/// # Safety
/// `word` must be valid; no other thread may write it.
#[inline(always)]
pub(crate) unsafe fn replace_local(word: *mut u64, old: u64, new: u64) -> bool {
    let seen: u64;
    // SAFETY: the caller vouches for the word.
    unsafe {
        asm!("cmpxchg qword ptr [{}], {}", in(reg) word, in(reg) new, inout("rax") old => seen, options(nostack));
    }
    seen == old
}

/// Adds one to a word in one instruction.
///
/// # Safety
/// `word` must be valid; no other thread may write it.
#[inline(always)]
pub(crate) unsafe fn increment_local(word: *mut u64) {
    // SAFETY: the caller vouches for the word.
    unsafe { asm!("inc qword ptr [{}]", in(reg) word, options(nostack)) };
}

/// Begins to bring what lies at an address into the cache. Any address will do.
#[inline(always)]
pub(crate) fn fetch(address: usize) {
    // SAFETY: a prefetch reads nothing and never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address as *const i8) };
}

/// Sixteen hexadecimal digits, the highest first, each counted from the character in its place of `zero`.
#[inline(always)]
pub(crate) fn hex(value: u64, zero: [u8; 16]) -> [u8; 16] {
    // SAFETY: every x86-64 processor has SSE2; 16 bytes are 16 bytes.
    unsafe {
        let bytes = _mm_cvtsi64_si128(value.swap_bytes() as i64);
        let nibbles = _mm_and_si128(
            _mm_unpacklo_epi8(_mm_srli_epi64::<4>(bytes), bytes),
            _mm_set1_epi8(15),
        );
        let letters = _mm_cmpgt_epi8(nibbles, _mm_set1_epi8(9));
        let offset = _mm_and_si128(letters, _mm_set1_epi8((b'a' - b'9' - 1) as i8));
        let zero: __m128i = core::mem::transmute(zero);
        let digits = _mm_add_epi8(_mm_add_epi8(nibbles, offset), zero);
        core::mem::transmute(digits)
    }
}
