//! Disk blocks set aside for the log ahead of its end.
//!
//! ext4 looks for room at each block that a write appends; into blocks that are there already the same write takes 0.11 ns a
//! byte, not 0.18. They lie behind the end of the file, where no reader sees them. When the image ends they go back;
//! after a sudden death `memspy recover` gives them back.
//!
//! Giving back is cutting off, and would cut off what somebody else appends meanwhile: another thread, or the copy of the
//! process that looks for leaks. So none are set aside where leaks are looked for, and they are given back only if the
//! process has one thread: else what is left of them, at most [`AHEAD`], stays the log's.

use crate::{align, file, image, settings, sys};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes set aside at once.
const AHEAD: u64 = 2 << 20;

/// Up to where in the log there are blocks; 0: none were set aside; [`NEVER`].
static END: AtomicU64 = AtomicU64::new(0);
/// The file system gains nothing by it, or can't.
const NEVER: u64 = u64::MAX;

/// A new image: nothing is set aside for its log.
pub(crate) fn forget() {
    END.store(0, Relaxed);
}

/// Makes sure that there are blocks for a long write, and for some after it. `fd`: the log.
pub(crate) fn ahead(fd: i32, offset: u64, len: usize) {
    let end = offset + len as u64;
    if (len as u64) < align::WORTH || end <= END.load(Relaxed) || settings::leaks() {
        return;
    }
    if sys::filesystem(fd) != Ok(sys::EXT4) {
        return END.store(NEVER, Relaxed);
    }
    let _ = sys::fallocate(fd, libc::FALLOC_FL_KEEP_SIZE, offset, end - offset + AHEAD);
    // If that did not work now, it is not tried again at once.
    END.store(end + AHEAD, Relaxed);
}

/// Gives back what is left, at the image's end. Signals are blocked.
pub(crate) fn give_back() {
    if matches!(END.load(Relaxed), 0 | NEVER) || !is_only_thread() {
        return;
    }
    // What can't be given back stays; it is no harm.
    let _ = file::with_ours(image::log_path(), file::is_log, |fd, stat| {
        END.store(0, Relaxed);
        sys::truncate(fd, stat.size)
    });
}

/// Whether the process has no other thread. Each is a directory in this one.
fn is_only_thread() -> bool {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let Ok(fd) = sys::open(c"/proc/self/task", flags, 0) else {
        return false;
    };
    let stat = sys::fstat(fd);
    sys::close(fd);
    stat.is_ok_and(|stat| stat.links == 3)
}
