//! Why each kernel call was made: the call of the program behind it, and glibc's rule.
//!
//! An inferred call stands beside its cause: an acquiring one before it, a releasing one after it.
//! The rules are those of glibc's malloc with its defaults; a call that does not follow them is
//! reported as such, never explained by guess.

use super::glibc::{HEADER, Thresholds, aligned_request, chunk, top_growth};
use crate::event::{Address, ArenaChange, StackId, Via, What};
use crate::log::Log;
use crate::merge::{Half, Step};
use crate::model::{Change, Memory};
use crate::replay::Visitor;
use memspy_log::Op;
use rustc_hash::FxHashMap;
use std::mem::discriminant;

/// Chapters that are kept; what comes later is counted.
const MOST_CHAPTERS: usize = 10_000;
/// How many lines of one thread may stand between a kernel call and its cause (stack lines).
const MOST_BETWEEN: u64 = 4096;
/// The chunk of a thread's block cache, which the first malloc makes before its own.
const TCACHE_CHUNK: u64 = 0x290;

/// What a program asked of malloc or free.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// The function.
    pub op: Op,
    /// Bytes asked for, 0 for free.
    pub bytes: u64,
    /// The alignment asked for, 0 for none.
    pub align: u64,
    /// The block given out or back, 0 for none.
    pub block: Address,
}

/// Why a kernel call was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// malloc had no heap segment yet.
    FirstHeap {
        /// Bytes of the chunk that was asked for.
        chunk: u64,
    },
    /// No free chunk was large enough, the rest at the top neither.
    TopTooSmall {
        /// Bytes of the chunk that was asked for.
        chunk: u64,
    },
    /// The break moved by another amount than malloc's rule gives.
    OtherGrowth {
        /// Bytes of the chunk that was asked for.
        chunk: u64,
    },
    /// The request reached the mmap threshold.
    Mapped {
        /// Bytes of the chunk that was asked for.
        chunk: u64,
        /// The threshold then.
        threshold: u64,
    },
    /// The request was below the mmap threshold, and still got a mapping.
    MappedBelow {
        /// Bytes of the chunk that was asked for.
        chunk: u64,
        /// The threshold then.
        threshold: u64,
    },
    /// The freed block had a mapping of its own.
    Unmapped {
        /// Bytes of its chunk.
        chunk: u64,
        /// The mmap threshold before and after, where free moved it.
        moved: Option<(u64, u64)>,
    },
    /// realloc left a mapping for another place.
    Left,
    /// realloc changed the size of a mapping.
    Remapped,
    /// More than the trim threshold was free at the top.
    Trimmed {
        /// The threshold then.
        threshold: u64,
    },
    /// A thread got an arena, or an arena another heap.
    ArenaMade {
        /// Which of its arena it is, from 1.
        number: u64,
    },
    /// A thread arena's heap became larger.
    ArenaGrew,
    /// A thread arena's heap gave pages back.
    ArenaShrank,
    /// The program asked the kernel itself.
    Program,
    /// Inside the allocator, in which of several threads is not known.
    SeveralThreads,
    /// No call of the log stands beside it.
    NoCause,
}

/// One kernel call, or a run of equal ones.
#[derive(Clone, Debug)]
pub struct Chapter {
    /// When, nanoseconds since the image started; of a run, the first.
    pub t: u64,
    /// Of a run, when the last was.
    pub until: u64,
    /// memspy's number of the thread.
    pub thread: u32,
    /// The kernel call, as the log has it (of a run, the first).
    pub call: What,
    /// Its op.
    pub op: Op,
    /// Why it failed, if it did.
    pub err: Option<crate::event::Errno>,
    /// The libc function inside which it was made.
    pub via: Option<Via>,
    /// The call stack.
    pub stack: StackId,
    /// What the program asked for.
    pub asked: Option<Asked>,
    /// Why.
    pub reason: Reason,
    /// How many equal ones this stands for.
    pub times: u64,
    /// By how much they changed the mapped bytes, all together.
    pub bytes: i64,
    n: u64,
}

/// All kernel calls of a log with their reasons.
#[derive(Debug, Default)]
pub struct Story {
    /// The calls in the order of time.
    pub chapters: Vec<Chapter>,
    /// Kernel calls that are not among the chapters, because there were too many.
    pub left_out: u64,
    thresholds: Thresholds,
    arenas: u64,
    arena_sizes: FxHashMap<Address, u64>,
    has_heap: bool,
    page: u64,
    /// Of each thread its last call that gave memory back.
    last: FxHashMap<u32, (u64, Asked)>,
    /// Of each thread a chapter that waits for its cause.
    waiting: FxHashMap<u32, Chapter>,
}

impl Visitor for Story {
    fn begin(&mut self, log: &Log, memory: &Memory) {
        self.page = log.start().map_or(4096, |start| start.page.max(1));
        self.has_heap = memory.mappings.brk().is_some();
    }

    #[inline]
    fn step(&mut self, step: &Step, _: &Change, _: &Memory) {
        match &step.event.what {
            What::Free(call) => {
                let asked = Asked {
                    op: step.event.op,
                    bytes: 0,
                    align: 0,
                    block: call.ptr,
                };
                self.last.insert(step.thread, (step.n, asked));
            }
            What::Alloc(call) if !self.waiting.is_empty() => {
                let asked = Asked {
                    op: step.event.op,
                    bytes: call.bytes(),
                    align: call.align,
                    block: call.ptr,
                };
                self.caused(step, asked);
            }
            What::Realloc(call) => {
                let asked = Asked {
                    op: step.event.op,
                    bytes: call.bytes(),
                    align: 0,
                    block: call.ptr,
                };
                if step.half != Half::Acquire {
                    let block = call.old;
                    self.last
                        .insert(step.thread, (step.n, Asked { block, ..asked }));
                }
                if step.half != Half::Release {
                    self.caused(step, asked);
                }
            }
            What::Alloc(_) => {}
            What::Mmap(_)
            | What::Munmap(_)
            | What::Mremap(_)
            | What::Mprotect { .. }
            | What::Brk(_)
            | What::Arena(_)
                if step.half.is_last() =>
            {
                self.kernel_call(step);
            }
            _ => {}
        }
    }
}

impl Story {
    /// The mmap threshold at the end of what was read.
    pub fn mmap_threshold(&self) -> u64 {
        self.thresholds.mmap
    }

    /// The trim threshold at the end of what was read.
    pub fn trim_threshold(&self) -> u64 {
        self.thresholds.trim
    }

    /// Takes in the chapters that still wait. Call it after the last event.
    pub fn finish(&mut self) {
        let mut left: Vec<Chapter> = self.waiting.drain().map(|(_, chapter)| chapter).collect();
        left.sort_by_key(|chapter| chapter.t);
        for mut chapter in left {
            chapter.reason = Reason::NoCause;
            self.push(chapter);
        }
        self.chapters.sort_by_key(|chapter| chapter.t);
    }

    fn kernel_call(&mut self, step: &Step) {
        let event = step.event;
        let mut chapter = Chapter {
            t: step.time,
            until: step.time,
            thread: step.thread,
            call: event.what.clone(),
            op: event.op,
            err: event.err,
            via: event.via,
            stack: event.stack,
            asked: None,
            reason: Reason::Program,
            times: 1,
            bytes: 0,
            n: step.n,
        };
        if event.err.is_none() {
            chapter.bytes = self.growth(&event.what);
        }
        let releases = match &event.what {
            What::Munmap(_) => true,
            What::Brk(call) => call.to < call.from,
            _ => false,
        };
        match event.via {
            None => self.push(chapter),
            Some(_) if matches!(event.what, What::Arena(_)) => self.arena(chapter),
            Some(Via::Several) => {
                if matches!(event.what, What::Brk(_)) {
                    self.has_heap = true;
                }
                chapter.reason = Reason::SeveralThreads;
                self.push(chapter);
            }
            Some(_) if releases => self.release(chapter),
            Some(_) => {
                if let Some(mut left) = self.waiting.insert(step.thread, chapter) {
                    left.reason = Reason::NoCause;
                    self.push(left);
                }
            }
        }
    }

    /// By how much a call changes the mapped bytes.
    fn growth(&self, call: &What) -> i64 {
        let pages = |size: u64| size.checked_next_multiple_of(self.page).unwrap_or(size) as i64;
        match call {
            What::Mmap(call) => pages(call.size),
            What::Munmap(range) => pages(range.size).wrapping_neg(),
            What::Mremap(call) => pages(call.size).wrapping_sub(pages(call.old_size)),
            What::Brk(call) => call.to.wrapping_sub(call.from) as i64,
            What::Arena(arena) => {
                let before = self.arena_sizes.get(&arena.base).copied().unwrap_or(0);
                arena.size.wrapping_sub(before) as i64
            }
            _ => 0,
        }
    }

    fn arena(&mut self, mut chapter: Chapter) {
        if let What::Arena(arena) = chapter.call {
            self.arena_sizes.insert(arena.base, arena.size);
            chapter.reason = match arena.change {
                ArenaChange::Made => {
                    self.arenas += 1;
                    Reason::ArenaMade {
                        number: self.arenas,
                    }
                }
                ArenaChange::Grown => Reason::ArenaGrew,
                ArenaChange::Shrunk | ArenaChange::Other => Reason::ArenaShrank,
            };
        }
        self.push(chapter);
    }

    /// A call inside free or realloc gives address space back; its cause stands before it.
    fn release(&mut self, mut chapter: Chapter) {
        let cause = self.last.get(&chapter.thread).copied();
        let near = |n: u64| chapter.n.wrapping_sub(n) <= MOST_BETWEEN;
        chapter.asked = cause.filter(|(n, _)| near(*n)).map(|(_, asked)| asked);
        chapter.reason = match (&chapter.call, chapter.asked) {
            (What::Brk(_), _) => Reason::Trimmed {
                threshold: self.thresholds.trim,
            },
            (What::Munmap(range), Some(asked)) if asked.op == Op::Free => {
                let before = self.thresholds.mmap;
                let slack = (asked.block - HEADER.min(asked.block)).saturating_sub(range.addr);
                let chunk = range.size.saturating_sub(slack);
                let moves = self.thresholds.freed_mapping(chunk);
                Reason::Unmapped {
                    chunk,
                    moved: moves.then_some((before, self.thresholds.mmap)),
                }
            }
            (What::Munmap(_), Some(_)) => Reason::Left,
            _ => Reason::NoCause,
        };
        self.push(chapter);
    }

    /// The allocator call that made a thread's waiting kernel call.
    fn caused(&mut self, step: &Step, asked: Asked) {
        let Some(mut chapter) = self.waiting.remove(&step.thread) else {
            return;
        };
        chapter.asked = Some(asked);
        let request = match asked.align {
            0 => chunk(asked.bytes),
            align => aligned_request(asked.bytes, align),
        };
        let threshold = self.thresholds.mmap;
        chapter.reason = match &chapter.call {
            What::Brk(call) => {
                let moved = call.to.saturating_sub(call.from);
                let first = !std::mem::replace(&mut self.has_heap, true);
                self.of_growth(request, moved, first)
            }
            What::Mmap(_) if request >= threshold => Reason::Mapped {
                chunk: request,
                threshold,
            },
            What::Mmap(_) => Reason::MappedBelow {
                chunk: request,
                threshold,
            },
            What::Mremap(_) => Reason::Remapped,
            _ => Reason::NoCause,
        };
        self.push(chapter);
    }

    fn of_growth(&self, chunk: u64, moved: u64, first: bool) -> Reason {
        let page = self.page;
        if first {
            let by_rule = [chunk, TCACHE_CHUNK]
                .iter()
                .any(|chunk| top_growth(*chunk, 0, page) == moved);
            return if by_rule {
                Reason::FirstHeap { chunk }
            } else {
                Reason::OtherGrowth { chunk }
            };
        }
        // The rest at the top is anything that was too small.
        let most = top_growth(chunk, 0, page);
        let least = top_growth(chunk, chunk.saturating_add(32), page);
        if (least..=most).contains(&moved) {
            Reason::TopTooSmall { chunk }
        } else {
            Reason::OtherGrowth { chunk }
        }
    }

    fn push(&mut self, chapter: Chapter) {
        if let Some(last) = self.chapters.last_mut()
            && is_more_of(last, &chapter)
        {
            last.times += 1;
            last.until = chapter.t;
            last.bytes = last.bytes.saturating_add(chapter.bytes);
            return;
        }
        if self.chapters.len() == MOST_CHAPTERS {
            self.left_out += 1;
        } else {
            self.chapters.push(chapter);
        }
    }
}

/// Whether a chapter tells the same as the one before it.
fn is_more_of(last: &Chapter, next: &Chapter) -> bool {
    let told = (next.op, next.via, next.thread, next.err);
    let moves = |reason| matches!(reason, Reason::Unmapped { moved: Some(_), .. });
    let repeats = matches!(next.reason, Reason::ArenaGrew | Reason::ArenaShrank);
    (last.op, last.via, last.thread, last.err) == told
        && discriminant(&last.reason) == discriminant(&next.reason)
        && !moves(last.reason)
        && !moves(next.reason)
        && !matches!(next.reason, Reason::ArenaMade { .. })
        && (repeats || last.stack == next.stack)
}
