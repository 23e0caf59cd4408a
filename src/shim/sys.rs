//! Raw system calls: the only way in which the shim talks to the kernel.
//!
//! A libc wrapper could be hooked (by us or by another preload), be a cancellation point, or set errno. These do none
//! of that: they answer the value, or the errno as `Err`. Everything here is hook-safe.

use core::arch::asm;
use core::ffi::CStr;

/// An errno as the kernel answers it, 1 to 4095.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

/// What a system call answers.
pub(crate) type Result<T> = core::result::Result<T, Errno>;

/// Issues system call `number` with up to six arguments.
///
/// # Safety
/// The call must be one that the arguments make sound: pointers valid for what the kernel does with them.
#[inline(always)]
pub(crate) unsafe fn syscall(number: i64, args: [usize; 6]) -> Result<usize> {
    let answer: isize;
    // SAFETY: the x86-64 system call convention: rcx and r11 are clobbered, all else is kept; the caller vouches for
    // the call itself.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => answer,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    if (-4095..0).contains(&answer) {
        Err(Errno(-answer as i32))
    } else {
        Ok(answer as usize)
    }
}

macro_rules! call {
    ($number:ident $(, $arg:expr)*) => {{
        let mut args = [0usize; 6];
        let given = [$($arg as usize),*];
        let mut i = 0;
        while i < given.len() {
            args[i] = given[i];
            i += 1;
        }
        syscall(libc::$number, args)
    }};
}

/// Process id, straight from the kernel: right in vfork and raw clone children too.
pub(crate) fn getpid() -> i32 {
    // SAFETY: takes no pointers.
    unsafe { syscall(libc::SYS_getpid, [0; 6]) }.unwrap_or(0) as i32
}

/// Parent's process id.
pub(crate) fn getppid() -> i32 {
    // SAFETY: takes no pointers.
    unsafe { syscall(libc::SYS_getppid, [0; 6]) }.unwrap_or(0) as i32
}

/// Thread id of the caller.
pub(crate) fn gettid() -> i32 {
    // SAFETY: takes no pointers.
    unsafe { syscall(libc::SYS_gettid, [0; 6]) }.unwrap_or(0) as i32
}

/// Sends `signal` (0: only asks whether the thread is there).
pub(crate) fn tgkill(pid: i32, tid: i32, signal: i32) -> Result<()> {
    // SAFETY: takes no pointers.
    unsafe { call!(SYS_tgkill, pid, tid, signal) }.map(|_| ())
}

/// Copies own memory that may not be there, all of it or nothing if it lies within one page.
pub(crate) fn read_own(from: usize, into: &mut [u8]) -> Result<()> {
    let (local, remote) = ([into.as_mut_ptr() as usize, into.len()], [from, into.len()]);
    // SAFETY: the kernel writes at most `into.len()` bytes into `into` and checks `from` itself.
    let read = unsafe {
        call!(
            SYS_process_vm_readv,
            getpid(),
            local.as_ptr(),
            1,
            remote.as_ptr(),
            1,
            0
        )
    };
    read.map(|_| ())
}

/// Opens `path`, relative ones from the working directory.
pub(crate) fn open(path: &CStr, flags: i32, mode: u32) -> Result<i32> {
    // SAFETY: `path` is a NUL-terminated string that the kernel only reads.
    unsafe {
        call!(
            SYS_openat,
            libc::AT_FDCWD as isize,
            path.as_ptr(),
            flags,
            mode
        )
    }
    .map(|fd| fd as i32)
}

/// Closes a descriptor that the shim opened.
pub(crate) fn close(fd: i32) {
    // SAFETY: takes no pointers.
    let _ = unsafe { call!(SYS_close, fd) };
}

/// How often an interrupted call is made again. A sandbox or a file system may interrupt every one of them.
const TRIES: u32 = 16;

/// Reads at the descriptor's position.
pub(crate) fn read(fd: i32, buf: &mut [u8]) -> Result<usize> {
    for _ in 0..TRIES {
        // SAFETY: the kernel writes at most `buf.len()` bytes into `buf`.
        let answer = unsafe { call!(SYS_read, fd, buf.as_mut_ptr(), buf.len()) };
        if answer != Err(Errno(libc::EINTR)) {
            return answer;
        }
    }
    Err(Errno(libc::EINTR))
}

/// Writes at the descriptor's position, once.
pub(crate) fn write(fd: i32, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the kernel only reads `bytes`.
    unsafe { call!(SYS_write, fd, bytes.as_ptr(), bytes.len()) }
}

/// Writes all of `len` bytes at `offset`.
///
/// # Safety
/// `from` must point to `len` readable bytes. They may change meanwhile. The descriptor's position is nobody's.
pub(crate) unsafe fn pwrite_all(fd: i32, from: *const u8, len: usize, offset: u64) -> Result<()> {
    let mut done = 0;
    let mut tries = TRIES;
    let mut positioned = false;
    while done < len {
        let (rest, left) = (from.wrapping_add(done), len - done);
        // SAFETY: the caller vouches for the bytes, of which this is the rest.
        let answer = unsafe {
            match positioned {
                false => call!(SYS_pwrite64, fd, rest, left, offset as usize + done),
                true => call!(SYS_write, fd, rest, left),
            }
        };
        match answer {
            Ok(0) => return Err(Errno(libc::EIO)),
            Ok(written) => done += written,
            Err(Errno(libc::EINTR)) if tries > 0 => tries -= 1,
            // Some sandboxes know `write` and not `pwrite64`.
            Err(Errno(libc::EPERM | libc::ENOSYS)) if !positioned => {
                // SAFETY: takes no pointers.
                unsafe { call!(SYS_lseek, fd, offset as usize + done, libc::SEEK_SET) }?;
                positioned = true;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Device, inode, mode and size of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) links: u64,
}

/// What kind of file a descriptor is.
pub(crate) fn fstat(fd: i32) -> Result<Stat> {
    // SAFETY: all-zero is a valid value of the plain struct `stat`.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: the kernel writes one `struct stat`, whose layout on x86-64 is libc's.
    unsafe { call!(SYS_fstat, fd, &raw mut stat) }?;
    Ok(Stat {
        device: stat.st_dev,
        inode: stat.st_ino,
        mode: stat.st_mode,
        size: stat.st_size as u64,
        links: stat.st_nlink,
    })
}

/// Effective user id.
pub(crate) fn geteuid() -> u32 {
    // SAFETY: takes no pointers.
    unsafe { syscall(libc::SYS_geteuid, [0; 6]) }.unwrap_or(usize::MAX) as u32
}

/// Gives an open file to a user; its group stays.
pub(crate) fn fchown(fd: i32, user: u32) -> Result<()> {
    // SAFETY: takes no pointers.
    unsafe { call!(SYS_fchown, fd, user, u32::MAX) }.map(|_| ())
}

/// Sets the mode of an open file.
pub(crate) fn fchmod(fd: i32, mode: u32) -> Result<()> {
    // SAFETY: takes no pointers.
    unsafe { call!(SYS_fchmod, fd, mode) }.map(|_| ())
}

/// Sets disk blocks aside for `len` bytes of a file. `mode`: 0 (the file becomes that long), or FALLOC_FL_KEEP_SIZE.
pub(crate) fn fallocate(fd: i32, mode: i32, offset: u64, len: u64) -> Result<()> {
    for _ in 0..TRIES {
        // SAFETY: takes no pointers.
        match unsafe { call!(SYS_fallocate, fd, mode, offset, len) } {
            Err(Errno(libc::EINTR)) => {}
            answer => return answer.map(|_| ()),
        }
    }
    Err(Errno(libc::EINTR))
}

/// Cuts a file off behind `len` bytes; blocks that lie behind its end go, too.
pub(crate) fn truncate(fd: i32, len: u64) -> Result<()> {
    // SAFETY: takes no pointers.
    unsafe { call!(SYS_ftruncate, fd, len) }.map(|_| ())
}

/// What [`filesystem`] answers for ext4 (and its elders).
pub(crate) const EXT4: i64 = 0xef53;

/// Which kind of file system a file is on, as statfs(2) numbers them.
pub(crate) fn filesystem(fd: i32) -> Result<i64> {
    // SAFETY: all-zero is a valid value of the plain struct `statfs`.
    let mut statfs: libc::statfs = unsafe { core::mem::zeroed() };
    // SAFETY: the kernel writes one `struct statfs`, whose layout on x86-64 is libc's.
    unsafe { call!(SYS_fstatfs, fd, &raw mut statfs) }?;
    Ok(statfs.f_type)
}

/// Removes a name.
pub(crate) fn unlink(path: &CStr) -> Result<()> {
    // SAFETY: `path` is a NUL-terminated string that the kernel only reads.
    unsafe { call!(SYS_unlink, path.as_ptr()) }.map(|_| ())
}

/// Reads a symbolic link; the answer is the part of `buf` that it filled.
pub(crate) fn readlink<'a>(path: &CStr, buf: &'a mut [u8]) -> Result<&'a [u8]> {
    // SAFETY: the kernel reads `path` and writes at most `buf.len()` bytes.
    let len = unsafe {
        call!(
            SYS_readlinkat,
            libc::AT_FDCWD as isize,
            path.as_ptr(),
            buf.as_mut_ptr(),
            buf.len()
        )
    }?;
    buf.get(..len).ok_or(Errno(libc::EIO))
}

/// The working directory; the answer is the part of `buf` that it filled.
pub(crate) fn getcwd(buf: &mut [u8]) -> Result<&[u8]> {
    // SAFETY: the kernel writes at most `buf.len()` bytes.
    let len = unsafe { call!(SYS_getcwd, buf.as_mut_ptr(), buf.len()) }?;
    buf.get(..len.saturating_sub(1)).ok_or(Errno(libc::EIO))
}

/// Maps memory. `addr` 0: anywhere.
///
/// # Safety
/// With MAP_FIXED the range must be the shim's own.
pub(crate) unsafe fn mmap(
    addr: usize,
    len: usize,
    prot: i32,
    flags: i32,
    fd: i32,
    offset: u64,
) -> Result<*mut u8> {
    // SAFETY: the caller vouches for a fixed range; elsewhere nothing existing is touched.
    unsafe { call!(SYS_mmap, addr, len, prot, flags, fd as isize, offset) }.map(|at| at as *mut u8)
}

/// Unmaps memory.
///
/// # Safety
/// Nothing may use the range any more.
pub(crate) unsafe fn munmap(addr: *mut u8, len: usize) {
    // SAFETY: the caller vouches that nothing uses the range.
    let _ = unsafe { call!(SYS_munmap, addr, len) };
}

/// Advice on a range.
///
/// # Safety
/// The range must be the shim's own and the advice one that it can bear.
pub(crate) unsafe fn madvise(addr: *mut u8, len: usize, advice: i32) -> Result<()> {
    // SAFETY: the caller vouches for range and advice.
    unsafe { call!(SYS_madvise, addr, len, advice) }.map(|_| ())
}

/// Replaces the signal mask by one that blocks everything and answers the old one.
pub(crate) fn block_signals() -> u64 {
    let all = u64::MAX;
    let mut old = 0u64;
    // SAFETY: both pointers are to 8 bytes, the size of the kernel's sigset.
    let _ = unsafe {
        call!(
            SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const all,
            &raw mut old,
            8
        )
    };
    old
}

/// Puts back what [`block_signals`] answered.
pub(crate) fn restore_signals(old: u64) {
    // SAFETY: the pointer is to 8 bytes, the size of the kernel's sigset.
    let _ = unsafe { call!(SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const old, 0, 8) };
}

/// Makes every running thread of the process pass a full memory barrier.
pub(crate) fn membarrier(command: i32) -> Result<()> {
    // SAFETY: takes no pointers.
    unsafe { call!(SYS_membarrier, command, 0, 0) }.map(|_| ())
}

/// A clock in nanoseconds, by system call.
pub(crate) fn clock_ns(clock: i32) -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one `struct timespec`.
    let _ = unsafe { call!(SYS_clock_gettime, clock, &raw mut now) };
    (now.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec as u64)
}

/// The soft limit of a resource; `u64::MAX` when there is none.
pub(crate) fn rlimit(resource: u32) -> u64 {
    let mut limit = [u64::MAX; 2];
    // SAFETY: the kernel writes one `struct rlimit64`, two 64-bit words.
    let _ = unsafe { call!(SYS_prlimit64, 0, resource, 0, &raw mut limit) };
    limit[0]
}

/// The program break, which stays where it is.
pub(crate) fn program_break() -> usize {
    // SAFETY: a break of 0 is out of range, which the kernel answers with the present one.
    unsafe { syscall(libc::SYS_brk, [0; 6]) }.unwrap_or(0)
}

/// Lets another thread run.
pub(crate) fn sched_yield() {
    // SAFETY: takes no pointers.
    let _ = unsafe { syscall(libc::SYS_sched_yield, [0; 6]) };
}

/// The calling thread's name, without padding.
pub(crate) fn thread_name(buf: &mut [u8; 16]) -> &[u8] {
    // SAFETY: PR_GET_NAME writes at most 16 bytes.
    let _ = unsafe { call!(SYS_prctl, libc::PR_GET_NAME, buf.as_mut_ptr()) };
    let len = buf.iter().position(|byte| *byte == 0).unwrap_or(buf.len());
    buf.get(..len).unwrap_or_default()
}
