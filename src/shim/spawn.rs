//! Children that begin another program while they work in this process's memory (vfork, posix_spawn): if that program
//! can't be recorded, nothing but this process's log tells of them.

use crate::record::event_kept;
use crate::{clock, image, log, sys};
use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicI32, Ordering::Relaxed};
use memspy_log::tail::state;
use memspy_log::{Line, Op, key, tag};

/// Most bytes of a path that are kept.
const PATH: usize = 256;
/// Room for the line: each byte of the path may be six.
const LINE: usize = 2048;

/// Children whose exec may still fail, by the low bits of their pid.
static TRYING: [AtomicI32; 64] = [const { AtomicI32::new(0) }; 64];

fn place(pid: i32) -> Option<&'static AtomicI32> {
    TRYING.get(pid as usize % TRYING.len())
}

fn is_open() -> bool {
    let open = matches!(image::state(), state::BUFFERED | state::STOPPED);
    open && image::generation() != 0 && !image::sandboxed()
}

/// A vfork child calls exec: one that works does not come back. `path` is the program's name or null, as the caller gave
/// it.
#[cold]
pub(crate) fn trying(path: *const c_char) {
    let pid = sys::getpid();
    if is_open()
        && let Some(place) = place(pid)
    {
        place.store(pid, Relaxed);
        let mut room = [0u8; PATH];
        write(pid, text(path, &mut room), false);
    }
}

/// A vfork child ends without having become another program.
#[cold]
pub(crate) fn failed() {
    let pid = sys::getpid();
    if is_open()
        && let Some(place) = place(pid)
        && place.compare_exchange(pid, 0, Relaxed, Relaxed).is_ok()
    {
        write(pid, b"", true);
    }
}

/// posix_spawn has made a child, which runs the program by now.
#[cold]
pub(crate) fn spawned(pid: i32, path: *const c_char) {
    if is_open() && !image::is_borrowed() {
        let mut room = [0u8; PATH];
        write(pid, text(path, &mut room), false);
    }
}

fn write(pid: i32, path: &[u8], failed: bool) {
    let now = clock::before();
    event_kept::<LINE>(const { &tag(Op::Spawn) }, (now, now), &|line: &mut Line| {
        line.num(log::T, now);
        line.num(const { &key("pid") }, pid as u64);
        if failed {
            line.flag(const { &key("failed") }, true);
        } else {
            line.text(const { &key("path") }, path);
        }
    });
}

/// The string at `path`, cut to the room; empty when the kernel can't read it: the call that follows will fail.
fn text(path: *const c_char, room: &mut [u8; PATH]) -> &[u8] {
    const PAGE: usize = 4096;
    let from = path as usize;
    if from == 0 {
        return b"";
    }
    // A read is whole or not at all within a page, so each page is one.
    let first = (PAGE - from % PAGE).min(PATH - 1);
    let (head, rest) = room.split_at_mut(first);
    if sys::read_own(from, head).is_err() {
        return b"";
    }
    if !head.contains(&0)
        && let Some((_, rest)) = rest.split_last_mut()
    {
        let _ = sys::read_own(from + first, rest);
    }
    CStr::from_bytes_until_nul(room).map_or(b"", CStr::to_bytes)
}

#[cfg(test)]
mod tests {
    use super::{PATH, text};

    #[test]
    #[cfg_attr(miri, ignore)]
    fn a_path_is_read_as_far_as_it_can_be() {
        let of = |path: *const core::ffi::c_char| text(path, &mut [0u8; PATH]).to_vec();
        assert_eq!(of(c"/bin/cat".as_ptr()), b"/bin/cat");
        assert_eq!(of(core::ptr::null()), b"");
        assert_eq!(of(8 as *const core::ffi::c_char), b"");
        let long = vec![b'a' as core::ffi::c_char; 9000];
        assert_eq!(of(long.as_ptr()), [b'a'; PATH - 1]);
    }
}
