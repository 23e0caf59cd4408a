//! The exact list of mappings, kept by the calls that change it.
//!
//! Rules are mmap(2)'s, mremap(2)'s and brk(2)'s. Neighbours are kept apart by who made them, while
//! the kernel merges them: compare page by page, not line by line.

use super::perms::Perms;
use crate::event::{
    Address, Arena, ArenaChange, Brk, Errno, Map, Mmap, Mremap, Range, StackId, Via, What,
};
use crate::merge::{Half, Step};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes that glibc reserves for a heap of a thread arena, aligned to itself (HEAP_MAX_SIZE).
pub(super) const ARENA_HEAP: u64 = 64 << 20;

const NO_MEMORY: Errno = Errno(libc::ENOMEM as u16);

/// How much of a mapping is in memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// All of it.
    pub all: u64,
    /// What no other process maps.
    pub private: u64,
    /// What was changed, or has no file.
    pub dirty: u64,
}

/// Who made a piece of the address space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Maker {
    /// It was there when recording began.
    Start,
    /// The snapshot of this number found it; no call of the log made it.
    Found(u32),
    /// A call of the program, or of libc where `via` says so.
    Call {
        /// The libc function inside which it was made; `None`: the program's own call.
        via: Option<Via>,
        /// When, nanoseconds since the image started.
        t: u64,
        /// The call stack.
        stack: StackId,
        /// memspy's number of the thread.
        thread: u32,
        /// Whether the program asked for a file.
        file: bool,
    },
    /// A move of the break.
    Break,
    /// The heap of a thread arena that begins at this address.
    Arena(Address),
}

/// A run of pages that one maker made and that have the same permissions.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// First byte behind it.
    pub end: Address,
    /// Its permissions.
    pub perms: Perms,
    /// The file or the kernel's word for it; empty for anonymous memory and for files whose name
    /// only the next snapshot tells.
    pub path: Arc<[u8]>,
    /// Whether bytes of a file (or shared anonymous memory, a file to the kernel) lie there.
    pub file: bool,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// The file's inode, 0 where unknown.
    pub inode: u64,
    /// Whether it is memspy's own.
    pub own: bool,
    /// Who made it.
    pub maker: Maker,
    /// What was in memory at the last snapshot; `None` where nobody knows.
    pub resident: Option<Resident>,
}

impl Piece {
    /// The part from `from` to `to` of a piece that begins at `at`.
    pub(super) fn part(&self, at: Address, from: Address, to: Address) -> Piece {
        Piece {
            end: to,
            offset: if self.file {
                self.offset.wrapping_add(from - at)
            } else {
                0
            },
            resident: self.resident.filter(|_| (from, to) == (at, self.end)),
            ..self.clone()
        }
    }
}

/// What an mremap took away and will put down: the old address, the new one, the pieces.
type Lifted = (Address, Address, Vec<(Address, Piece)>);

/// The pieces, without overlaps, by their first byte.
#[derive(Clone, Debug)]
pub struct Layout {
    page: u64,
    pieces: BTreeMap<Address, Piece>,
    lifted: Vec<Lifted>,
}

impl Layout {
    /// An empty layout with pages of this size; what is no power of two is taken as 4096.
    pub fn new(page: u64) -> Layout {
        Layout {
            page: if page.is_power_of_two() { page } else { 4096 },
            pieces: BTreeMap::new(),
            lifted: Vec::new(),
        }
    }

    /// All pieces by their first byte.
    pub fn iter(&self) -> impl Iterator<Item = (Address, &Piece)> {
        self.pieces.iter().map(|(from, piece)| (*from, piece))
    }

    /// The piece that contains an address, with its first byte.
    pub fn at(&self, address: Address) -> Option<(Address, &Piece)> {
        let (from, piece) = self.pieces.range(..=address).next_back()?;
        (address < piece.end).then_some((*from, piece))
    }

    /// Takes a step of the log; answers the range that it touched.
    pub(super) fn apply(&mut self, step: &Step) -> Option<(Address, Address)> {
        if let Some(err) = step.event.err {
            return match &step.event.what {
                What::Mprotect { range, prot } if err == NO_MEMORY => {
                    self.protect_up_to_a_gap(range, *prot)
                }
                _ => None,
            };
        }
        match &step.event.what {
            What::Mmap(call) => self.mmap(step, call),
            What::Munmap(range) => self.munmap(range),
            What::Mremap(call) if step.half == Half::Release => self.lift(call),
            What::Mremap(call) => self.put_down(step, call),
            What::Mprotect { range, prot } => self.protect(range, *prot),
            What::Brk(call) => self.brk(call),
            What::Arena(arena) => self.arena(arena),
            _ => None,
        }
    }

    fn round(&self, address: Address) -> Address {
        address
            .checked_next_multiple_of(self.page)
            .unwrap_or(u64::MAX - self.page + 1)
    }

    fn mmap(&mut self, step: &Step, call: &Mmap) -> Option<(Address, Address)> {
        let mut size = call.size;
        if call.flags & libc::MAP_HUGETLB as u32 != 0 {
            size = size.checked_next_multiple_of(2 << 20).unwrap_or(size);
        }
        let end = self.round(call.addr.saturating_add(size));
        self.cut(call.addr, end);
        if step.half == Half::Release || end <= call.addr {
            return Some((call.addr, end));
        }
        let perms = Perms::from_call(call.prot, call.flags);
        let anonymous = call.flags & libc::MAP_ANONYMOUS as u32 != 0;
        let piece = Piece {
            end,
            perms,
            path: Arc::default(),
            file: !anonymous || perms.shared,
            offset: if anonymous { 0 } else { call.offset },
            inode: 0,
            own: false,
            maker: Maker::Call {
                via: step.event.via,
                t: step.time,
                stack: step.event.stack,
                thread: step.thread,
                file: !anonymous,
            },
            resident: None,
        };
        self.pieces.insert(call.addr, piece);
        Some((call.addr, end))
    }

    fn munmap(&mut self, range: &Range) -> Option<(Address, Address)> {
        let end = self.round(range.addr.saturating_add(range.size));
        self.cut(range.addr, end);
        Some((range.addr, end))
    }

    fn protect(&mut self, range: &Range, prot: u32) -> Option<(Address, Address)> {
        let end = self.round(range.addr.saturating_add(range.size));
        for (from, piece) in self.cut(range.addr, end) {
            let perms = piece.perms.with_prot(prot);
            self.pieces.insert(from, Piece { perms, ..piece });
        }
        Some((range.addr, end))
    }

    /// An mprotect(2) that met a gap has changed the pages before it.
    fn protect_up_to_a_gap(&mut self, range: &Range, prot: u32) -> Option<(Address, Address)> {
        let end = self.round(range.addr.saturating_add(range.size));
        let mut gap = range.addr;
        while gap < end
            && let Some((_, piece)) = self.at(gap)
        {
            gap = piece.end;
        }
        let changed = Range {
            addr: range.addr,
            size: gap.min(end).saturating_sub(range.addr),
        };
        self.protect(&changed, prot)
    }

    fn lift(&mut self, call: &Mremap) -> Option<(Address, Address)> {
        let end = self.round(call.old.saturating_add(call.old_size));
        // An old size of 0 makes a second mapping of the same pages and leaves the first.
        let stays = call.old_size == 0 || call.flags & libc::MREMAP_DONTUNMAP as u32 != 0;
        let pieces = if stays {
            let one = self.at(call.old).map(|(from, piece)| {
                let mut piece = piece.clone();
                piece.offset = piece.offset.wrapping_add(call.old - from);
                (call.old, piece)
            });
            one.into_iter().collect()
        } else {
            self.cut(call.old, end)
        };
        self.lifted.push((call.old, call.addr, pieces));
        Some((call.old, end))
    }

    fn put_down(&mut self, step: &Step, call: &Mremap) -> Option<(Address, Address)> {
        let key = |entry: &(Address, u64, Vec<_>)| entry.0 == call.old && entry.1 == call.addr;
        let lifted = self.lifted.iter().position(key);
        let pieces = lifted.map(|at| self.lifted.swap_remove(at).2)?;
        let end = self.round(call.addr.saturating_add(call.size));
        self.cut(call.addr, end);
        let last = pieces.len().checked_sub(1)?;
        for (number, (from, piece)) in pieces.into_iter().enumerate() {
            let to = call.addr.saturating_add(from - call.old);
            let old_end = call.addr.saturating_add(piece.end.saturating_sub(call.old));
            // The last one takes what is new; what lies beyond a smaller size is gone.
            let piece_end = if number == last {
                end
            } else {
                old_end.min(end)
            };
            if to < piece_end {
                let maker = match piece.maker {
                    Maker::Call { file, .. } => Maker::Call {
                        via: step.event.via,
                        t: step.time,
                        stack: step.event.stack,
                        thread: step.thread,
                        file,
                    },
                    other => other,
                };
                let moved = Piece {
                    end: piece_end,
                    maker,
                    resident: None,
                    ..piece
                };
                self.pieces.insert(to, moved);
            }
        }
        Some((call.addr, end))
    }

    fn brk(&mut self, call: &Brk) -> Option<(Address, Address)> {
        let (from, to) = (self.round(call.from), self.round(call.to));
        if to <= from {
            self.cut(to, from);
            return Some((to, from));
        }
        self.cut(from, to);
        self.pieces.insert(from, heap_piece(to, Maker::Break));
        Some((from, to))
    }

    fn arena(&mut self, arena: &Arena) -> Option<(Address, Address)> {
        let end = arena.base.saturating_add(ARENA_HEAP);
        if arena.change == ArenaChange::Other {
            self.cut(arena.base, end);
            return Some((arena.base, end));
        }
        // A heap that shrinks gives pages back but keeps them writable.
        let writable = self
            .at(arena.base)
            .filter(|(_, piece)| piece.maker == Maker::Arena(arena.base) && piece.perms.write)
            .map_or(0, |(from, piece)| piece.end - from);
        let size = self.round(arena.size).max(writable).min(ARENA_HEAP);
        let split = arena.base.saturating_add(size);
        self.cut(arena.base, end);
        let mut piece = heap_piece(split, Maker::Arena(arena.base));
        piece.path = Arc::default();
        self.pieces.insert(arena.base, piece.clone());
        if split < end {
            piece.end = end;
            piece.perms = Perms::default();
            self.pieces.insert(split, piece);
        }
        Some((arena.base, end))
    }

    /// Takes out of a range what a snapshot found there without access and not known from any call.
    pub(super) fn forget_without_access(&mut self, start: Address, end: Address) {
        for (from, piece) in self.cut(start, end) {
            let unknown = matches!(piece.maker, Maker::Found(_)) && !piece.file && !piece.own;
            if !unknown || piece.perms != Perms::default() {
                self.pieces.insert(from, piece);
            }
        }
    }

    /// Takes a range out and answers what was in it; pieces that reach beyond it keep the rest.
    fn cut(&mut self, start: Address, end: Address) -> Vec<(Address, Piece)> {
        let first = self.at(start).map_or(start, |(from, _)| from);
        if first >= end {
            return Vec::new();
        }
        let hit: Vec<Address> = self
            .pieces
            .range(first..end)
            .map(|(from, _)| *from)
            .collect();
        let mut inside = Vec::with_capacity(hit.len());
        for from in hit {
            let Some(piece) = self.pieces.remove(&from) else {
                continue;
            };
            if from < start {
                self.pieces.insert(from, piece.part(from, from, start));
            }
            let (at, to) = (from.max(start), piece.end.min(end));
            inside.push((at, piece.part(from, at, to)));
            if piece.end > end {
                self.pieces.insert(end, piece.part(from, end, piece.end));
            }
        }
        inside
    }

    /// Puts a range of a snapshot down.
    pub(super) fn put(&mut self, from: Address, to: Address, map: &Map, maker: Maker) {
        self.cut(from, to);
        let whole = (from, to) == (map.from, map.to);
        let resident = map.rss.filter(|_| whole).map(|all| Resident {
            all,
            private: map.private.unwrap_or(0),
            dirty: map.dirty.unwrap_or(0),
        });
        let piece = Piece {
            end: to,
            perms: Perms::from_letters(&map.perms),
            path: Arc::from(&map.path[..]),
            file: map.inode != 0,
            offset: if map.inode == 0 {
                0
            } else {
                map.offset.wrapping_add(from - map.from)
            },
            inode: map.inode,
            own: map.own,
            maker,
            resident,
        };
        self.pieces.insert(from, piece);
    }

    /// Puts a piece down: what a forked child has from its parent, or what is known better than by a snapshot.
    pub(super) fn put_piece(&mut self, from: Address, piece: Piece) {
        self.cut(from, piece.end);
        if from < piece.end {
            self.pieces.insert(from, piece);
        }
    }
}

/// Anonymous memory of malloc's.
pub(super) fn heap_piece(end: Address, maker: Maker) -> Piece {
    Piece {
        end,
        perms: Perms::from_letters("rw-p"),
        path: Arc::from(&b"[heap]"[..]),
        file: false,
        offset: 0,
        inode: 0,
        own: false,
        maker,
        resident: None,
    }
}
