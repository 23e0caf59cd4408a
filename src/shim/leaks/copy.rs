//! The copy: a process that has the memory of the host as it was at one moment, judges it, and ends.
//!
//! It shares nothing with the host but one mapping for its result. It runs on a stack of its own (the host's may be
//! 16 KiB), calls no libc, runs no hook, and whatever happens to it happens to it alone.

use super::arrays;
use super::blocks::{Blocks, DIRECTORY, LEAF, LEAF_SHIFT, Room};
use super::glibc;
use super::group::{Group, Groups, Key, Kind};
use super::kernel;
use super::mappings::Mappings;
use super::maps::Maps;
use super::mark::Marker;
use super::ranges::Ranges;
use super::registers::{self, Caller};
use super::roots;
use super::stacks::{self, Alive};
use super::table::Table;
use super::threads::{RED_ZONE, Stopped};
use crate::image;
use crate::x86_64::thread_pointer;
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

const STACK: usize = 256 << 10;
/// memspy's own mappings, and what else there is few of.
const OWN_RANGES: usize = 1 << 13;

/// Why a verdict is not the whole truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Gap {
    /// There is none.
    None,
    /// The copy ended without a result.
    Died,
    /// The process could not be copied.
    Copy,
    /// No memory for the work of the check.
    Memory,
    /// /proc/self/maps could not be read.
    Maps,
    /// Live blocks that could not be noted, for want of memory.
    Lost,
    /// More groups than the report holds.
    Cut,
    /// The other threads could not be listed.
    Threads,
    /// A thread's stack pointer is not known.
    Stack,
    /// A thread ran on while the copy was made.
    Running,
    /// A block was being moved by a realloc.
    Moving,
}

impl Gap {
    const ALL: [Gap; 11] = [
        Gap::None,
        Gap::Died,
        Gap::Copy,
        Gap::Memory,
        Gap::Maps,
        Gap::Lost,
        Gap::Cut,
        Gap::Threads,
        Gap::Stack,
        Gap::Running,
        Gap::Moving,
    ];

    /// As it stands in the log.
    pub(crate) const fn text(self) -> Option<&'static str> {
        match self {
            Gap::None => None,
            Gap::Died => Some("the copy of the process ended without a result"),
            Gap::Copy => Some("the process could not be copied"),
            Gap::Memory => Some("there was no memory for the check"),
            Gap::Maps => Some("/proc/self/maps could not be read"),
            Gap::Lost => Some("some live blocks could not be noted"),
            Gap::Cut => Some("there were more groups than the report holds"),
            Gap::Threads => Some("the other threads could not be listed"),
            Gap::Stack => Some("a thread's stack pointer is not known"),
            Gap::Running => Some("a thread could not be stopped"),
            Gap::Moving => Some("a realloc was under way"),
        }
    }
}

/// What the copy hands back, in shared memory.
#[repr(C)]
pub(super) struct Findings {
    /// 1: the copy came to its end.
    done: AtomicU32,
    gap: AtomicU32,
    /// How long the host stood still, nanoseconds.
    pause_ns: AtomicU64,
    /// 1: what the copy was to do with its findings is done.
    written: AtomicU64,
    blocks: AtomicU64,
    bytes: AtomicU64,
    groups: AtomicU64,
    list: [[AtomicU64; 4]; GROUPS],
}

/// Groups that a report holds.
pub(super) const GROUPS: usize = 1 << 18;

impl Findings {
    /// The worst that is to be said against the verdict.
    pub(super) fn gap(&self) -> Gap {
        if self.done.load(Acquire) == 0 {
            return Gap::Died;
        }
        let gap = self.gap.load(Relaxed);
        *Gap::ALL.get(gap as usize).unwrap_or(&Gap::Died)
    }

    /// How long the host stood still, as far as it has said so.
    pub(super) fn pause_ns(&self) -> u64 {
        self.pause_ns.load(Relaxed)
    }

    /// Says how long the host stood still.
    pub(super) fn set_pause_ns(&self, pause_ns: u64) {
        self.pause_ns.store(pause_ns, Relaxed);
    }

    /// Whether the copy did what it was to do with its findings.
    pub(super) fn is_written(&self) -> bool {
        self.written.load(Acquire) != 0
    }

    fn note(&self, gap: Gap) {
        let now = self.gap.load(Relaxed);
        if now == 0 || now > gap as u32 {
            self.gap.store(gap as u32, Relaxed);
        }
    }

    /// Live blocks and their bytes.
    pub(super) fn live(&self) -> (u64, u64) {
        (self.blocks.load(Relaxed), self.bytes.load(Relaxed))
    }

    /// The groups.
    pub(super) fn groups(&self) -> impl ExactSizeIterator<Item = Group> {
        let len = self.groups.load(Relaxed) as usize;
        self.list
            .get(..len)
            .unwrap_or_default()
            .iter()
            .map(|[key, generation, blocks, bytes]| Group {
                key: Key {
                    kind: Kind::from_number((key.load(Relaxed) >> 32) as u32),
                    stack: key.load(Relaxed) as u32,
                    generation: generation.load(Relaxed) as u32,
                },
                blocks: blocks.load(Relaxed),
                bytes: bytes.load(Relaxed),
            })
    }
}

/// What the copy has to know.
pub(super) struct Task<'a> {
    pub(super) caller: Caller,
    pub(super) stopped: &'a Stopped,
    pub(super) blocks: &'static Table<7>,
    pub(super) mappings: &'static Mappings,
    /// What the program took from the break itself.
    pub(super) breaks: &'static Mappings,
    pub(super) findings: &'a Findings,
    /// What the copy does with its findings when nobody waits for them.
    pub(super) then: Option<&'a dyn Fn(&Findings)>,
}

/// The copy's whole life.
pub(super) fn live(task: &Task) -> ! {
    kernel::become_a_copy(task.then.is_none());
    let Some(stack) = arrays::zeroed::<u64>(STACK / 8) else {
        finish(task, Some(Gap::Memory));
    };
    let top = stack.as_mut_ptr_range().end as usize & !15;
    // SAFETY: the new stack is the copy's own; the old one, where `task` lies, stays as it is; nothing returns.
    unsafe {
        asm!(
            "mov rsp, {top}",
            "call {on}",
            "ud2",
            top = in(reg) top,
            on = sym on_own_stack,
            in("rdi") core::ptr::from_ref(task),
            options(noreturn),
        );
    }
}

extern "C" fn on_own_stack(task: *const Task) -> ! {
    // SAFETY: `live` passes a reference that outlives the copy.
    let task = unsafe { &*task };
    finish(task, judge(task).err());
}

fn finish(task: &Task, gap: Option<Gap>) -> ! {
    if let Some(gap) = gap {
        task.findings.note(gap);
    }
    task.findings.done.store(1, Release);
    if let Some(then) = task.then {
        image::speak_for_original();
        then(task.findings);
        task.findings.written.store(1, Release);
    }
    kernel::exit_group(0)
}

fn judge(task: &Task) -> Result<(), Gap> {
    let maps = Maps::read().ok_or(Gap::Maps)?;
    let heaps = heaps(task, &maps)?;
    let stacks = maps.pieces(stacks::SMALLEST);
    let most = task.blocks.bound() + maps.pieces(glibc::HEAP_ALIGN) + stacks + OWN_RANGES;
    let mut not_roots = Ranges::new(most).ok_or(Gap::Memory)?;
    heaps.add_to(&mut not_roots);
    let blocks = &mut gather(task, &maps, &heaps, &mut not_roots)?;
    exclude(task, &maps, &mut not_roots)?;
    let order = arrays::zeroed::<u32>(blocks.len()).ok_or(Gap::Memory)?;
    let mut marker = Marker::new(&maps, blocks, order);
    registers::of_caller(&maps, &task.caller, |word| marker.root(word));
    for thread in task.stopped.threads() {
        thread.each_register(|word| marker.root(word));
    }
    roots::each(&maps, &not_roots, |word| marker.root(word));
    marker.finish();
    report(task, &maps, blocks)
}

/// All blocks, from the table, in ascending order. Those that lie in no heap have a mapping of their own, which goes to
/// `not_roots`.
fn gather(
    task: &Task,
    maps: &Maps,
    heaps: &Ranges,
    not_roots: &mut Ranges,
) -> Result<Blocks<'static>, Gap> {
    // Two for each leaf of the table: a block may reach into the next.
    const { assert!(LEAF_SHIFT >= Table::<7>::LEAF_SHIFT) };
    let room = || {
        Some(Room {
            words: arrays::zeroed(task.blocks.bound())?,
            large: arrays::zeroed(task.blocks.bound())?,
            directory: arrays::zeroed(DIRECTORY)?,
            leaves: arrays::zeroed(2 * task.blocks.leaves() * LEAF)?,
        })
    };
    let mut blocks = Blocks::new(room().ok_or(Gap::Memory)?);
    let mut fits = true;
    let mut heap = (0, 0);
    let under_way = task.blocks.each(
        |page| maps.touched(page),
        |at, entry| {
            fits &= blocks.push(at, &entry).is_some();
            if at < heap.0 || at >= heap.1 {
                match heaps.at(at) {
                    Some(range) => heap = range,
                    None => {
                        let (from, to) =
                            glibc::own_mapping(maps, at).unwrap_or((at, at + entry.size));
                        not_roots.add(from, to);
                    }
                }
            }
        },
    );
    if under_way > 0 {
        task.findings.note(Gap::Moving);
    }
    if task.blocks.lost() > 0 {
        task.findings.note(Gap::Lost);
    }
    if fits { Ok(blocks) } else { Err(Gap::Memory) }
}

/// Where malloc's heaps lie.
fn heaps(task: &Task, maps: &Maps) -> Result<Ranges, Gap> {
    let mut breaks = Ranges::new(task.breaks.bound()).ok_or(Gap::Memory)?;
    task.breaks.each(
        |page| maps.touched(page),
        |at, entry| breaks.add(at, at + entry.size),
    );
    breaks.sort();
    let mut heaps = Ranges::new(maps.pieces(glibc::HEAP_ALIGN) + OWN_RANGES).ok_or(Gap::Memory)?;
    glibc::exclude_heaps(maps, &breaks, &mut heaps);
    heaps.sort();
    if heaps.is_full() || breaks.is_full() {
        return Err(Gap::Memory);
    }
    Ok(heaps)
}

/// Adds the rest of the memory that holds no reference of the program's.
fn exclude(task: &Task, maps: &Maps, not_roots: &mut Ranges) -> Result<(), Gap> {
    let mut own = Ranges::new(OWN_RANGES).ok_or(Gap::Memory)?;
    roots::exclude_own(maps, &mut own);
    let findings = core::ptr::from_ref(task.findings) as usize;
    own.add(findings, findings + size_of::<Findings>());
    own.sort();
    own.add_to(not_roots);
    if !task.stopped.listed {
        task.findings.note(Gap::Threads);
    }
    let alive = alive(task, maps).ok_or(Gap::Memory)?;
    if !stacks::exclude_dead(maps, &own, not_roots, alive) {
        task.findings.note(Gap::Stack);
    }
    not_roots.sort();
    if not_roots.is_full() || own.is_full() {
        return Err(Gap::Memory);
    }
    Ok(())
}

/// The caller and all other threads.
fn alive(task: &Task, maps: &Maps) -> Option<&'static [Alive]> {
    let alive = arrays::zeroed::<Alive>(1 + task.stopped.threads().count())?;
    let (caller, others) = alive.split_first_mut()?;
    *caller = Alive {
        pointer: thread_pointer(),
        live_from: registers::of_caller(maps, &task.caller, |_| {}),
    };
    for (slot, thread) in others.iter_mut().zip(task.stopped.threads()) {
        if !thread.is_parked() {
            task.findings.note(Gap::Running);
        }
        *slot = Alive {
            pointer: thread.pointer().unwrap_or(0),
            live_from: thread.sp().map_or(0, |sp| sp.saturating_sub(RED_ZONE)),
        };
    }
    Some(alive)
}

/// Adds the blocks up and hands the groups over.
fn report(task: &Task, maps: &Maps, blocks: &Blocks) -> Result<(), Gap> {
    let mut groups = Groups::new().ok_or(Gap::Memory)?;
    let (mut number, mut bytes, mut fits) = (0u32, 0u64, true);
    task.blocks.each(
        |page| maps.touched(page),
        |_, entry| {
            let key = Key {
                kind: blocks.state(number).into(),
                stack: entry.stack,
                generation: entry.generation,
            };
            fits &= groups.add(key, entry.size as u64).is_some();
            bytes = bytes.saturating_add(entry.size as u64);
            number += 1;
        },
    );
    task.mappings.each(
        |page| maps.touched(page),
        |_, entry| {
            let key = Key {
                kind: Kind::Mapping,
                stack: entry.stack,
                generation: entry.generation,
            };
            fits &= groups.add(key, entry.size as u64).is_some();
        },
    );
    let findings = task.findings;
    findings.blocks.store(u64::from(number), Relaxed);
    findings.bytes.store(bytes, Relaxed);
    for (group, slot) in groups.iter().zip(&findings.list) {
        let [key, generation, blocks, bytes] = slot;
        let kind = u64::from(group.key.kind as u32);
        key.store(kind << 32 | u64::from(group.key.stack), Relaxed);
        generation.store(u64::from(group.key.generation), Relaxed);
        blocks.store(group.blocks, Relaxed);
        bytes.store(group.bytes, Relaxed);
    }
    findings
        .groups
        .store(groups.len().min(GROUPS) as u64, Relaxed);
    if groups.len() > GROUPS {
        task.findings.note(Gap::Cut);
    }
    if fits { Ok(()) } else { Err(Gap::Memory) }
}
