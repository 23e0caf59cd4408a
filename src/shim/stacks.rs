//! The tree of call stacks: each distinct (caller's node, module, address, cut) has one number, from 1.
//!
//! One table for the image, insert-only, without locks: a node's line is in the log before its number can be found, so
//! after any death each number that was used is defined. Two threads that insert the same node at once may give it two
//! numbers; readers merge. Nothing is freed; beyond [`LIMIT`] nothing new is taken, and that is counted.

use crate::memory;
use crate::unwind::Cut;
use core::sync::atomic::{
    AtomicPtr, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// Bytes that stacks may take: nodes, buckets and the threads' memos.
pub(crate) const LIMIT: usize = 48 << 20;

/// Buckets of the first segment; each further one has eight times as many.
const FIRST_BUCKETS: usize = 1 << 10;
const SEGMENTS: usize = 4;
/// Nodes of the first chunk; each further one has twice as many.
const FIRST_NODES: usize = 1 << 10;
const CHUNKS: usize = 12;

/// What a node is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Number of the caller's node, 0: none.
    pub(crate) parent: u32,
    /// Number of the module, 0: none.
    pub(crate) module: u32,
    /// The return address.
    pub(crate) ip: usize,
    /// Why the callers of an outermost frame are not known; none: there are none.
    pub(crate) cut: Option<Cut>,
}

impl Frame {
    /// Module and cut in one word.
    fn place(&self) -> u32 {
        self.module << 2 | self.cut.map_or(0, |cut| cut as u32)
    }

    fn hash(&self) -> usize {
        let mixed = (self.ip ^ (self.parent as usize) << 24 ^ (self.place() as usize) << 48)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 32
    }
}

struct Node {
    ip: AtomicUsize,
    parent: AtomicU32,
    place: AtomicU32,
    /// The next node of the bucket.
    next: AtomicU32,
    /// The epoch in which the node's line was made.
    epoch: AtomicU32,
    /// The node below it that was asked for last: the likeliest to be asked for next.
    below: AtomicU32,
}

impl Node {
    fn is(&self, frame: &Frame) -> bool {
        self.ip.load(Relaxed) == frame.ip
            && self.parent.load(Relaxed) == frame.parent
            && self.place.load(Relaxed) == frame.place()
    }
}

static NODES: [AtomicPtr<Node>; CHUNKS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; CHUNKS];
/// A bucket: the number of its first node, and in its upper half a bit for each node's hash, so that most of what is
/// not there is known without a look at the nodes.
static BUCKETS: [AtomicPtr<AtomicU64>; SEGMENTS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; SEGMENTS];
static LAST: AtomicU32 = AtomicU32::new(0);
static EPOCH: AtomicU32 = AtomicU32::new(1);
static TAKEN: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Takes bytes from the allowance for stacks; false when there are not so many left.
pub(crate) fn may_take(bytes: usize) -> bool {
    let fits = TAKEN.fetch_add(bytes, Relaxed) + bytes <= LIMIT;
    if !fits {
        TAKEN.fetch_sub(bytes, Relaxed);
    }
    fits
}

/// Counts a stack that was not kept for want of memory.
pub(crate) fn refuse() {
    REFUSED.fetch_add(1, Relaxed);
}

/// Stacks that were not kept for want of memory.
pub(crate) fn refused() -> u64 {
    REFUSED.load(Relaxed)
}

/// Nodes that there are.
pub(crate) fn count() -> u32 {
    LAST.load(Relaxed)
}

/// The image's epoch: a number that a forked child changes, because its log defines what it uses anew.
pub(crate) fn epoch() -> u32 {
    EPOCH.load(Relaxed)
}

/// To be called in a forked child, while it has one thread: every node's line will be made again before its number is
/// used again, and every module's.
pub(crate) fn forked() {
    EPOCH.fetch_add(1, Relaxed);
    crate::modules::next_generation();
}

fn segment_len(segment: usize) -> usize {
    FIRST_BUCKETS << (3 * segment)
}

fn chunk_len(chunk: usize) -> usize {
    FIRST_NODES << chunk
}

/// The pages behind a slot, made if they are not there yet.
fn pages<T>(slot: &AtomicPtr<T>, len: usize) -> Option<*mut T> {
    let there = slot.load(Acquire);
    if !there.is_null() {
        return Some(there);
    }
    let bytes = len * size_of::<T>();
    if !may_take(bytes) {
        return None;
    }
    // The loser of a race leaves its pages unused: none of them is ever touched.
    let fresh = memory::map_pages(bytes)?.cast::<T>().as_ptr();
    match slot.compare_exchange(there, fresh, AcqRel, Acquire) {
        Ok(_) => Some(fresh),
        Err(other) => Some(other),
    }
}

/// Chunk and place of node `id`.
fn place(id: u32) -> Option<(usize, usize)> {
    let index = (id as usize).checked_sub(1)?;
    let chunk = (index / FIRST_NODES + 1).ilog2() as usize;
    (chunk < CHUNKS).then(|| (chunk, index - FIRST_NODES * ((1 << chunk) - 1)))
}

fn node(id: u32) -> Option<&'static Node> {
    let (chunk, index) = place(id)?;
    let nodes = NODES.get(chunk)?.load(Acquire);
    // SAFETY: a chunk has `chunk_len` nodes, which the index is below; zeroed memory is a node; chunks live for ever.
    (!nodes.is_null()).then(|| unsafe { &*nodes.add(index) })
}

fn bucket(segment: usize, hash: usize) -> Option<&'static AtomicU64> {
    let buckets = BUCKETS.get(segment)?.load(Acquire);
    // SAFETY: a segment has `segment_len` buckets, a power of two; segments live for ever.
    (!buckets.is_null()).then(|| unsafe { &*buckets.add(hash & (segment_len(segment) - 1)) })
}

/// What a number stands for.
pub(crate) fn frame(id: u32) -> Option<Frame> {
    let node = node(id)?;
    let place = node.place.load(Relaxed);
    Some(Frame {
        parent: node.parent.load(Relaxed),
        module: place >> 2,
        ip: node.ip.load(Relaxed),
        cut: Cut::from_code(place & 3),
    })
}

/// The number of a frame whose parent is defined already. `define` makes its line and answers whether it was kept; it
/// is called for a node that is new, or new in this epoch. 0: no room, or no line.
///
/// Hook-safe.
pub(crate) fn intern(frame: &Frame, mut define: impl FnMut(u32) -> bool) -> u32 {
    let epoch = epoch();
    let above = node(frame.parent);
    if let Some(above) = above {
        let id = above.below.load(Relaxed);
        if node(id).is_some_and(|node| node.is(frame) && node.epoch.load(Relaxed) == epoch) {
            return id;
        }
    }
    let id = look_up(frame, epoch, &mut define);
    if let Some(above) = above {
        above.below.store(id, Relaxed);
    }
    id
}

/// The bit that stands for a hash in the upper half of its bucket.
fn bit(hash: usize) -> u64 {
    1 << (32 + (hash >> 59))
}

fn look_up(frame: &Frame, epoch: u32, define: &mut dyn FnMut(u32) -> bool) -> u32 {
    let hash = frame.hash();
    for segment in (0..SEGMENTS).rev() {
        let Some(bucket) = bucket(segment, hash) else {
            continue;
        };
        let bucket = bucket.load(Acquire);
        if bucket & bit(hash) == 0 {
            continue;
        }
        if let Some((id, node)) = find(bucket as u32, 0, frame) {
            if node.epoch.load(Relaxed) != epoch {
                if !define(id) {
                    return 0;
                }
                node.epoch.store(epoch, Relaxed);
            }
            return id;
        }
    }
    insert(frame, hash, epoch, define).unwrap_or(0)
}

/// Looks through a bucket's nodes from `from` up to, not including, `to`.
fn find(from: u32, to: u32, frame: &Frame) -> Option<(u32, &'static Node)> {
    let mut id = from;
    while id != to {
        let node = node(id)?;
        if node.is(frame) {
            return Some((id, node));
        }
        id = node.next.load(Relaxed);
    }
    None
}

#[cold]
fn insert(
    frame: &Frame,
    hash: usize,
    epoch: u32,
    define: &mut dyn FnMut(u32) -> bool,
) -> Option<u32> {
    let segment = newest_segment()?;
    let bucket = bucket(segment, hash)?;
    let mut head = bucket.load(Acquire);
    if let Some((id, _)) = find(head as u32, 0, frame) {
        return Some(id);
    }
    let id = new_id()?;
    let node = node(id)?;
    node.ip.store(frame.ip, Relaxed);
    node.parent.store(frame.parent, Relaxed);
    node.place.store(frame.place(), Relaxed);
    node.epoch.store(epoch, Relaxed);
    if !define(id) {
        return None;
    }
    loop {
        node.next.store(head as u32, Relaxed);
        let new = (head >> 32 << 32) | bit(hash) | u64::from(id);
        match bucket.compare_exchange(head, new, AcqRel, Acquire) {
            Ok(_) => return Some(id),
            Err(now) => {
                if let Some((id, _)) = find(now as u32, head as u32, frame) {
                    return Some(id);
                }
                head = now;
            }
        }
    }
}

/// A number whose node has memory.
fn new_id() -> Option<u32> {
    let (chunk, _) = place(LAST.load(Relaxed) + 1)?;
    pages(NODES.get(chunk)?, chunk_len(chunk))?;
    let id = LAST.fetch_add(1, Relaxed) + 1;
    let (chunk, _) = place(id)?;
    pages(NODES.get(chunk)?, chunk_len(chunk))?;
    Some(id)
}

/// The segment for new nodes: one more when there are two nodes for each bucket.
fn newest_segment() -> Option<usize> {
    let count = LAST.load(Relaxed) as usize;
    let wanted = (0..SEGMENTS)
        .find(|i| count < 2 * segment_len(*i))
        .unwrap_or(SEGMENTS - 1);
    (0..=wanted)
        .rev()
        .find(|segment| pages(&BUCKETS[*segment], segment_len(*segment)).is_some())
}

#[cfg(test)]
mod tests {
    use super::{Frame, epoch, frame, intern, place};
    use crate::unwind::Cut;

    fn a_frame(parent: u32, ip: usize) -> Frame {
        Frame {
            parent,
            module: 1,
            ip,
            cut: None,
        }
    }

    #[test]
    fn places_of_numbers_follow_each_other() {
        assert_eq!(place(0), None);
        assert_eq!(place(1), Some((0, 0)));
        assert_eq!(place(1024), Some((0, 1023)));
        assert_eq!(place(1025), Some((1, 0)));
        assert_eq!(place(3072), Some((1, 2047)));
        assert_eq!(place(3073), Some((2, 0)));
        assert_eq!(place(u32::MAX), None);
    }

    #[test]
    fn a_frame_is_defined_once_and_keeps_its_number() {
        let wanted = Frame {
            parent: 0,
            module: 7,
            ip: 0xabc_0001,
            cut: Some(Cut::Depth),
        };
        let mut defined = Vec::new();
        let mut define = |id| {
            defined.push(id);
            true
        };
        let id = intern(&wanted, &mut define);
        assert_ne!(id, 0);
        assert_eq!(intern(&wanted, &mut define), id);
        assert_eq!(defined, [id]);
        assert_eq!(frame(id), Some(wanted));
        let other = Frame {
            cut: None,
            ..wanted
        };
        assert_ne!(intern(&other, |_| true), id);
    }

    #[test]
    fn a_number_whose_line_is_lost_is_not_given_out() {
        let wanted = a_frame(0, 0xabc_0002);
        assert_eq!(intern(&wanted, |_| false), 0);
        let mut calls = 0;
        let id = intern(&wanted, |_| {
            calls += 1;
            true
        });
        assert_ne!(id, 0);
        assert_eq!(calls, 1);
    }

    #[test]
    fn a_hundred_thousand_nodes_from_four_threads_are_found_again() {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    (1..=100_000usize)
                        .map(|i| intern(&a_frame((i / 3) as u32, i * 16), |_| true))
                        .collect::<Vec<u32>>()
                })
            })
            .collect();
        let numbers: Vec<Vec<u32>> = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect();
        for ids in &numbers {
            for (i, id) in ids.iter().enumerate() {
                let i = i + 1;
                assert_eq!(frame(*id), Some(a_frame((i / 3) as u32, i * 16)));
            }
        }
        let again = intern(&a_frame(100, 300 * 16), |_| panic!("defined twice"));
        assert!(numbers.iter().any(|ids| ids[299] == again));
        assert_ne!(epoch(), 0);
    }
}
