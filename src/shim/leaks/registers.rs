//! What a thread holds outside memory, and where its part of the stack begins.

use super::maps::Maps;
use super::threads::{GENERAL, RED_ZONE, RSP};
use core::arch::asm;

/// The registers that a callee keeps, as they were when a hook was entered; saved by the hook's naked entry.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Registers {
    /// At the hook's entry: it points to the return address.
    pub(crate) rsp: u64,
    /// Callee-saved, like the rest.
    pub(crate) rbp: u64,
    pub(crate) rbx: u64,
    pub(crate) r12: u64,
    pub(crate) r13: u64,
    pub(crate) r14: u64,
    pub(crate) r15: u64,
}

impl Registers {
    /// As they are now, with all that lies above: the frames of the shim that are under way have saved the program's
    /// own registers somewhere among them.
    #[inline(always)]
    pub(crate) fn here() -> Registers {
        let mut here = Registers::default();
        // SAFETY: stores registers into `here`, whose layout is fixed.
        unsafe {
            asm!(
                "lea {sp}, [rsp - 8]",
                "mov [{at}], {sp}",
                "mov [{at} + 8], rbp",
                "mov [{at} + 16], rbx",
                "mov [{at} + 24], r12",
                "mov [{at} + 32], r13",
                "mov [{at} + 40], r14",
                "mov [{at} + 48], r15",
                at = in(reg) &raw mut here,
                sp = out(reg) _,
                options(nostack, preserves_flags),
            );
        }
        here
    }
}

/// How the thread that asks for a check came to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Caller {
    /// The program called a hook: what lies below is ours, the rest its own.
    Hook(Registers),
    /// A handler registered by on_exit, whose stack pointer this was at its entry. The frames of exit lie between it
    /// and the program; the registers that exit's caller had are among their words.
    ExitHandler(u64),
    /// The program was interrupted by a signal: all its general registers.
    Signal([u64; GENERAL]),
    /// No check is made.
    Unknown,
}

/// Words that a function saves at its start: rbx, rbp, r12 to r15.
const SAVED: usize = 6;
/// How far above a handler the frames of exit are looked for, in words.
const EXIT_FRAMES: usize = 64;
/// The longest distance of a return address in a function from its start that is believed.
const LONGEST: usize = 4096;
/// Words of exit's own frame.
const EXIT_FRAME: usize = 8;

/// The caller's stack pointer, and calls `visit` with each word it may hold in registers.
pub(super) fn of_caller(maps: &Maps, caller: &Caller, mut visit: impl FnMut(u64)) -> usize {
    match caller {
        Caller::Hook(registers) => {
            let r = registers;
            for word in [r.rbp, r.rbx, r.r12, r.r13, r.r14, r.r15] {
                visit(word);
            }
            registers.rsp as usize + 8
        }
        Caller::Signal(registers) => {
            registers.iter().for_each(|word| visit(*word));
            let sp = registers.get(RSP).copied().unwrap_or(0);
            (sp as usize).saturating_sub(RED_ZONE)
        }
        Caller::Unknown => 0,
        Caller::ExitHandler(entry) => {
            let entry = *entry as usize;
            let Some((saved, sp)) = exits_caller(maps, entry) else {
                return entry;
            };
            for i in 0..SAVED {
                if let Some(word) = maps.load(saved + i * 8) {
                    visit(word);
                }
            }
            sp
        }
    }
}

/// Where the registers of exit's caller were saved, and its stack pointer when it called exit.
///
/// A handler is called by a function that exit calls: so up the stack there is a return address into exit, behind a
/// direct call of a function in which the handler's return address lies. Above it is the frame of exit, then the
/// return address into the program.
fn exits_caller(maps: &Maps, entry: usize) -> Option<(usize, usize)> {
    let handlers_return = maps.load(entry)? as usize;
    let mut slot = entry + 8;
    let into_exit = loop {
        if slot > entry + EXIT_FRAMES * 8 {
            return None;
        }
        let target = maps
            .load(slot)
            .and_then(|word| direct_call(maps, word as usize));
        if target.is_some_and(|target| handlers_return.wrapping_sub(target) < LONGEST) {
            break slot;
        }
        slot += 8;
    };
    (1..=EXIT_FRAME)
        .map(|i| into_exit + i * 8)
        .find(|slot| {
            maps.load(*slot)
                .is_some_and(|word| behind_a_call(maps, word as usize))
        })
        .map(|slot| (into_exit - SAVED * 8, slot + 8))
}

/// The function that the direct call before a return address calls.
fn direct_call(maps: &Maps, ret: usize) -> Option<usize> {
    let before = maps.at(ret.checked_sub(5)?)?;
    if !before.executable {
        return None;
    }
    let bytes = maps.load(ret - 5)?.to_le_bytes();
    let [0xe8, a, b, c, d, ..] = bytes else {
        return None;
    };
    Some(ret.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]) as isize))
}

/// Whether an address is code with a call instruction before it.
fn behind_a_call(maps: &Maps, ret: usize) -> bool {
    if direct_call(maps, ret).is_some() {
        return true;
    }
    let executable = ret
        .checked_sub(8)
        .and_then(|at| maps.at(at))
        .is_some_and(|mapping| mapping.executable);
    let Some(bytes) = executable.then(|| maps.load(ret - 8)).flatten() else {
        return false;
    };
    let bytes = bytes.to_le_bytes();
    // Indirect calls are ff /2, 2 to 7 bytes long.
    (1..=6).any(|at| {
        bytes.get(at) == Some(&0xff) && bytes.get(at + 1).is_some_and(|modrm| modrm >> 3 & 7 == 2)
    })
}
