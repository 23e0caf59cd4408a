//! Kernel calls and their reasons in plain sentences.

use std::mem::{Discriminant, discriminant};

use memspy_analysis::event::What;
use memspy_analysis::space::{Asked, Chapter, Reason};
use memspy_log::Op;

use crate::amount::{bytes, count};

const PAGE: u64 = 4096;

/// The kernel call as a line: `mmap 0x7f…, 136.0 KiB`.
pub(super) fn call(chapter: &Chapter) -> String {
    let text = match &chapter.call {
        What::Mmap(call) if chapter.err.is_none() => {
            format!(
                "mmap {}: {:#x}, {}",
                pages(call.size),
                call.addr,
                mmap_words(call.prot, call.flags, call.fd)
            )
        }
        What::Mmap(call) => format!("mmap {}", pages(call.size)),
        What::Munmap(range) => format!("munmap {:#x}, {}", range.addr, pages(range.size)),
        What::Mremap(call) => format!(
            "mremap {:#x}, {} to {}: {:#x}",
            call.old,
            pages(call.old_size),
            pages(call.size),
            call.addr
        ),
        What::Mprotect { range, prot } => format!(
            "mprotect {:#x}, {}: {}",
            range.addr,
            pages(range.size),
            protection(*prot)
        ),
        What::Brk(call) => {
            let moved = call.to.abs_diff(call.from);
            let way = if call.to < call.from { "down" } else { "up" };
            format!(
                "{} {way} by {}: {:#x} to {:#x}",
                chapter.op.name(),
                pages(moved),
                call.from,
                call.to
            )
        }
        What::Arena(arena) => format!(
            "thread arena's heap {:#x}, now {}",
            arena.base,
            bytes(arena.size)
        ),
        _ => chapter.op.name().to_string(),
    };
    match chapter.err {
        Some(err) => format!("{text} failed with {err}"),
        None => text,
    }
}

/// Bytes, with the number of pages where there are few.
fn pages(size: u64) -> String {
    match size.div_ceil(PAGE) {
        1 => format!("{} (1 page)", bytes(size)),
        number => format!("{} ({} pages)", bytes(size), count(number)),
    }
}

fn protection(prot: u32) -> String {
    let mut words = Vec::new();
    for (bit, word) in [
        (libc::PROT_READ, "read"),
        (libc::PROT_WRITE, "write"),
        (libc::PROT_EXEC, "execute"),
    ] {
        if prot & bit as u32 != 0 {
            words.push(word);
        }
    }
    if words.is_empty() {
        return "no access".to_string();
    }
    words.join(" and ")
}

fn mmap_words(prot: u32, flags: u32, fd: i32) -> String {
    let mut words = vec![protection(prot)];
    let has = |bit: i32| flags & bit as u32 != 0;
    // MAP_SHARED_VALIDATE has both bits.
    words.push(
        if has(libc::MAP_SHARED) {
            "shared"
        } else {
            "private"
        }
        .to_string(),
    );
    words.push(if has(libc::MAP_ANONYMOUS) {
        "anonymous".to_string()
    } else {
        format!("file descriptor {fd}")
    });
    for (bit, word) in [
        (libc::MAP_FIXED, "at this address, over whatever was there"),
        (libc::MAP_FIXED_NOREPLACE, "at this address if it is free"),
        (libc::MAP_NORESERVE, "not counted against the memory limit"),
        (libc::MAP_STACK, "for a stack"),
        (libc::MAP_POPULATE, "with its pages at once"),
        (libc::MAP_HUGETLB, "huge pages"),
        (libc::MAP_GROWSDOWN, "growing downwards"),
        (libc::MAP_LOCKED, "locked in memory"),
    ] {
        if has(bit) {
            words.push(word.to_string());
        }
    }
    words.join(", ")
}

/// What the program asked for: `aligned_alloc(4096, 131072)`.
pub(super) fn asked(asked: &Asked) -> String {
    let size = asked.bytes;
    match asked.op {
        Op::Free | Op::FreeSized | Op::FreeAlignedSized => {
            format!("{}({:#x})", asked.op.name(), asked.block)
        }
        Op::AlignedAlloc | Op::Memalign | Op::PosixMemalign => {
            format!("{}({}, {size})", asked.op.name(), asked.align)
        }
        Op::Calloc => format!("calloc of {size} bytes"),
        Op::Realloc | Op::Reallocarray => format!("{} to {size} bytes", asked.op.name()),
        _ => format!("{}({size})", asked.op.name()),
    }
}

/// What the paragraph about a call rests on: two calls of which this is equal need it only once.
pub(super) fn rule(chapter: &Chapter) -> (Discriminant<Reason>, &'static str) {
    let more = match chapter.reason {
        Reason::Mapped { .. } => of_mapped(chapter),
        _ => "",
    };
    (discriminant(&chapter.reason), more)
}

/// Why glibc chose a call, after the same rule was told at the entry `before`.
pub(super) fn why_again(chapter: &Chapter, before: usize) -> String {
    match chapter.reason {
        Reason::TopTooSmall { chunk } => {
            format!(
                "No free chunk holds {} bytes: as in {before}.",
                count(chunk)
            )
        }
        Reason::Mapped { chunk, threshold } => format!(
            "A chunk of {} bytes reaches the mmap threshold of {}: as in {before}.",
            count(chunk),
            bytes(threshold)
        ),
        Reason::Unmapped {
            moved: Some((from, to)),
            ..
        } => format!(
            "As in {before}; the mmap threshold rises from {} to {} ({} bytes).",
            bytes(from),
            bytes(to),
            count(to)
        ),
        Reason::ArenaMade { number } => format!("As in {before}; number {number} in this process."),
        _ => format!("As in {before}."),
    }
}

/// Why glibc chose calls like this one, of which there are several with other sizes.
pub(super) fn why_several(first: &Chapter) -> String {
    match first.reason {
        Reason::TopTooSmall { .. } => "No free chunk held what was asked for, and the rest at the top of the heap was too \
                                       small. The break moves by the chunk plus 32 plus 128 KiB in advance (M_TOP_PAD), \
                                       less that rest, rounded up to pages."
            .to_string(),
        Reason::OtherGrowth { .. } => "The chunks did not fit. The break moved by other amounts than malloc's usual rule \
                                       (chunk + 32 + 128 KiB - rest) gives: somebody else had moved it, or M_TOP_PAD was \
                                       changed."
            .to_string(),
        Reason::Mapped { .. } => format!(
            "Each chunk reaches the mmap threshold of its time, and no free chunk holds it: each block gets a mapping of \
             its own, a header and the rounding to pages included. None lies in [heap].{}",
            of_mapped(first)
        ),
        Reason::MappedBelow { .. } => "The chunks are below the mmap threshold that follows from this log, and got \
                                       mappings all the same: the threshold was lowered (mallopt, \
                                       MALLOC_MMAP_THRESHOLD_), or the heap could not grow."
            .to_string(),
        Reason::Unmapped { .. } => "The blocks had mappings of their own, and free gives those back at once. Their chunks \
                                    do not raise the mmap threshold."
            .to_string(),
        Reason::Left => "The blocks had mappings of their own; realloc copied them elsewhere and gave the mappings back."
            .to_string(),
        Reason::Trimmed { .. } => "After each of these more than the trim threshold was free at the top of the heap: \
                                   malloc gives back all but 128 KiB of it."
            .to_string(),
        _ => why(first),
    }
}

/// Why glibc chose this call.
pub(super) fn why(chapter: &Chapter) -> String {
    match chapter.reason {
        Reason::FirstHeap { chunk } => format!(
            "malloc had no heap segment yet. It moves the break by what it needs (a chunk of {} bytes, or 656 for \
             the thread's block cache, which comes first) plus 32, plus 128 KiB in advance (M_TOP_PAD), rounded up to \
             pages, so that the next calls need no system call: even malloc(1) takes 33 pages.",
            count(chunk)
        ),
        Reason::TopTooSmall { chunk } => format!(
            "No free chunk holds {} bytes, and the rest at the top of the heap is too small. The break moves by \
             the chunk plus 32 plus 128 KiB in advance (M_TOP_PAD), less that rest, rounded up to pages.",
            count(chunk)
        ),
        Reason::OtherGrowth { chunk } => format!(
            "The chunk of {} bytes did not fit. The break moved by another amount than malloc's usual rule \
             (chunk + 32 + 128 KiB - rest) gives: somebody else had moved it, or M_TOP_PAD was changed.",
            count(chunk)
        ),
        Reason::Mapped { chunk, threshold } => mapped(chapter, chunk, threshold),
        Reason::MappedBelow { chunk, threshold } => format!(
            "The chunk of {} bytes is below the mmap threshold of {} that follows from this log, and got a \
             mapping all the same: the threshold was lowered (mallopt, MALLOC_MMAP_THRESHOLD_), or the heap could not \
             grow.",
            count(chunk),
            bytes(threshold)
        ),
        Reason::Unmapped { chunk, moved } => unmapped(chunk, moved),
        Reason::Left => "The block had a mapping of its own; realloc copied it elsewhere and gave the mapping back.".to_string(),
        Reason::Remapped => "The block has a mapping of its own, so realloc lets the kernel change its size: pages move \
                             by their entries in the page table, no byte is copied."
            .to_string(),
        Reason::Trimmed { threshold } => format!(
            "After this free more than {} (the trim threshold) was free at the top of the heap: malloc gives back all \
             but 128 KiB of it.",
            bytes(threshold)
        ),
        Reason::ArenaMade { number } => format!(
            "The thread gets arena memory of its own, so that it need not wait for the others' locks: number {number} \
             in this process (glibc makes up to 8 arenas for each processor, then they are shared). 64 MiB of address \
             space are reserved with mmap, of which the first pages may be used."
        ),
        Reason::ArenaGrew => "The chunk did not fit: more pages of the reserved 64 MiB are made usable (mprotect, not \
                              brk), only as many as needed: thread arenas get nothing in advance."
            .to_string(),
        Reason::ArenaShrank => "The top of the arena's heap was free: its pages go back to the kernel, the address \
                                space stays reserved."
            .to_string(),
        Reason::Program => "The program, or a library, made this call itself: malloc has nothing to do with it.".to_string(),
        Reason::SeveralThreads => "Made inside malloc or free; several threads were in there at that time, so that the one \
                                   call behind it is not known."
            .to_string(),
        Reason::NoCause => "Made inside the allocator; the call behind it is not in the log.".to_string(),
    }
}

/// What else is so of a block with a mapping, by the function that asked for it.
fn of_mapped(chapter: &Chapter) -> &'static str {
    match chapter.asked.map(|asked| asked.op) {
        Some(Op::Calloc) => " The kernel gives zeroed pages, so calloc clears nothing.",
        Some(Op::AlignedAlloc | Op::Memalign | Op::PosixMemalign) => {
            " The chunk is larger than the block by the alignment, so that an aligned address lies inside."
        }
        _ => "",
    }
}

fn mapped(chapter: &Chapter, chunk: u64, threshold: u64) -> String {
    let more = of_mapped(chapter);
    format!(
        "A chunk of {} bytes reaches the mmap threshold of {}, and no free chunk holds it: the block gets a mapping of \
         its own, a header and the rounding to pages included. It does not lie in [heap].{more}",
        count(chunk),
        bytes(threshold)
    )
}

fn unmapped(chunk: u64, moved: Option<(u64, u64)>) -> String {
    let back = "The block had a mapping of its own, and free gives that back at once.";
    match moved {
        Some((before, after)) => format!(
            "{back} It also raises the mmap threshold from {} to {} ({} bytes) and the trim threshold to twice that: a \
             program that frees such blocks will ask for more of them, and from the heap they cost no system call.",
            bytes(before),
            bytes(after),
            count(after)
        ),
        None => format!(
            "{back} Its chunk of {} bytes does not raise the mmap threshold.",
            count(chunk)
        ),
    }
}
