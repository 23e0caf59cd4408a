//! The tail: the small shared file in which the event buffers live, so that they survive the process.

use crate::path::PathText;
use crate::sys::{self, Errno, Result};
use crate::{file, image, memory};
use core::ffi::CStr;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering::*};
use memspy_log::tail::{CONTROL_SIZE, MAGIC, MAX_EXTENTS, control, state};

/// Buffers of the first extent: two, enough for a short process.
pub(crate) const FIRST_COUNT: usize = 2;
/// Their size in bytes.
pub(crate) const FIRST_SIZE: usize = 16 << 10;
/// Size of a later buffer in bytes.
pub(crate) const LATER_SIZE: usize = 64 << 10;
/// Size of the buffer of a thread that has filled one of those. The kernel needs 13 ns for an event's bytes when they
/// come in writes of this size, 25 in writes of 64 KiB (two million pairs of malloc and free, ext4).
/// The page more is for the header, so that a write can have the round length.
pub(crate) const BUSY_SIZE: usize = (512 << 10) + 4096;

/// Where the extents are mapped, and their lengths: a forked child puts its own memory over them.
static PLACES: [AtomicPtr<u8>; MAX_EXTENTS] = [const { AtomicPtr::new(null_mut()) }; MAX_EXTENTS];
static LENGTHS: [AtomicU64; MAX_EXTENTS] = [const { AtomicU64::new(0) }; MAX_EXTENTS];

/// Device and inode of the tail.
static IDENTITY: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Whether this is the tail.
pub(crate) fn is_tail(stat: &sys::Stat) -> bool {
    let [device, inode] = &IDENTITY;
    stat.device == device.load(Relaxed) && stat.inode == inode.load(Relaxed)
}

fn remember_identity(stat: &sys::Stat) {
    let [device, inode] = &IDENTITY;
    device.store(stat.device, Relaxed);
    inode.store(stat.inode, Relaxed);
}

const FIRST_LENGTH: usize = CONTROL_SIZE + FIRST_COUNT * FIRST_SIZE;

/// Makes log and tail, maps the tail, and fills its control page. Answers the place of the first buffer.
///
/// A name that is taken, by a log or by the tail of one, gets `.2.jsonl`, `.3.jsonl` and so on.
/// In a forked child its first extent takes the place of the parent's.
pub(crate) fn create(log: &CStr, boot_id: &BootId) -> Result<*mut u8> {
    for number in 1..100_000 {
        let log = PathText::numbered(log, number).ok_or(Errno(libc::ENAMETOOLONG))?;
        match create_named(log, boot_id) {
            Err(Errno(libc::EEXIST)) => {}
            answer => return answer,
        }
    }
    Err(Errno(libc::EEXIST))
}

fn create_named(log: PathText, boot_id: &BootId) -> Result<*mut u8> {
    let (fd, stat) = file::create(&log)?;
    sys::close(fd);
    let log = log.keep().ok_or(Errno(libc::ENAMETOOLONG))?;
    let (tail, page) = map_beside(log).inspect_err(|_| {
        let _ = sys::unlink(log);
    })?;
    image::set_control(page);
    image::set_paths(log, tail);
    image::word(control::LOG_END).store(0, Relaxed);
    image::word(control::LOG_INODE).store(stat.inode, Relaxed);
    image::word(control::LOG_DEVICE).store(stat.device, Relaxed);
    describe_process(page, boot_id);
    // SAFETY: the first buffer follows the control page in the same mapping.
    Ok(unsafe { page.add(CONTROL_SIZE) })
}

/// Makes the tail of a log. Answers its path and where it is mapped.
fn map_beside(log: &CStr) -> Result<(&'static CStr, *mut u8)> {
    let mut tail = PathText::new().ok_or(Errno(libc::ENOMEM))?;
    tail.push(log.to_bytes())
        .and_then(|()| tail.push(b".tail"))
        .ok_or(Errno(libc::ENAMETOOLONG))?;
    let tail = tail.keep().ok_or(Errno(libc::ENAMETOOLONG))?;
    Ok((tail, map_first(tail)?))
}

fn map_first(path: &CStr) -> Result<*mut u8> {
    let (fd, stat) = file::create(path)?;
    remember_identity(&stat);
    let mapped = make_extent(fd, 0, FIRST_LENGTH, place(0));
    sys::close(fd);
    let page = mapped.inspect_err(|_| {
        let _ = sys::unlink(path);
    })?;
    remember(0, page, FIRST_LENGTH);
    set_extent(page, 0, FIRST_SIZE, FIRST_COUNT);
    Ok(page)
}

/// Removes log and tail again: they hold nothing. Where that can't be done either, the tail says so.
pub(crate) fn abandon(why: Errno) {
    image::word32(control::STOP_ERRNO).store(why.0 as u32, Relaxed);
    image::word32(control::STATE).store(state::STOPPED, Relaxed);
    let _ = sys::unlink(image::tail_path());
    let _ = sys::unlink(image::log_path());
}

fn place(extent: usize) -> *mut u8 {
    PLACES
        .get(extent)
        .map_or(null_mut(), |place| place.load(Relaxed))
}

fn remember(extent: usize, at: *mut u8, len: usize) {
    if let (Some(place), Some(length)) = (PLACES.get(extent), LENGTHS.get(extent)) {
        place.store(at, Relaxed);
        length.store(len as u64, Release);
    }
}

/// Preallocates and maps `len` bytes of the tail, at `over` if that is not null.
fn make_extent(fd: i32, offset: u64, len: usize, over: *mut u8) -> Result<*mut u8> {
    preallocate(fd, offset, len as u64)?;
    map_extent(fd, offset, len, over)
}

/// Maps `len` bytes of the tail that are preallocated, at `over` if that is not null.
fn map_extent(fd: i32, offset: u64, len: usize, over: *mut u8) -> Result<*mut u8> {
    let at = if over.is_null() {
        let at = memory::map_to_stay(len, libc::MAP_SHARED, fd, offset)?;
        memory::count_mapped(len);
        at
    } else {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: the place is an extent of the image that this one replaces, mapped by this function.
        unsafe { sys::mmap(over as usize, len, prot, flags, fd, offset)? }
    };
    // SAFETY: the mapping is ours; a core dump needs no copy of it.
    let _ = unsafe { sys::madvise(at, len, libc::MADV_DONTDUMP) };
    Ok(at)
}

/// Makes sure that storing into `len` bytes of the file can't fail.
///
/// The bytes are written on ext4, which keeps room for them at once and gives them blocks when they go to the disk: mostly
/// the tail is gone before that. Giving back a short tail's blocks takes 5 to 75 us of a process's end, the most where the
/// device is told of each (mounted with `discard`, no journal), and waits for the device where that is busy; a page that
/// fallocate has made takes 8 us at its first store, one that was written 3. Elsewhere fallocate promises more than a
/// write, where there is one (not on some file systems, nor in some sandboxes). What was in the bytes may be gone.
fn preallocate(fd: i32, offset: u64, len: u64) -> Result<()> {
    if offset + len > sys::rlimit(libc::RLIMIT_FSIZE) {
        return Err(Errno(libc::EFBIG));
    }
    if len <= BUSY_SIZE as u64 && sys::filesystem(fd) == Ok(sys::EXT4) {
        return write_zeros(fd, offset, len);
    }
    match sys::fallocate(fd, 0, offset, len) {
        Err(Errno(libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM)) => write_zeros(fd, offset, len),
        answer => answer,
    }
}

fn write_zeros(fd: i32, offset: u64, len: u64) -> Result<()> {
    static ZEROS: [u8; 16 << 10] = [0; 16 << 10];
    let mut done = 0;
    while done < len {
        let step = (len - done).min(ZEROS.len() as u64);
        // SAFETY: the zeros are readable.
        unsafe { sys::pwrite_all(fd, ZEROS.as_ptr(), step as usize, offset + done)? };
        done += step;
    }
    Ok(())
}

fn set_extent(page: *mut u8, extent: usize, size: usize, count: usize) {
    // SAFETY: the table has room for MAX_EXTENTS entries of 16 bytes; the callers' numbers are below that.
    unsafe {
        let entry = page.add(control::EXTENT_TABLE + 16 * extent).cast::<u64>();
        entry.write(size as u64);
        entry.add(1).write(count as u64);
        page.add(control::EXTENTS)
            .cast::<u32>()
            .write_volatile(extent as u32 + 1);
    }
}

fn describe_process(page: *mut u8, boot_id: &BootId) {
    image::word32(control::PID).store(image::pid() as u32, Relaxed);
    image::word32(control::STATE).store(state::STARTING, Relaxed);
    image::word(control::START_TICKS).store(start_ticks().unwrap_or(0), Relaxed);
    // SAFETY: 36 bytes at BOOT_ID and 8 at the start lie inside the page.
    unsafe {
        page.add(control::BOOT_ID)
            .copy_from_nonoverlapping(boot_id.as_ptr(), boot_id.len());
        page.copy_from_nonoverlapping(MAGIC.as_ptr(), MAGIC.len());
    }
}

/// The kernel's number for this boot of the machine, as text.
pub(crate) type BootId = [u8; 36];

/// Reads the boot id; zeros where it can't be read.
pub(crate) fn boot_id() -> BootId {
    let mut boot_id = [0u8; 36];
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    if let Ok(fd) = sys::open(c"/proc/sys/kernel/random/boot_id", flags, 0) {
        let _ = sys::read(fd, &mut boot_id);
        sys::close(fd);
    }
    boot_id
}

/// Field 22 of /proc/self/stat: when the process started, in clock ticks since boot.
fn start_ticks() -> Option<u64> {
    let fd = sys::open(c"/proc/self/stat", libc::O_RDONLY | libc::O_CLOEXEC, 0).ok()?;
    let mut text = [0u8; 512];
    let len = sys::read(fd, &mut text);
    sys::close(fd);
    let text = text.get(..len.ok()?)?;
    // The second field, the name in parentheses, may hold blanks and parentheses of its own.
    let behind_name = text.iter().rposition(|byte| *byte == b')')? + 2;
    let field = text
        .get(behind_name..)?
        .split(|byte| *byte == b' ')
        .nth(22 - 3)?;
    core::str::from_utf8(field).ok()?.parse().ok()
}

/// Adds extent number `extent`, `count` buffers of `size` bytes, at `offset` of the file. Answers where it is mapped.
pub(crate) fn grow(extent: usize, offset: u64, size: usize, count: usize) -> Result<*mut u8> {
    if extent >= MAX_EXTENTS || image::sandboxed() {
        return Err(Errno(libc::ENOMEM));
    }
    let flags = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let fd = sys::open(image::tail_path(), flags, 0)?;
    let len = count * size;
    let mapped = make_extent(fd, offset, len, null_mut());
    sys::close(fd);
    let at = mapped?;
    remember(extent, at, len);
    set_extent(image::control_page(), extent, size, count);
    Ok(at)
}

/// In a forked child: puts private memory over the parent's extents from number `first` on, so that nothing here can reach
/// its buffers.
pub(crate) fn leave_parents(first: usize) {
    for (place, length) in PLACES.iter().zip(&LENGTHS).skip(first) {
        let (at, len) = (place.load(Relaxed), length.load(Relaxed) as usize);
        if at.is_null() || len == 0 {
            continue;
        }
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: the range is an extent mapped by `map_extent`.
        let _ = unsafe { sys::mmap(at as usize, len, prot, flags, -1, 0) };
    }
    for length in LENGTHS.iter().skip(1) {
        length.store(0, Relaxed);
    }
}

/// After a failed exec: a new tail under the old name, over the same first extent; later extents keep their memory.
/// The magic comes last: until then a reader takes the file for none.
pub(crate) fn reopen() -> Result<()> {
    let path = image::tail_path();
    let (fd, stat) = file::create(path)?;
    remember_identity(&stat);
    let copied = copy_extents(fd).and_then(|()| {
        // SAFETY: the magic is readable.
        unsafe { sys::pwrite_all(fd, MAGIC.as_ptr(), MAGIC.len(), 0) }
    });
    sys::close(fd);
    copied.inspect_err(|_| {
        let _ = sys::unlink(path);
    })
}

/// Writes all extents but for the magic and maps them over themselves.
fn copy_extents(fd: i32) -> Result<()> {
    let mut offset = 0u64;
    let mut skipped = MAGIC.len();
    for (place, length) in PLACES.iter().zip(&LENGTHS) {
        let (at, len) = (place.load(Relaxed), length.load(Acquire) as usize);
        if at.is_null() || len == 0 {
            break;
        }
        preallocate(fd, offset, len as u64)?;
        // SAFETY: the extent is mapped for ever, and longer than the magic.
        unsafe {
            let from = at.add(skipped);
            sys::pwrite_all(fd, from, len - skipped, offset + skipped as u64)?;
        }
        map_extent(fd, offset, len, at)?;
        offset += len as u64;
        skipped = 0;
    }
    Ok(())
}
