//! Memory of the copy for its own work: mapped when asked for, gone with the copy.
//!
//! Small pages: the kernel clears a huge one out of memory that nobody has had for long, which in a virtual machine may
//! not be there at all yet. For 10 million blocks that took longer than huge pages can save.

use crate::memory;

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
