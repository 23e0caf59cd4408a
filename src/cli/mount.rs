//! The mount that a path lies on: its kind, its room, what it forbids.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Kinds of file systems by the number that statfs(2) gives them, from Linux's `magic.h`.
const KINDS: [(i64, &str); 14] = [
    (0xef53, "ext4"),
    (0x0102_1994, "tmpfs"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x794c_7630, "overlay"),
    (0xf2f5_2010, "f2fs"),
    (0x2fc1_2fc1, "zfs"),
    (0x6969, NFS),
    (0xff53_4d42, CIFS),
    (0xfe53_4d42, CIFS),
    (0x0102_1997, NINE_P),
    (0x6573_5546, FUSE),
    (0x4d44, "vfat"),
    (0x7371_7368, "squashfs"),
];
const NFS: &str = "nfs";
const CIFS: &str = "cifs";
const NINE_P: &str = "9p";
const FUSE: &str = "fuse";

/// What statfs(2) and statvfs(3) say about a mount.
pub(crate) struct Mount {
    /// The kind's name, or its number.
    pub(crate) kind: String,
    /// Bytes that this user may still write.
    pub(crate) free_bytes: u64,
    /// Programs and libraries on it can't be mapped executable.
    pub(crate) noexec: bool,
}

impl Mount {
    /// The mount of `path`, or of the nearest directory above it that exists.
    ///
    /// # Errors
    /// When nothing on the way can be reached.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let existing = path
            .ancestors()
            .find(|ancestor| ancestor.exists())
            .unwrap_or(path);
        let existing = if existing.as_os_str().is_empty() {
            Path::new(".")
        } else {
            existing
        };
        let name = CString::new(existing.as_os_str().as_bytes())?;
        let kind = kind_of(&name)?;
        let room = room_of(&name)?;
        let known = KINDS.iter().find(|(number, _)| *number == kind);
        Ok(Self {
            kind: known.map_or_else(|| format!("{kind:#x}"), |(_, name)| (*name).to_owned()),
            free_bytes: room.f_bavail.saturating_mul(room.f_frsize),
            noexec: room.f_flag & libc::ST_NOEXEC != 0,
        })
    }

    /// Whether files on it live in another machine or process, so that each write may be slow.
    pub(crate) fn is_remote(&self) -> bool {
        [NFS, CIFS, NINE_P, FUSE].contains(&self.kind.as_str())
    }
}

#[allow(unsafe_code)]
fn kind_of(path: &CStr) -> io::Result<i64> {
    let mut answer = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the path is NUL-terminated and `answer` has room for the result.
    if unsafe { libc::statfs(path.as_ptr(), answer.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the kernel filled the answer.
    Ok(unsafe { answer.assume_init() }.f_type)
}

#[allow(unsafe_code)]
fn room_of(path: &CStr) -> io::Result<libc::statvfs> {
    let mut answer = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path is NUL-terminated and `answer` has room for the result.
    if unsafe { libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so libc filled the answer.
    Ok(unsafe { answer.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_a_tmpfs() {
        assert_eq!(
            Mount::of(Path::new("/dev/shm/no/such/file"))
                .map(|mount| mount.kind)
                .ok(),
            Some("tmpfs".into())
        );
    }
}
