//! Blocks for allocations that dlsym makes while the real functions are being looked up.
//!
//! A static arena, 16-byte aligned, zeroed, never reused: such a block stays valid for the life of the process, and
//! free and realloc know it by its address.

use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const SIZE: usize = 16 << 10;
/// Room before a block for its size.
const HEAD: usize = 16;

#[repr(align(16))]
struct Arena(UnsafeCell<[u8; SIZE]>);

// SAFETY: bytes are given out once, by an atomic step, and touched by nobody but their owner.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; SIZE]));
static USED: AtomicUsize = AtomicUsize::new(0);

/// Whether an address is one of the arena's.
#[inline(always)]
pub(crate) fn contains(ptr: usize) -> bool {
    ptr.wrapping_sub(ARENA.0.get() as usize) < SIZE
}

/// A zeroed block; null when the arena is used up.
pub(crate) fn allocate(size: usize) -> *mut u8 {
    let Some(len) = size.checked_add(HEAD + 15).map(|len| len & !15) else {
        return null_mut();
    };
    if len > SIZE {
        return null_mut();
    }
    let at = USED.fetch_add(len, Relaxed);
    if at > SIZE - len {
        USED.fetch_sub(len, Relaxed);
        return null_mut();
    }
    let start = ARENA.0.get().cast::<u8>().wrapping_add(at);
    // SAFETY: `at`..`at` + `len` lies inside the arena and is ours by the step above.
    unsafe { start.cast::<usize>().write(size) };
    start.wrapping_add(HEAD)
}

/// The size that a block was asked for with.
///
/// # Safety
/// `ptr` must be a block of this arena.
pub(crate) unsafe fn size_of_block(ptr: *const u8) -> usize {
    // SAFETY: `allocate` wrote it there.
    unsafe { ptr.sub(HEAD).cast::<usize>().read() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_zeroed_and_known() {
        let block = allocate(100);
        assert_eq!(block as usize % 16, 0);
        assert!(contains(block as usize));
        // SAFETY: a block of 100 bytes.
        unsafe {
            assert!(
                core::slice::from_raw_parts(block, 100)
                    .iter()
                    .all(|byte| *byte == 0)
            );
            assert_eq!(size_of_block(block), 100);
        }
        assert!(allocate(usize::MAX).is_null());
        assert!(allocate(SIZE).is_null());
        assert!(!contains(0));
    }
}
