//! The books between snapshots: calls change the layout, each snapshot checks it.

use super::cause::{Cause, Difference, Evidence};
use super::layout::{ARENA_HEAP, Layout, Maker, Piece, heap_piece};
use super::perms::Perms;
use crate::event::{Address, ArenaChange, Map, Snapshot, What};
use crate::log::Log;
use crate::merge::Step;
use crate::model::{Change, Memory};
use crate::replay::Visitor;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// How a snapshot compares with the calls before it.
#[derive(Clone, Debug)]
pub struct Account {
    /// The snapshot's number.
    pub snapshot: u32,
    /// `start`, `exit`, `thread`, `request`.
    pub when: Box<str>,
    /// When it had been taken, nanoseconds since the image started.
    pub t: u64,
    /// Bytes that are mapped, memspy's own included.
    pub mapped: u64,
    /// Bytes that are in memory; `None` when the snapshot does not say.
    pub resident: Option<u64>,
    /// RLIMIT_STACK then.
    pub stack_limit: Option<u64>,
    /// The thread that took it, the kernel's number.
    pub tid: u32,
    /// What differs; of the first snapshot nothing, it is the beginning.
    pub differences: Vec<Difference>,
}

impl Account {
    /// How many ranges and how many bytes each cause accounts for, in the order in which the causes first occur.
    pub fn by_cause(&self) -> Vec<(Cause, usize, u64)> {
        let mut totals: Vec<(Cause, usize, u64)> = Vec::new();
        for difference in &self.differences {
            let at = totals
                .iter()
                .position(|(cause, ..)| *cause == difference.cause)
                .unwrap_or_else(|| {
                    totals.push((difference.cause, 0, 0));
                    totals.len() - 1
                });
            if let Some((_, ranges, bytes)) = totals.get_mut(at) {
                *ranges += 1;
                *bytes += difference.to - difference.from;
            }
        }
        totals
    }

    /// The differences that nobody can explain.
    pub fn unexplained(&self) -> impl Iterator<Item = &Difference> {
        let unexplained = |difference: &&Difference| difference.cause == Cause::Unexplained;
        self.differences.iter().filter(unexplained)
    }
}

/// The address space of a log, as far as it has been read.
#[derive(Debug)]
pub struct Space {
    /// The pieces now.
    pub layout: Layout,
    /// The snapshots so far.
    pub accounts: Vec<Account>,
    /// Of each thread with a known one, an address on its stack; the latest last.
    pub stacks: Vec<(u32, Address)>,
    glibc: bool,
    coming: Option<Coming>,
    /// The last calls, oldest first: those that fell into the time in which a snapshot was taken matter to it.
    recent: VecDeque<Recent>,
    /// What the last snapshot found without access and not known from any call: what libc is about to make.
    bare: Vec<(Address, Address)>,
    /// Of each thread (the kernel's number) its last event, if that gave address space back.
    releases: FxHashMap<u32, (Address, Address)>,
}

/// How many calls are kept for a snapshot that is being taken. One is done within a millisecond or a few; when more
/// calls than these fell into its time, what the oldest changed is told by the snapshot alone.
const RECENT: usize = 1 << 14;

/// A snapshot of which not every line has been read.
#[derive(Debug)]
struct Coming {
    head: Snapshot,
    tid: u32,
    /// When the kernel was first asked.
    since: u64,
    maps: Vec<Map>,
}

/// What a line tells of the address space, and when.
#[derive(Debug)]
struct Recent {
    t: u64,
    what: Touch,
}

#[derive(Clone, Copy, Debug)]
enum Touch {
    /// A call changed this range.
    Range(Address, Address),
    /// This thread (the kernel's number) has something of libc's ready.
    Made(u32, Made),
}

/// What libc makes in several steps, of which the log has one line at the end.
#[derive(Clone, Copy, Debug)]
enum Made {
    /// A stack with this address on it: pthread_create(3) maps it without access, and opens it then.
    Stack(Address),
    /// The heap of a thread arena at this address: to get an aligned one, malloc reserves twice its size without access,
    /// and gives back what lies before and behind it.
    Heap(Address),
}

impl Default for Space {
    fn default() -> Self {
        Space {
            layout: Layout::new(4096),
            accounts: Vec::new(),
            stacks: Vec::new(),
            glibc: true,
            coming: None,
            recent: VecDeque::new(),
            bare: Vec::new(),
            releases: FxHashMap::default(),
        }
    }
}

impl Visitor for Space {
    fn begin(&mut self, log: &Log, memory: &Memory) {
        let start = log.start();
        self.layout = Layout::new(start.map_or(0, |start| start.page));
        self.glibc = start.is_none_or(|start| &start.allocator[..] == b"glibc");
        self.inherit(memory);
    }

    #[inline(always)]
    fn step(&mut self, step: &Step, _: &Change, memory: &Memory) {
        match &step.event.what {
            What::Alloc(_) | What::Free(_) | What::Realloc(_) => {
                // Only where a release of this thread may still be under way.
                if !self.releases.is_empty() {
                    self.releases.remove(&step.event.tid);
                }
            }
            _ => self.rare(step, memory),
        }
    }
}

impl Space {
    fn rare(&mut self, step: &Step, memory: &Memory) {
        let tid = step.event.tid;
        match &step.event.what {
            What::Snapshot(head) => {
                self.coming = Some(Coming {
                    head: (**head).clone(),
                    tid,
                    since: step.event.t,
                    maps: Vec::new(),
                });
            }
            What::Map(map) => self.map(map, step.time, memory),
            What::Thread { thread, sp, .. } if *sp != 0 => {
                self.stacks.push((*thread, *sp));
                self.touch(step, Touch::Made(tid, Made::Stack(*sp)));
            }
            what => {
                self.releases.remove(&tid);
                if let Some((from, to)) = self.layout.apply(step) {
                    self.touch(step, Touch::Range(from, to));
                    let release = matches!(what, What::Munmap(_) | What::Brk(_))
                        || step.half == crate::merge::Half::Release;
                    if release {
                        self.releases.insert(tid, (from, to));
                    }
                }
                if let What::Arena(arena) = what
                    && arena.change == ArenaChange::Made
                {
                    self.touch(step, Touch::Made(tid, Made::Heap(arena.base)));
                }
            }
        }
    }

    /// What a line tells may have been met half done by the last snapshot, and by the one that is being taken.
    fn touch(&mut self, step: &Step, what: Touch) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Recent { t: step.time, what });
        match what {
            Touch::Range(from, to) => self.resolve(step.event.tid, from, to),
            Touch::Made(tid, made) => self.made(tid, made),
        }
    }

    /// A thread's line tells that something is ready, of which a snapshot may have met the making.
    fn made(&mut self, tid: u32, made: Made) {
        let (Made::Stack(inside) | Made::Heap(inside)) = made;
        let met = |range: &&(Address, Address)| range.0 <= inside && inside < range.1;
        let Some(&(mut from, mut to)) = self.bare.iter().find(met) else {
            return;
        };
        if let Made::Heap(base) = made {
            from = from.max(base.saturating_sub(ARENA_HEAP));
            to = to.clamp(
                base.saturating_add(ARENA_HEAP),
                from.saturating_add(2 * ARENA_HEAP),
            );
            self.layout.forget_without_access(from, to);
        }
        self.resolve(tid, from, to);
    }

    /// What a forked child has from its parent.
    fn inherit(&mut self, memory: &Memory) {
        for (from, mapping) in memory.mappings.iter() {
            let perms = Perms::from_call(mapping.prot, mapping.flags);
            let anonymous = mapping.fd < 0;
            let piece = Piece {
                end: mapping.end,
                perms,
                path: Arc::default(),
                file: !anonymous || perms.shared,
                offset: mapping.offset,
                inode: 0,
                own: false,
                maker: Maker::Call {
                    via: mapping.via,
                    t: 0,
                    stack: 0,
                    thread: mapping.thread,
                    file: !anonymous,
                },
                resident: None,
            };
            self.layout.put_piece(from, piece);
        }
        if let Some(brk) = memory.mappings.brk() {
            let heap = heap_piece(brk.now, Maker::Break);
            self.layout.put_piece(brk.first, heap);
        }
        for arena in memory.mappings.arenas() {
            let piece = heap_piece(
                arena.base.saturating_add(arena.size),
                Maker::Arena(arena.base),
            );
            self.layout.put_piece(arena.base, piece);
        }
    }

    fn map(&mut self, map: &Map, t: u64, memory: &Memory) {
        let Some(coming) = &mut self.coming else {
            return;
        };
        if map.snapshot != coming.head.id {
            return;
        }
        coming.maps.push(map.clone());
        if coming.maps.len() as u64 == coming.head.maps
            && let Some(coming) = self.coming.take()
        {
            // Nobody knows whether the kernel wrote its list before or after these.
            let meanwhile = |recent: &Recent| recent.t >= coming.since;
            let mut touched = Vec::new();
            let mut made = Vec::new();
            for recent in std::mem::take(&mut self.recent)
                .into_iter()
                .rev()
                .take_while(meanwhile)
            {
                match recent.what {
                    Touch::Range(from, to) => touched.push((from, to)),
                    Touch::Made(tid, what) => made.push((tid, what)),
                }
            }
            self.settle(&coming, &touched, t, memory);
            for (tid, what) in made {
                self.made(tid, what);
            }
        }
    }

    /// Compares the layout with a snapshot, and makes the snapshot the layout, but for what was touched meanwhile: there
    /// the calls know the end.
    fn settle(&mut self, coming: &Coming, touched: &[(Address, Address)], t: u64, memory: &Memory) {
        let Coming {
            head, tid, maps, ..
        } = coming;
        let first = self.accounts.is_empty();
        let evidence = Evidence {
            memory,
            maps,
            stacks: &self.stacks,
            glibc: self.glibc,
            making: head.making,
        };
        let mut runs: Vec<(Address, Address, &Map, Maker)> = Vec::new();
        let mut differences: Vec<Difference> = Vec::new();
        let mut kept: Vec<(Address, Piece)> = Vec::new();
        self.bare.clear();
        for (from, to, piece, map) in side_by_side(&self.layout, maps, touched) {
            let same = matches!((piece, map), (Some((at, piece)), Some(map)) if agree(at, piece, from, map));
            let inside = |(start, end): &(Address, Address)| *start <= from && to <= *end;
            let meanwhile = !same && !first && touched.iter().any(inside);
            if meanwhile {
                kept.extend(piece.map(|(at, piece)| (from, piece.part(at, from, to))));
            } else if let Some(map) = map {
                let maker = match piece {
                    // Other permissions do not change who made it.
                    Some((_, piece)) if same || is_call(piece.maker) => piece.maker,
                    _ if first => Maker::Start,
                    _ => Maker::Found(head.id),
                };
                match runs.last_mut() {
                    Some((_, end, last, by)) if std::ptr::eq(*last, map) && *by == maker => {
                        *end = to;
                    }
                    _ => runs.push((from, to, map, maker)),
                }
            }
            if same || first {
                continue;
            }
            if let Some(map) = map.filter(|map| is_bare(map))
                && self.bare.last() != Some(&(map.from, map.to))
            {
                self.bare.push((map.from, map.to));
            }
            let mut cause = if meanwhile {
                Cause::UnderWay
            } else {
                evidence.cause((from, to), piece.map(|(_, piece)| piece), map)
            };
            if cause == Cause::Unexplained && piece.is_none() && self.being_released(*tid, from, to)
            {
                cause = Cause::UnderWay;
            }
            let difference = Difference {
                from,
                to,
                expected: piece.is_some(),
                found: map.is_some(),
                cause,
            };
            match differences.last_mut() {
                Some(last) if last.goes_on_with(&difference) => last.to = to,
                _ => differences.push(difference),
            }
        }
        self.layout = Layout::new(memory.mappings.page());
        for (from, to, map, maker) in runs {
            self.layout.put(from, to, map, maker);
        }
        for (from, piece) in kept {
            self.layout.put_piece(from, piece);
        }
        self.accounts.push(Account {
            snapshot: head.id,
            when: head.when.clone(),
            t,
            mapped: maps.iter().fold(0, |all, map| {
                all.saturating_add(map.to.saturating_sub(map.from))
            }),
            resident: maps
                .iter()
                .try_fold(0u64, |all, map| Some(all.saturating_add(map.rss?))),
            stack_limit: head.stack_limit,
            tid: *tid,
            differences,
        });
    }

    /// Whether the last that another thread than `tid` did is to give this range back.
    fn being_released(&self, tid: u32, from: Address, to: Address) -> bool {
        self.releases
            .iter()
            .any(|(thread, (start, end))| *thread != tid && *start <= from && to <= *end)
    }

    /// A thread touches a range: what the last snapshot, taken by another thread, had met there half done is explained
    /// now. The kernel merges neighbours, so that one difference may be of several calls.
    fn resolve(&mut self, tid: u32, from: Address, to: Address) {
        let Some(account) = self.accounts.last_mut() else {
            return;
        };
        if account.tid == tid || account.unexplained().next().is_none() {
            return;
        }
        let parts = |difference: Difference| {
            let (start, end) = (difference.from.max(from), difference.to.min(to));
            let part = |from, to, cause| Difference {
                from,
                to,
                cause,
                ..difference
            };
            let parts = if difference.cause == Cause::Unexplained && start < end {
                [
                    part(difference.from, start, Cause::Unexplained),
                    part(start, end, Cause::UnderWay),
                    part(end, difference.to, Cause::Unexplained),
                ]
            } else {
                let none = part(difference.to, difference.to, difference.cause);
                [difference, none, none]
            };
            parts.into_iter().filter(|part| part.from < part.to)
        };
        let parts = account.differences.drain(..).flat_map(parts);
        let mut joined: Vec<Difference> = Vec::new();
        for part in parts {
            match joined.last_mut() {
                Some(last) if last.goes_on_with(&part) => last.to = part.to,
                _ => joined.push(part),
            }
        }
        account.differences = joined;
    }
}

/// Whether a line of a snapshot is anonymous memory without access, as libc reserves it.
fn is_bare(map: &Map) -> bool {
    map.inode == 0
        && !map.own
        && map.path.is_empty()
        && Perms::from_letters(&map.perms) == Perms::default()
}

fn is_call(maker: Maker) -> bool {
    !matches!(maker, Maker::Start | Maker::Found(_))
}

/// Whether a piece that begins at `at` is, from `from` on, what the kernel has there.
fn agree(at: Address, piece: &Piece, from: Address, map: &Map) -> bool {
    let file = map.inode != 0;
    let names =
        piece.path.is_empty() || !file || trim_deleted(&piece.path) == trim_deleted(&map.path);
    piece.perms == Perms::from_letters(&map.perms)
        && piece.own == map.own
        && piece.file == file
        && names
        && (!file
            || piece.offset.wrapping_add(from - at) == map.offset.wrapping_add(from - map.from))
}

/// A path without the kernel's note that the file is gone.
fn trim_deleted(path: &[u8]) -> &[u8] {
    path.strip_suffix(b" (deleted)").unwrap_or(path)
}

/// Ranges in which neither list changes and which lie in or outside each of `cuts`, with what each list has there.
type Side<'l, 'm> = (
    Address,
    Address,
    Option<(Address, &'l Piece)>,
    Option<&'m Map>,
);

fn side_by_side<'l, 'm>(
    layout: &'l Layout,
    maps: &'m [Map],
    cuts: &[(Address, Address)],
) -> Vec<Side<'l, 'm>> {
    let mut borders: Vec<Address> = layout
        .iter()
        .flat_map(|(from, piece)| [from, piece.end])
        .chain(maps.iter().flat_map(|map| [map.from, map.to]))
        .chain(cuts.iter().flat_map(|(from, to)| [*from, *to]))
        .collect();
    borders.sort_unstable();
    borders.dedup();
    let mut sides = Vec::new();
    let mut next = 0;
    for pair in borders.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        while maps.get(next).is_some_and(|map| map.to <= from) {
            next += 1;
        }
        let map = maps.get(next).filter(|map| map.from <= from);
        let piece = layout.at(from);
        if piece.is_some() || map.is_some() {
            sides.push((from, to, piece, map));
        }
    }
    sides
}
