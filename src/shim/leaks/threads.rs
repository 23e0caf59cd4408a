//! The other threads: stopped for the moment of the copy, their registers known.
//!
//! Each gets signal 33, which glibc keeps for itself and lets no program block, with a handler of ours that is set for
//! that moment only; it notes the registers and sleeps on a futex until the copy is made. A thread that does not come
//! in time (stopped, or with a mask set by a raw system call) runs on; its stack pointer is then asked of /proc.
//!
//! The signal says SI_QUEUE and not SI_TKILL as tgkill(2) would: should it arrive when glibc's handler is in place again,
//! that one takes no notice (glibc's own say SI_TKILL), and ours can tell one from the other.

use super::kernel;
use crate::memory;
use crate::signal::{Action, Handler, sigaction};
use crate::sys;
use crate::x86_64::thread_pointer;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::*};

/// glibc's SIGSETXID.
const SIGNAL: i32 = 33;
/// General registers that the kernel saves in a signal frame: r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp.
pub(super) const GENERAL: usize = 16;
/// The last of them.
pub(super) const RSP: usize = 15;
/// Memory below the stack pointer that a function may use without moving it.
pub(super) const RED_ZONE: usize = 128;

/// How often the list of threads is read again for new ones.
const ROUNDS: usize = 16;
/// How often, and how long each time, late threads are waited for, in milliseconds.
const PATIENCE: u32 = 50;
const WAIT: u32 = 10;

/// Where one thread is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Place {
    /// It has been sent the signal.
    Called = 1,
    /// It sleeps in the handler, its registers are noted.
    Parked,
    /// It goes on.
    Gone,
}

/// One other thread.
struct Slot {
    tid: AtomicU32,
    place: AtomicU32,
    /// Its thread pointer: the address of its `struct pthread`.
    pointer: AtomicU64,
    registers: [AtomicU64; GENERAL],
}

const SLOTS: usize = 1 << 14;

/// One stop of all threads.
struct Round {
    used: AtomicU32,
    /// Moves with each thread that parks.
    arrivals: AtomicU32,
    /// 1: go on.
    released: AtomicU32,
    slots: [Slot; SLOTS],
}

static ROUND: AtomicPtr<Round> = AtomicPtr::new(core::ptr::null_mut());
/// What signal 33 does when it is not ours: a handler, or 0 and 1 for none.
static BEFORE: AtomicU64 = AtomicU64::new(0);

/// What is known of a thread in the copy.
pub(super) struct Thread<'a>(&'a Slot);

impl Thread<'_> {
    /// Address of the thread's `struct pthread`; `None` when it could not be stopped.
    pub(super) fn pointer(&self) -> Option<usize> {
        self.is_parked()
            .then(|| self.0.pointer.load(Relaxed) as usize)
    }

    /// Whether it was stopped, so that its registers are right.
    pub(super) fn is_parked(&self) -> bool {
        self.0.place.load(Acquire) == Place::Parked as u32
    }

    /// The stack pointer, if known.
    pub(super) fn sp(&self) -> Option<usize> {
        let sp = self.0.registers.get(RSP)?.load(Relaxed);
        (sp != 0).then_some(sp as usize)
    }

    /// Calls `visit` with each general register.
    pub(super) fn each_register(&self, mut visit: impl FnMut(u64)) {
        if self.is_parked() {
            for register in &self.0.registers {
                visit(register.load(Relaxed));
            }
        }
    }
}

/// All other threads, stopped as far as they could be; they go on when it is dropped.
pub(super) struct Stopped {
    round: Option<&'static Round>,
    before: Option<Action>,
    /// Whether the list of threads could be read at all.
    pub(super) listed: bool,
}

impl Stopped {
    /// The threads that are not the caller.
    pub(super) fn threads(&self) -> impl Iterator<Item = Thread<'static>> {
        let slots = self.round.map_or(&[][..], |round| {
            let used = round.used.load(Acquire) as usize;
            round.slots.get(..used).unwrap_or(&round.slots)
        });
        slots
            .iter()
            .filter(|slot| slot.place.load(Acquire) != Place::Gone as u32)
            .map(Thread)
    }
}

/// Stops all threads but the caller, which must have all signals blocked, and be the only one that checks.
pub(super) fn stop(pid: i32, own: i32) -> Stopped {
    let mut stopped = Stopped {
        round: None,
        before: None,
        listed: true,
    };
    let (mut others, mut found) = (false, false);
    let read = each_task(|tid| {
        others |= tid != own;
        found |= tid == own;
    });
    // In a pid namespace that /proc is not of, the ids are other ones.
    stopped.listed = read && found;
    if !others || !found {
        return stopped;
    }
    let Some(round) = fresh_round() else {
        stopped.listed = false;
        return stopped;
    };
    stopped.round = Some(round);
    stopped.before = set_handler();
    if stopped.before.is_none() {
        stopped.listed &= each_task(|tid| {
            if tid != own {
                round.add(tid);
            }
        });
        return stopped;
    }
    for _ in 0..ROUNDS {
        let mut called = 0;
        stopped.listed &= each_task(|tid| {
            if tid != own && round.find(tid).is_none() && round.add(tid) {
                called += 1;
                if kernel::queue_signal(pid, tid, SIGNAL, token()).is_err() {
                    round.forget(tid);
                }
            }
        });
        if called == 0 {
            break;
        }
        round.wait(pid);
    }
    round.ask_for_the_rest();
    stopped
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let Some(round) = self.round else { return };
        round.released.store(1, Release);
        kernel::futex_wake(&round.released);
        let is_late = |slot: &Slot| slot.place.load(Acquire) == Place::Called as u32;
        let late = round.used().iter().any(is_late);
        ROUND.store(core::ptr::null_mut(), Release);
        // With a signal still on its way the handler has to stay: without one it would end the process.
        if let Some(before) = self.before
            && (!late || before.handler > 1)
        {
            // SAFETY: this is what the kernel said the signal did before.
            let _ = unsafe { sigaction(SIGNAL, Some(&before)) };
        }
    }
}

impl Round {
    fn used(&self) -> &[Slot] {
        let used = self.used.load(Acquire) as usize;
        self.slots.get(..used).unwrap_or(&self.slots)
    }

    fn find(&self, tid: i32) -> Option<&Slot> {
        self.used()
            .iter()
            .find(|slot| slot.tid.load(Relaxed) == tid as u32)
    }

    fn add(&self, tid: i32) -> bool {
        let used = self.used.load(Relaxed);
        let Some(slot) = self.slots.get(used as usize) else {
            return false;
        };
        slot.tid.store(tid as u32, Relaxed);
        slot.place.store(Place::Called as u32, Relaxed);
        self.used.store(used + 1, Release);
        true
    }

    fn forget(&self, tid: i32) {
        if let Some(slot) = self.find(tid) {
            slot.place.store(Place::Gone as u32, Release);
        }
    }

    /// Waits until all that were called are parked or dead, or patience ends.
    fn wait(&self, pid: i32) {
        for _ in 0..PATIENCE {
            let arrivals = self.arrivals.load(Acquire);
            let mut missing = false;
            for slot in self.used() {
                if slot.place.load(Acquire) == Place::Called as u32 {
                    let tid = slot.tid.load(Relaxed) as i32;
                    if sys::tgkill(pid, tid, 0).is_err() {
                        slot.place.store(Place::Gone as u32, Release);
                    } else {
                        missing = true;
                    }
                }
            }
            if !missing {
                return;
            }
            kernel::futex_wait(&self.arrivals, arrivals, Some(WAIT));
        }
    }

    /// Asks /proc for the stack pointers of those that did not come.
    fn ask_for_the_rest(&self) {
        for slot in self.used() {
            if slot.place.load(Acquire) == Place::Called as u32
                && let Some(sp) = waiting_sp(slot.tid.load(Relaxed))
                && let Some(register) = slot.registers.get(RSP)
            {
                register.store(sp, Relaxed);
            }
        }
    }
}

/// A round with no threads in it. The pages of the one before are used again.
fn fresh_round() -> Option<&'static Round> {
    static ROOM: AtomicPtr<Round> = AtomicPtr::new(core::ptr::null_mut());
    let mut room = ROOM.load(Acquire);
    if room.is_null() {
        let len = size_of::<Round>().next_multiple_of(4096);
        room = memory::map_pages(len)?.cast::<Round>().as_ptr();
        ROOM.store(room, Release);
    }
    // SAFETY: the pages are mapped for good, and zeroed memory is a valid `Round`. Only one check runs at a time.
    let round = unsafe { &*room };
    for slot in round.used() {
        // Of the round before: it was told to go on and is about to.
        while slot.place.load(Acquire) == Place::Parked as u32 {
            sys::sched_yield();
        }
        slot.tid.store(0, Relaxed);
        slot.place.store(0, Relaxed);
        for register in &slot.registers {
            register.store(0, Relaxed);
        }
    }
    round.used.store(0, Relaxed);
    round.released.store(0, Relaxed);
    ROUND.store(room, Release);
    Some(round)
}

fn set_handler() -> Option<Action> {
    let ours = Action::handled_by(parked);
    // SAFETY: the handler touches only atomics and makes raw system calls.
    let before = unsafe { sigaction(SIGNAL, Some(&ours)) }.ok()?;
    if before.handler != ours.handler {
        BEFORE.store(before.handler as u64, Release);
    }
    Some(before)
}

/// What our signals carry.
fn token() -> usize {
    &raw const ROUND as usize
}

/// The handler. In a thread that the present round called it parks, and does nothing in one that comes too late; any
/// other signal 33 is glibc's.
extern "C" fn parked(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel hands the handler a valid description, whose value is set where the code is SI_QUEUE.
    let is_ours = unsafe {
        (*info).si_code == libc::SI_QUEUE && (*info).si_value().sival_ptr as usize == token()
    };
    if !is_ours {
        let before = BEFORE.load(Acquire) as usize;
        if before > 1 {
            // SAFETY: it is what the process had set as the handler of this very signal, with three arguments.
            let before = unsafe { core::mem::transmute::<usize, Handler>(before) };
            before(signal, info, context);
        }
        return;
    }
    let tid = sys::gettid();
    let round = ROUND.load(Acquire);
    // SAFETY: a round that was published once stays mapped.
    let slot = unsafe { round.as_ref() }.and_then(|round| {
        let slot = round.find(tid)?;
        (slot.place.load(Acquire) == Place::Called as u32).then_some((round, slot))
    });
    let Some((round, slot)) = slot else { return };
    // SAFETY: the kernel hands the handler a valid context.
    let registers = unsafe { &(*context).uc_mcontext.gregs };
    for (to, from) in slot.registers.iter().zip(registers) {
        to.store(*from as u64, Relaxed);
    }
    slot.pointer.store(thread_pointer() as u64, Relaxed);
    slot.place.store(Place::Parked as u32, Release);
    round.arrivals.fetch_add(1, AcqRel);
    kernel::futex_wake(&round.arrivals);
    while round.released.load(Acquire) == 0 {
        kernel::futex_wait(&round.released, 0, None);
    }
    slot.place.store(Place::Gone as u32, Release);
}

/// Calls `visit` with the id of each thread of the process; false when they can't be listed.
fn each_task(mut visit: impl FnMut(i32)) -> bool {
    let Ok(fd) = sys::open(
        c"/proc/self/task",
        libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
        0,
    ) else {
        return false;
    };
    let mut buf = [0u8; 1024];
    let listed = loop {
        match kernel::getdents(fd, &mut buf) {
            Ok(0) => break true,
            Ok(len) => each_name(buf.get(..len).unwrap_or_default(), |name| {
                if let Some(tid) = decimal(name) {
                    visit(tid as i32);
                }
            }),
            Err(_) => break false,
        }
    };
    sys::close(fd);
    listed
}

/// The names in what getdents64 filled.
fn each_name(mut entries: &[u8], mut visit: impl FnMut(&[u8])) {
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    while let Some(&[low, high]) = entries.get(LENGTH..LENGTH + 2) {
        let len = usize::from(u16::from_le_bytes([low, high]));
        let Some((entry, rest)) = entries.split_at_checked(len) else {
            return;
        };
        let name = entry.get(NAME..).unwrap_or_default();
        let end = name.iter().position(|byte| *byte == 0);
        visit(name.get(..end.unwrap_or(name.len())).unwrap_or_default());
        if len == 0 {
            return;
        }
        entries = rest;
    }
}

fn decimal(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u32, |number, digit| {
        let digit = (*digit as char).to_digit(10)?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The stack pointer of a thread that waits in the kernel: the last but one word of its `syscall` file.
fn waiting_sp(tid: u32) -> Option<u64> {
    let mut path = *b"/proc/self/task/\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut digits = [0u8; 10];
    let mut rest = tid;
    let mut first = digits.len();
    while first > 0 {
        first -= 1;
        *digits.get_mut(first)? = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let tail = digits.get(first..)?.iter().chain(b"/syscall");
    for (place, byte) in path.iter_mut().skip("/proc/self/task/".len()).zip(tail) {
        *place = *byte;
    }
    let path = core::ffi::CStr::from_bytes_until_nul(&path).ok()?;
    let fd = kernel::open(path).ok()?;
    let mut text = [0u8; 256];
    let read = sys::read(fd, &mut text);
    sys::close(fd);
    sp_of(text.get(..read.ok()?)?)
}

fn sp_of(line: &[u8]) -> Option<u64> {
    let word = line.trim_ascii().rsplit(|byte| *byte == b' ').nth(1)?;
    let digits = core::str::from_utf8(word.strip_prefix(b"0x")?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::{decimal, each_task, sp_of, stop, waiting_sp};
    use crate::leaks::CHECKING;
    use crate::sys;
    use crate::x86_64::thread_pointer;

    #[test]
    fn the_syscall_file_gives_the_stack_pointer() {
        let line = b"202 0x7f1 0x80 0x0 0x0 0x0 0x0 0x7ffd12345678 0x7f0011223344\n";
        assert_eq!(sp_of(line), Some(0x7ffd_1234_5678));
        assert_eq!(sp_of(b"running\n"), None);
        assert_eq!(sp_of(b""), None);
    }

    #[test]
    fn only_numbers_are_threads() {
        assert_eq!(decimal(b"4711"), Some(4711));
        assert_eq!(decimal(b"."), None);
        assert_eq!(decimal(b""), None);
        assert_eq!(decimal(b"99999999999"), None);
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn a_thread_lists_itself() {
        let own = sys::gettid();
        let mut seen = false;
        assert!(each_task(|tid| seen |= tid == own));
        assert!(seen);
        assert_eq!(waiting_sp(u32::MAX), None);
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn other_threads_stop_with_their_registers_and_go_on() {
        use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
        let pointer = AtomicU64::new(0);
        let tid = AtomicU64::new(0);
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                pointer.store(thread_pointer() as u64, SeqCst);
                tid.store(sys::gettid() as u64, SeqCst);
                while !end.load(SeqCst) {
                    std::hint::spin_loop();
                }
            });
            while tid.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            let signals = sys::block_signals();
            while CHECKING.swap(true, SeqCst) {
                sys::sched_yield();
            }
            let stopped = stop(sys::getpid(), sys::gettid());
            assert!(stopped.listed);
            let found = stopped
                .threads()
                .find(|thread| thread.pointer() == Some(pointer.load(SeqCst) as usize))
                .and_then(|thread| thread.sp());
            drop(stopped);
            CHECKING.store(false, SeqCst);
            sys::restore_signals(signals);
            end.store(true, SeqCst);
            thread.join().expect("the thread went on");
            assert!(found.is_some(), "the thread was parked");
        });
    }
}
