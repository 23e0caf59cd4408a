//! Why the kernel's list of mappings differs from what the recorded calls make of it.

use super::kind::is_memspy;
use super::layout::{ARENA_HEAP, Maker, Piece};
use super::perms::Perms;
use crate::event::{Address, Map};
use crate::model::{Memory, Modules};

/// A range in which a snapshot and the calls before it differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// First byte.
    pub from: Address,
    /// First byte behind it.
    pub to: Address,
    /// Whether the calls say that something is mapped there.
    pub expected: bool,
    /// Whether the snapshot has something there.
    pub found: bool,
    /// Why.
    pub cause: Cause,
}

impl Difference {
    /// Whether `next` is the same difference, directly behind this one.
    pub(super) fn goes_on_with(&self, next: &Difference) -> bool {
        let same = |one: &Difference| (one.cause, one.expected, one.found);
        self.to == next.from && same(self) == same(next)
    }
}

/// Who changed the address space without a call that memspy sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The loader: a library that dlopen mapped, or made read-only after relocation.
    Loader,
    /// The loader: a library that dlclose unmapped.
    Unloaded,
    /// libc: files of the locale or of character conversion.
    Locale,
    /// pthread_create: a stack and its guard, also one that libc keeps or has given back.
    ThreadStack,
    /// malloc: the heap of a thread arena.
    Arena,
    /// The break moved outside the allocator calls (malloc_trim).
    Break,
    /// The kernel: the main stack grew.
    StackGrew,
    /// The kernel: vdso and its kind.
    Kernel,
    /// memspy itself.
    Memspy,
    /// Another thread's call was under way while the snapshot was taken.
    UnderWay,
    /// An allocator other than glibc's.
    Allocator,
    /// Nobody knows.
    Unexplained,
}

impl Cause {
    /// The cause in a few words.
    pub fn words(self) -> &'static str {
        match self {
            Cause::Loader => "the loader mapped a library (dlopen)",
            Cause::Unloaded => "the loader unmapped a library (dlclose)",
            Cause::Locale => "libc mapped a locale or conversion file",
            Cause::ThreadStack => "libc made or gave back a thread's stack (pthread_create)",
            Cause::Arena => "malloc changed the heap of a thread arena",
            Cause::Break => "libc moved the break outside malloc and free",
            Cause::StackGrew => "the kernel let the main stack grow",
            Cause::Kernel => "the kernel's own page",
            Cause::Memspy => "memspy's own memory",
            Cause::UnderWay => "a call of another thread was under way",
            Cause::Allocator => "the program's own allocator",
            Cause::Unexplained => "unexplained",
        }
    }

    /// A word for machines.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Loader => "loader",
            Cause::Unloaded => "unloaded",
            Cause::Locale => "locale",
            Cause::ThreadStack => "thread_stack",
            Cause::Arena => "arena",
            Cause::Break => "break",
            Cause::StackGrew => "stack_grew",
            Cause::Kernel => "kernel",
            Cause::Memspy => "memspy",
            Cause::UnderWay => "under_way",
            Cause::Allocator => "allocator",
            Cause::Unexplained => "unexplained",
        }
    }
}

/// What is known when a difference is judged.
pub(super) struct Evidence<'a> {
    /// The loaded objects and the arenas.
    pub(super) memory: &'a Memory,
    /// The snapshot.
    pub(super) maps: &'a [Map],
    /// Addresses on threads' stacks.
    pub(super) stacks: &'a [(u32, Address)],
    /// Whether malloc is glibc's.
    pub(super) glibc: bool,
    /// Bytes of memspy's own mappings that were in the making.
    pub(super) making: u64,
}

impl Evidence<'_> {
    /// Judges the range `from`..`to` that is mapped as `expected` by the calls and as `found` by the kernel.
    pub(super) fn cause(
        &self,
        (from, to): (Address, Address),
        expected: Option<&Piece>,
        found: Option<&Map>,
    ) -> Cause {
        if let Some(piece) = expected
            && matches!(piece.maker, Maker::Call { .. })
        {
            return self.of_called(from, found);
        }
        let by_found = found.map(|map| self.of_found(from, map));
        match (expected, by_found) {
            (_, Some(cause)) if cause != Cause::Unexplained => cause,
            (None, Some(_)) if to - from <= self.making => Cause::UnderWay,
            (Some(piece), _) => self.of_expected(from, piece),
            (None, _) => Cause::Unexplained,
        }
    }

    /// The program's and malloc's own mappings go and change by calls that the log has. Only what
    /// was put in their place may have another cause.
    fn of_called(&self, from: Address, found: Option<&Map>) -> Cause {
        match found {
            Some(map) if map.own || is_memspy(&map.path) => Cause::Memspy,
            Some(map) if map.inode != 0 && module_at(&self.memory.modules, from).is_some() => {
                Cause::Loader
            }
            _ if !self.glibc => Cause::Allocator,
            _ => Cause::Unexplained,
        }
    }

    fn of_found(&self, from: Address, map: &Map) -> Cause {
        let path = &map.path[..];
        if map.own || is_memspy(path) {
            return Cause::Memspy;
        }
        if let Some(module) = module_at(&self.memory.modules, from) {
            return if is_memspy(module) {
                Cause::Memspy
            } else {
                Cause::Loader
            };
        }
        match path {
            b"[stack]" => return Cause::StackGrew,
            b"[heap]" => return Cause::Break,
            _ if path.starts_with(b"[") && !path.starts_with(b"[anon") => return Cause::Kernel,
            _ => {}
        }
        if map.inode != 0 {
            return self.of_file(map);
        }
        if self.in_arena(from) {
            return Cause::Arena;
        }
        let at = |address| {
            let map = self
                .maps
                .iter()
                .find(|map| map.from <= address && address < map.to);
            map.and_then(Area::of_map)
        };
        if Area::of_map(map).is_some_and(|area| thread_stack(area, at, self.stacks).is_some()) {
            return Cause::ThreadStack;
        }
        if !self.glibc {
            return Cause::Allocator;
        }
        Cause::Unexplained
    }

    fn of_file(&self, map: &Map) -> Cause {
        let code = |other: &&Map| other.inode == map.inode && other.perms.contains('x');
        if self.maps.iter().any(|other| code(&other)) {
            Cause::Loader
        } else if is_locale(&map.path) {
            Cause::Locale
        } else {
            Cause::Unexplained
        }
    }

    fn of_expected(&self, from: Address, piece: &Piece) -> Cause {
        if piece.own || is_memspy(&piece.path) {
            return Cause::Memspy;
        }
        match piece.maker {
            Maker::Arena(_) => return Cause::Arena,
            Maker::Break => return Cause::Break,
            Maker::Start | Maker::Found(_) | Maker::Call { .. } => {}
        }
        let gone = self
            .memory
            .modules
            .iter()
            .find(|module| from.wrapping_sub(module.base) < module.size);
        match gone {
            Some(_) => Cause::Unloaded,
            None if is_locale(&piece.path) => Cause::Locale,
            None if &piece.path[..] == b"[stack]" => Cause::StackGrew,
            None if !piece.file => Cause::ThreadStack,
            None => Cause::Unexplained,
        }
    }

    fn in_arena(&self, from: Address) -> bool {
        self.memory
            .mappings
            .arenas()
            .any(|arena| from.wrapping_sub(arena.base) < ARENA_HEAP)
    }
}

/// The path of the loaded object in whose span an address lies.
pub(super) fn module_at(modules: &Modules, address: Address) -> Option<&[u8]> {
    modules.at(address).map(|module| &module.path[..])
}

/// Whether libc maps a file of this name by itself: locale archives and categories, gconv's cache.
pub(super) fn is_locale(path: &[u8]) -> bool {
    let has = |word: &[u8]| path.windows(word.len()).any(|window| window == word);
    has(b"/locale/") || has(b"/gconv/") || has(b"/LC_")
}

/// Anonymous memory, as far as it tells a thread's stack.
#[derive(Clone, Copy)]
pub(super) struct Area {
    /// First byte.
    pub(super) from: Address,
    /// First byte behind it.
    pub(super) to: Address,
    /// Its permissions.
    pub(super) perms: Perms,
}

impl Area {
    /// The area of a snapshot's line; `None` for a file's and memspy's.
    fn of_map(map: &Map) -> Option<Area> {
        let anonymous = map.inode == 0 && !map.own && map.path.is_empty();
        anonymous.then(|| Area {
            from: map.from,
            to: map.to,
            perms: Perms::from_letters(&map.perms),
        })
    }
}

/// Whether an area is a thread's stack or its guard; the thread's number, 0 when it never made an
/// event.
///
/// pthread_create(3) maps both at once and takes access from the guard, so that the guard lies
/// directly below the stack. `at` answers the area that contains an address.
pub(super) fn thread_stack(
    area: Area,
    at: impl Fn(Address) -> Option<Area>,
    stacks: &[(u32, Address)],
) -> Option<u32> {
    let holder = |area: Area| {
        let mut latest_first = stacks.iter().rev();
        latest_first
            .find(|(_, sp)| (area.from..area.to).contains(sp))
            .map(|(thread, _)| *thread)
    };
    let writable = Perms::from_letters("rw-p");
    if area.perms == Perms::default() {
        let above = at(area.to).filter(|above| above.perms == writable)?;
        return Some(holder(above).unwrap_or(0));
    }
    if let Some(thread) = holder(area) {
        return Some(thread);
    }
    let below = at(area.from.wrapping_sub(1))?;
    (area.perms == writable && below.perms == Perms::default()).then_some(0)
}
