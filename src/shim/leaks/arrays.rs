//! Memory of the copy for its own work: mapped when asked for, gone with the copy.

use crate::memory;

/// Lengths from which on huge pages are asked for: they halve the time of a big check.
const HUGE: usize = 8 << 20;

/// A type for which all-zero memory is a value.
///
/// # Safety
/// That must be so.
pub(super) unsafe trait Zeroed: Copy + 'static {}

// SAFETY: plain numbers, and structs and enums of them whose first variants are 0.
unsafe impl Zeroed for u8 {}
// SAFETY: as above.
unsafe impl Zeroed for u32 {}
// SAFETY: as above.
unsafe impl Zeroed for u64 {}
// SAFETY: as above.
unsafe impl Zeroed for (usize, usize) {}
// SAFETY: as above.
unsafe impl Zeroed for super::maps::Mapping {}
// SAFETY: as above.
unsafe impl Zeroed for super::blocks::Large {}

/// A zeroed array; pages that are never touched cost nothing. `None`: there is no memory.
pub(super) fn zeroed<T: Zeroed>(len: usize) -> Option<&'static mut [T]> {
    let bytes = len.max(1).checked_mul(size_of::<T>())?;
    let pages = memory::map_pages(bytes.checked_next_multiple_of(4096)?)?;
    // SAFETY: the pages are the caller's alone, long enough, aligned to a page, and all-zero is a `T`.
    Some(unsafe { core::slice::from_raw_parts_mut(pages.cast::<T>().as_ptr(), len) })
}

/// The same for an array that will be filled from its start and then read all over.
pub(super) fn dense<T: Zeroed>(len: usize) -> Option<&'static mut [T]> {
    let array = zeroed::<T>(len)?;
    let bytes = size_of_val(array);
    if bytes >= HUGE {
        // SAFETY: the range was mapped just now for this array; without huge pages it works as well.
        let _ =
            unsafe { crate::sys::madvise(array.as_mut_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
    }
    Some(array)
}
