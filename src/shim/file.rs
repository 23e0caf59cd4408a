//! The log and tail as files. No descriptor is held: each write opens by path, makes sure that it is still our file,
//! writes at a given place, and closes.

use crate::sys::{self, Errno, Result};
use crate::{image, reserve};
use core::ffi::CStr;
use memspy_log::tail::control;

/// Creates a file that must not exist yet, mode 0600, never through a link.
pub(crate) fn create(path: &CStr) -> Result<(i32, sys::Stat)> {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let fd = sys::open(path, flags, 0o600)?;
    let stat = sys::fstat(fd).inspect_err(|_| {
        sys::close(fd);
        let _ = sys::unlink(path);
    })?;
    // The umask may have taken from the mode; without it the log could not be opened a second time.
    // Where modes can't be set there is nothing to mend.
    if stat.mode & 0o7777 != 0o600 {
        let _ = sys::fchmod(fd, 0o600);
    }
    Ok((fd, stat))
}

/// Writes `len` bytes at `offset` of the log.
///
/// # Errors
/// EFBIG when the file would exceed RLIMIT_FSIZE (writing would raise SIGXFSZ), ESTALE when another file has the
/// log's name, EPERM in a sandbox, else what the kernel says.
///
/// # Safety
/// `from` must point to `len` readable bytes.
pub(crate) unsafe fn write_log(from: *const u8, len: usize, offset: u64) -> Result<()> {
    if image::sandboxed() {
        return Err(Errno(libc::EPERM));
    }
    if offset.saturating_add(len as u64) > sys::rlimit(libc::RLIMIT_FSIZE) {
        return Err(Errno(libc::EFBIG));
    }
    with_ours(image::log_path(), is_log, |fd, _| {
        reserve::ahead(fd, offset, len);
        // SAFETY: the caller vouches for the bytes.
        unsafe { sys::pwrite_all(fd, from, len, offset) }
    })
}

/// Opens a file for writing, makes sure that it is the one meant, and closes it again when `act` is done.
///
/// # Errors
/// ESTALE when another file has the name, else what the kernel or `act` says.
pub(crate) fn with_ours(
    path: &CStr,
    is_ours: fn(&sys::Stat) -> bool,
    act: impl FnOnce(i32, &sys::Stat) -> Result<()>,
) -> Result<()> {
    let flags = libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let fd = sys::open(path, flags, 0)?;
    let done = match sys::fstat(fd) {
        Ok(stat) if is_ours(&stat) => act(fd, &stat),
        Ok(_) => Err(Errno(libc::ESTALE)),
        Err(errno) => Err(errno),
    };
    sys::close(fd);
    done
}

/// Whether this is the log.
pub(crate) fn is_log(stat: &sys::Stat) -> bool {
    use core::sync::atomic::Ordering::Relaxed;
    stat.inode == image::word(control::LOG_INODE).load(Relaxed)
        && stat.device == image::word(control::LOG_DEVICE).load(Relaxed)
}

/// Resident bytes of the process, `None` where /proc can't be read.
pub(crate) fn resident_bytes() -> Option<u64> {
    let fd = sys::open(c"/proc/self/statm", libc::O_RDONLY | libc::O_CLOEXEC, 0).ok()?;
    let mut text = [0u8; 64];
    let len = sys::read(fd, &mut text);
    sys::close(fd);
    let mut fields = text.get(..len.ok()?)?.split(|byte| *byte == b' ');
    fields.next()?;
    let pages = fields.next()?.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })?;
    pages.checked_mul(4096)
}
