//! Unwind data made to hurt: walks over a pretended module whose tables, frames and stack are partly the fuzzer's.
//!
//! What is valid comes from here (a search table, frames of every kind, a stack that leads through them); an input is a
//! list of changes to it, so that every input is nearly valid. No compiler makes such data, but a program may map
//! anything and call it unwind data, and its host must not pay for it.

use super::{Caller, Definitions, Mode, capture, start};
use crate::elf::Object;
use crate::modules::{self, Module};
use crate::{memory, stacks};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use libc::Elf64_Phdr;

const PAGE: usize = 4096;
/// The region: a page of code, one for each of the tables, one of notes, the rest stack.
const REGION: usize = 8 * PAGE;
const TABLE: usize = PAGE;
const FRAMES: usize = 2 * PAGE;
const NOTES: usize = 3 * PAGE;
const STACK: usize = 4 * PAGE;
/// Bytes of stack that an input may change.
const STACK_CHANGED: usize = 512;
/// Bytes of code that one frame description covers.
const SPAN: usize = 256;
/// Frames of a stack that are followed.
const DEPTH: usize = 24;
/// The thread's slot: no test uses it.
const SLOT: usize = 255;

/// The programs of the frame descriptions (DWARF 5, 6.4.2; expressions, 2.5), one for each kind of frame.
const PROGRAMS: [&[u8]; 8] = [
    // CFA = rsp + 16.
    &[0x0e, 16],
    // CFA = rbp + 16, rbp at CFA - 16.
    &[0x0e, 16, 0x86, 2, 0x0d, 6],
    // CFA = [rsp + 8] + 8 by an expression.
    &[0x0f, 5, 0x77, 8, 0x06, 0x23, 8],
    // Rows: advance, remember, advance, restore; rbx saved.
    &[0x41, 0x0e, 24, 0x83, 3, 0x0a, 0x44, 0x0e, 8, 0x0b],
    // The return address by an expression from the CFA on, rbp by another's value.
    &[0x0e, 32, 0x10, 16, 2, 0x38, 0x1c, 0x16, 6, 2, 0x77, 0],
    // rbp in rbx, rbx at CFA + 8, r12 as a value.
    &[0x0e, 24, 0x09, 6, 3, 0x11, 3, 0x7f, 0x14, 12, 2],
    // An expression that jumps back for ever.
    &[0x0f, 4, 0x77, 0, 0x2f, 0xfb, 0xff],
    // No return address: the outermost frame.
    &[0x07, 16],
];

/// Where valid data end, in the tables.
struct Lengths {
    table: usize,
    frames: usize,
}

/// The region and the object that the module list believes in.
static BASE: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

/// Keeps every definition.
struct All;

impl Definitions for All {
    fn module(&mut self, _: &Module) -> bool {
        true
    }

    fn unload(&mut self, _: u32) -> bool {
        true
    }

    fn stack(&mut self, _: u32, _: &stacks::Frame) -> bool {
        true
    }
}

/// Walks the valid stack as `changes` (three bytes each: place, place, value) leave it, and answers how many frames it
/// found. Not for several threads.
pub(crate) fn run(changes: &[u8]) -> usize {
    let Some(base) = base() else {
        return 0;
    };
    // SAFETY: the region is this function's alone, and of this size.
    let region = unsafe { core::slice::from_raw_parts_mut(base, REGION) };
    let lengths = fill(region, base as usize);
    let mut registers = [0u8; 24];
    let (ip, sp) = (3 * SPAN as u64 + 8, STACK as u64);
    for (place, value) in registers.chunks_exact_mut(8).zip([ip, sp, sp + 64]) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    let places = [
        (TABLE, lengths.table),
        (FRAMES, lengths.frames),
        (NOTES, 32),
        (STACK, STACK_CHANGED),
    ];
    let all: usize = places.iter().map(|(_, len)| len).sum();
    for change in changes.chunks_exact(3) {
        let mut at = usize::from(u16::from_le_bytes([change[0], change[1]])) % (all + 24);
        let place = places.iter().find_map(|(start, len)| {
            if at < *len {
                return Some(start + at);
            }
            at -= len;
            None
        });
        match place {
            Some(place) => region[place] = change[2],
            None => registers[at] = change[2],
        }
    }
    let register = |number: usize| {
        let bytes = registers[8 * number..8 * number + 8].try_into();
        inside(u64::from_le_bytes(bytes.unwrap_or_default()), base as usize)
    };
    let caller = Caller {
        ip: register(0),
        sp: register(1),
        bp: register(2),
    };
    // Voids memos and rules: the same addresses mean something else now.
    modules::next_generation();
    let mut node = capture(&caller, SLOT, &mut All);
    let _ = object(base as usize, &headers()).build_id();
    let mut frames = 0;
    while let Some(frame) = stacks::frame(node).filter(|_| node != 0) {
        frames += 1;
        node = frame.parent;
    }
    frames
}

/// A small number is a place in the region.
fn inside(number: u64, base: usize) -> usize {
    match number as usize {
        small @ 0..REGION => base.wrapping_add(small),
        large => large,
    }
}

/// The region's address; made and listed as a module at the first call.
fn base() -> Option<*mut u8> {
    let known = BASE.load(Relaxed);
    if !known.is_null() {
        return Some(known);
    }
    let made = memory::bump(REGION, PAGE)?.as_ptr();
    // SAFETY: the memory is of this size and new.
    fill(
        unsafe { core::slice::from_raw_parts_mut(made, REGION) },
        made as usize,
    );
    if !modules::pretend(&object(made as usize, &headers())) {
        return None;
    }
    start(Mode::Full, DEPTH, false);
    BASE.store(made, Relaxed);
    Some(made)
}

fn headers() -> [Elf64_Phdr; 3] {
    let header = |kind, at: usize, len: usize| Elf64_Phdr {
        p_type: kind,
        p_flags: libc::PF_R,
        p_offset: at as u64,
        p_vaddr: at as u64,
        p_paddr: at as u64,
        p_filesz: len as u64,
        p_memsz: len as u64,
        p_align: PAGE as u64,
    };
    [
        header(libc::PT_LOAD, 0, REGION),
        header(libc::PT_GNU_EH_FRAME, TABLE, PAGE),
        header(libc::PT_NOTE, NOTES, PAGE),
    ]
}

fn object(base: usize, headers: &[Elf64_Phdr]) -> Object<'_> {
    Object::new(base, headers)
}

/// Writes valid data.
fn fill(region: &mut [u8], base: usize) -> Lengths {
    region.fill(0);
    let mut frames = Writer {
        bytes: &mut region[FRAMES..NOTES],
        len: 0,
    };
    // Two common entries, "zR" and "zRS" (a signal's frame): addresses relative to themselves, 4 bytes.
    let mut commons = [0; 2];
    for (common, augmentation) in commons.iter_mut().zip([&b"zR\0"[..], b"zRS\0"]) {
        let code = [1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1];
        *common = frames.entry(0, &[&[1], augmentation, &code]);
    }
    let mut entries = [(0, 0); PROGRAMS.len()];
    for (number, program) in PROGRAMS.iter().enumerate() {
        let common = commons[usize::from(number == 4)];
        let code = number * SPAN;
        let at = frames.len;
        let start = (code as i32).wrapping_sub((FRAMES + at + 8) as i32);
        let [start, span] = [start, SPAN as i32].map(i32::to_le_bytes);
        frames.entry(at + 4 - common, &[&start, &span, &[0], program]);
        entries[number] = (code, FRAMES + at);
    }
    let frames = frames.len + 4;
    let mut table = Writer {
        bytes: &mut region[TABLE..FRAMES],
        len: 0,
    };
    // Version 1; relative addresses of 4 bytes, a plain count, addresses relative to the table.
    table.put(&[1, 0x1b, 0x03, 0x3b]);
    table.put(&((FRAMES - TABLE - 4) as u32).to_le_bytes());
    table.put(&(entries.len() as u32).to_le_bytes());
    for (code, entry) in entries {
        table.put(&(code as i32 - TABLE as i32).to_le_bytes());
        table.put(&(entry as i32 - TABLE as i32).to_le_bytes());
    }
    let table = table.len;
    // A note without meaning and a build id.
    let note = [4, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0];
    region[NOTES..NOTES + 16].copy_from_slice(&note);
    // Words that lead from frame to frame, and to places in the stack itself.
    for (number, word) in region[STACK..].chunks_exact_mut(8).enumerate() {
        let value = match number % 16 {
            // Where the third program finds its caller's frame.
            4 => base + STACK + 8 * number + 72,
            _ => base + (number + number / 16) % PROGRAMS.len() * SPAN + 16,
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
    Lengths { table, frames }
}

/// Writes one thing after the other.
struct Writer<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// An entry of `.eh_frame`: its length, its mark (0, or the way back to its common entry), its parts, padded to 8
    /// bytes by nops. Answers where it begins.
    fn entry(&mut self, mark: usize, parts: &[&[u8]]) -> usize {
        let at = self.len;
        self.put(&[0; 4]);
        self.put(&(mark as u32).to_le_bytes());
        for part in parts {
            self.put(part);
        }
        self.len = self.len.next_multiple_of(8);
        let len = (self.len - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
        at
    }
}
