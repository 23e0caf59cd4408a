//! Pointers into the middle of a block that are as good as one to its start: the four cases that Valgrind's manual
//! gives under --leak-check-heuristics.

use super::mark::Memory;

const WORD: usize = size_of::<u64>();
/// Words of a table of virtual functions that are looked at.
const VTABLE_WORDS: usize = 20;
/// Code pointers that make a table of virtual functions.
const VTABLE_FUNCTIONS: usize = 2;

/// Whether `at`, inside the block of `size` bytes at `from`, is a place that programs keep instead of the start.
pub(super) fn stands_for_start(memory: &impl Memory, at: usize, from: usize, size: usize) -> bool {
    if size < 2 * WORD || !from.is_multiple_of(WORD) {
        return false;
    }
    let offset = at - from;
    match offset {
        WORD if length64(memory, from, size) || new_array(memory, from, size) => true,
        _ if offset == 3 * WORD && std_string(memory, from, size) => true,
        _ => multiple_inheritance(memory, at, from, size),
    }
}

/// The reference-counted std::string: length, capacity, count of references, then the characters and a NUL.
fn std_string(memory: &impl Memory, from: usize, size: usize) -> bool {
    let length = memory.word(from);
    let capacity = memory.word(from + WORD);
    length <= capacity && capacity.checked_add(3 * WORD as u64 + 1) == Some(size as u64)
}

/// A block that begins with the number of bytes that follow (sqlite, and others).
fn length64(memory: &impl Memory, from: usize, size: usize) -> bool {
    memory.word(from) == (size - WORD) as u64
}

/// new[] of a class with a destructor: the number of elements comes first.
fn new_array(memory: &impl Memory, from: usize, size: usize) -> bool {
    let elements = memory.word(from);
    elements > 0 && ((size - WORD) as u64).is_multiple_of(elements)
}

/// A pointer to a later base of an object: it points to a table of virtual functions, and the object begins with one.
fn multiple_inheritance(memory: &impl Memory, at: usize, from: usize, size: usize) -> bool {
    at.is_multiple_of(WORD)
        && at - from + WORD <= size
        && vtable(memory, memory.word(from))
        && vtable(memory, memory.word(at))
}

fn vtable(memory: &impl Memory, at: u64) -> bool {
    let at = at as usize;
    if !at.is_multiple_of(WORD) || !memory.is_module(at) {
        return false;
    }
    let mut functions = 0;
    for i in 0..VTABLE_WORDS {
        let at = at + i * WORD;
        if !memory.is_module(at) {
            return false;
        }
        match memory.word(at) as usize {
            0 => {}
            function if memory.is_code(function) => functions += 1,
            _ => return false,
        }
        if functions == VTABLE_FUNCTIONS {
            return true;
        }
    }
    false
}
