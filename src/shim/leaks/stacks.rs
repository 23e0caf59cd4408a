//! Which parts of stacks are dead: below the stack pointers of threads, and whole stacks of threads that ended.
//!
//! glibc keeps the stacks of ended threads for the next ones, with all their old words. A stack is found by the
//! `struct pthread` at its upper end, which begins with its own address, twice, and holds where the stack begins and
//! how long it is.

use super::arrays::Zeroed;
use super::maps::{Kind, Maps};
use super::ranges::Ranges;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Where in a `struct pthread` the stack's place and length stand, at most.
const PTHREAD: usize = 0x900;
const PAGE: usize = 4096;
/// No thread's stack is smaller (PTHREAD_STACK_MIN).
pub(super) const SMALLEST: usize = 16 << 10;

/// One thread that lives, as far as it is known.
#[derive(Clone, Copy)]
pub(super) struct Alive {
    /// Address of its `struct pthread`; 0: unknown.
    pub(super) pointer: usize,
    /// Words below belong to nobody; 0: unknown.
    pub(super) live_from: usize,
}

// SAFETY: plain numbers.
unsafe impl Zeroed for Alive {}

/// Adds what lies below the stack pointers of living threads and the stacks of dead ones; no stack is looked for in
/// memspy's `own` memory. Answers false when a thread's stack pointer is not known and its stack counts as a whole.
pub(super) fn exclude_dead(
    maps: &Maps,
    own: &Ranges,
    not_roots: &mut Ranges,
    alive: &[Alive],
) -> bool {
    let mut known = true;
    for mapping in maps.list() {
        match mapping.kind {
            Kind::Stack => {
                for thread in alive {
                    let sp = thread.live_from;
                    if (mapping.from..mapping.to).contains(&sp) {
                        not_roots.add(mapping.from, sp);
                    }
                }
            }
            Kind::Anonymous if mapping.readable && mapping.writable && !mapping.shared => {
                let mut look = |at, word| {
                    if word == at as u64
                        && let Some((from, to)) = stack_of(maps, at)
                        && let Some(dead) = dead_part(from, to, at, alive, &mut known)
                    {
                        not_roots.add(from, dead);
                    }
                };
                own.each_rest(mapping.from, mapping.to, |from, to| {
                    maps.each_word_at(from, to, &mut look);
                });
            }
            _ => {}
        }
    }
    known && alive.iter().all(|thread| thread.live_from != 0)
}

/// Up to where the stack `from`..`to` under the `struct pthread` at `pthread` is dead.
fn dead_part(
    from: usize,
    to: usize,
    pthread: usize,
    alive: &[Alive],
    known: &mut bool,
) -> Option<usize> {
    let mut unknown = false;
    for thread in alive {
        let sp = thread.live_from;
        if (from..to).contains(&sp) {
            return Some(sp.min(pthread));
        }
        if thread.pointer == pthread {
            // It runs on another stack: what lies on this one, it will come back to.
            return None;
        }
        unknown |= thread.pointer == 0 && sp == 0;
    }
    if unknown {
        *known = false;
        return None;
    }
    // Its thread-local variables stay accessible, as Valgrind has it.
    Some(to.checked_sub(static_tls()?)?.clamp(from, pthread))
}

/// Start and end of the stack whose `struct pthread` may be at an address.
fn stack_of(maps: &Maps, at: usize) -> Option<(usize, usize)> {
    const SELF: usize = 16;
    if !at.is_multiple_of(64) || maps.load(at + SELF)? != at as u64 {
        return None;
    }
    let mapping = maps.at(at)?;
    let mut before = 0usize;
    for offset in (SELF..PTHREAD).step_by(8) {
        let word = maps.load(at + offset)? as usize;
        let end = before.checked_add(word).unwrap_or(0);
        if before != 0
            && before.is_multiple_of(PAGE)
            && before < at
            && end > at
            && end <= mapping.to
        {
            return Some((before.max(mapping.from), end));
        }
        before = word;
    }
    None
}

/// The loader's function that tells the size of the static thread-local storage; 0: it has none of that name.
static TLS_INFO: AtomicUsize = AtomicUsize::new(0);

/// Looks the function up. It is private to glibc, so the library must not need it.
#[cfg(not(test))]
pub(super) fn start() {
    let function = crate::elf::next_symbol(c"_dl_get_tls_static_info");
    TLS_INFO.store(function.unwrap_or(0), Relaxed);
}

/// Bytes at the upper end of each stack that thread-local variables and `struct pthread` take; `None`: unknown.
fn static_tls() -> Option<usize> {
    let function = TLS_INFO.load(Relaxed);
    if function == 0 {
        return None;
    }
    // SAFETY: the loader's function of this name has this type; sanitizers call it so. It only reads two numbers.
    let function: extern "C" fn(*mut usize, *mut usize) = unsafe { core::mem::transmute(function) };
    let (mut size, mut align) = (0, 0);
    function(&mut size, &mut align);
    Some(size)
}
