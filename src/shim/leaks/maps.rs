//! The mappings of the copy, from its /proc/self/maps, and reading what they hold without ever faulting.

use super::arrays;
use super::kernel;
use super::mark::Memory;
use crate::sys;
use core::cell::Cell;

/// What backs a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Anonymous,
    /// The brk heap.
    Heap,
    /// The first thread's stack.
    Stack,
    File,
    /// A device: reading it could do anything.
    Device,
}

/// One line of /proc/self/maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) executable: bool,
    pub(super) shared: bool,
    pub(super) kind: Kind,
}

impl Mapping {
    /// Whether its pages are the process's own, so that a load can't fail.
    fn is_plain(&self) -> bool {
        !self.shared && !matches!(self.kind, Kind::File | Kind::Device)
    }
}

/// From this length on a range is asked for untouched pages before it is read.
const SPARSE: usize = 1 << 20;
const PAGE: usize = 4096;
/// Pages about which the kernel is asked at once.
const WINDOW: usize = 512;

/// All mappings of the copy in ascending order.
pub(super) struct Maps {
    list: &'static [Mapping],
    pagemap: Option<i32>,
    pid: i32,
    /// The plain readable mapping that was used last.
    last: Cell<(usize, usize)>,
    /// What the kernel says about each of [`WINDOW`] pages: pages that may hold anything are not 0.
    window: &'static [Cell<u64>],
    /// Number of the first one.
    window_from: Cell<usize>,
    /// The page that was copied last for single words of it, and its address; `usize::MAX`: there is none.
    page: &'static [Cell<u64>],
    page_at: Cell<usize>,
}

impl Maps {
    /// Reads the list. `None`: there is no /proc, or it can't be read.
    pub(super) fn read() -> Option<Maps> {
        let buf = arrays::zeroed::<u8>(1 << 16)?;
        // Once to count, once to keep; the list itself is a mapping more.
        let mut most = 8;
        each_line(buf, |_| most += 1)?;
        let list = arrays::zeroed::<Mapping>(most)?;
        let mut len = 0;
        each_line(buf, |line| {
            if let Some(mapping) = parse(line)
                && let Some(slot) = list.get_mut(len)
            {
                *slot = mapping;
                len += 1;
            }
        })?;
        Some(Maps {
            list: list.get(..len)?,
            pagemap: kernel::open(c"/proc/self/pagemap").ok(),
            pid: sys::getpid(),
            last: Cell::new((1, 0)),
            window: Cell::from_mut(arrays::zeroed::<u64>(WINDOW)?).as_slice_of_cells(),
            window_from: Cell::new(usize::MAX),
            page: Cell::from_mut(arrays::zeroed::<u64>(PAGE / 8)?).as_slice_of_cells(),
            page_at: Cell::new(usize::MAX),
        })
    }

    pub(super) fn list(&self) -> &'static [Mapping] {
        self.list
    }

    /// At most how many pieces of `size` bytes, each in one writable mapping, there can be; never more than a million,
    /// which is more than the kernel has threads.
    pub(super) fn pieces(&self, size: usize) -> usize {
        let of = |mapping: &Mapping| (mapping.to - mapping.from) / size + 1;
        let writable = self.list.iter().filter(|mapping| mapping.writable);
        writable.map(of).sum::<usize>().min(1 << 20)
    }

    /// The mapping that holds an address.
    pub(super) fn at(&self, address: usize) -> Option<&'static Mapping> {
        let after = self.list.partition_point(|mapping| mapping.from <= address);
        let mapping = self.list.get(after.checked_sub(1)?)?;
        (address < mapping.to).then_some(mapping)
    }

    /// The word at an address; `None` when it can't be read.
    pub(super) fn load(&self, at: usize) -> Option<u64> {
        let (from, to) = self.last.get();
        if at < from || at.checked_add(8)? > to {
            let mapping = self.at(at)?;
            if !mapping.readable || mapping.kind == Kind::Device || at + 8 > mapping.to {
                return None;
            }
            if !mapping.is_plain() {
                return self.load_copied(at);
            }
            self.last.set((mapping.from, mapping.to));
        }
        // SAFETY: the word lies in a readable mapping of own pages, and the copy is alone with its memory.
        Some(unsafe { (at as *const u64).read_unaligned() })
    }

    /// A word of a page that may be missing: a copy of the page is asked, which the next words are likely to be in, too.
    #[cold]
    fn load_copied(&self, at: usize) -> Option<u64> {
        let page = at - at % PAGE;
        if at + 8 > page + PAGE {
            let mut word = [0];
            let got = kernel::copy_own(self.pid, at, &mut word);
            return (got == Ok(8)).then_some(word[0]);
        }
        if self.page_at.get() != page {
            let mut words = [0u64; PAGE / 8];
            self.page_at.set(usize::MAX);
            if kernel::copy_own(self.pid, page, &mut words) != Ok(PAGE) {
                return None;
            }
            for (to, word) in self.page.iter().zip(words) {
                to.set(word);
            }
            self.page_at.set(page);
        }
        let (index, shift) = (at % PAGE / 8, at % 8 * 8);
        let low = self.page.get(index)?.get() >> shift;
        let high = match shift {
            0 => 0,
            _ => self.page.get(index + 1)?.get() << (64 - shift),
        };
        Some(low | high)
    }

    /// Whether a page can hold anything but zeros. Meant for pages in ascending order.
    pub(super) fn touched(&self, at: usize) -> bool {
        let page = at / PAGE;
        let from = page - page % WINDOW;
        if self.window_from.get() != from {
            self.look_at(from);
        }
        self.window
            .get(page - from)
            .is_none_or(|entry| entry.get() != 0)
    }

    #[cold]
    fn look_at(&self, from: usize) {
        let mut entries = [0; WINDOW];
        let offset = (from * size_of::<u64>()) as u64;
        let read = match self.pagemap {
            Some(fd) => kernel::pread(fd, &mut entries, offset).unwrap_or(0) / size_of::<u64>(),
            None => 0,
        };
        for (i, (to, entry)) in self.window.iter().zip(entries).enumerate() {
            to.set(if i < read { entry >> 62 } else { 1 });
        }
        self.window_from.set(from);
    }

    /// Calls `visit` with the parts of a range of own pages that can hold anything but zeros.
    fn each_touched(&self, from: usize, to: usize, mut visit: impl FnMut(usize, usize)) {
        let fd = match self.pagemap {
            Some(fd) if to - from >= SPARSE => fd,
            _ => return visit(from, to),
        };
        let mut entries = [0u64; 512];
        let mut at = from;
        while at < to {
            let offset = (at / PAGE * 8) as u64;
            let read = kernel::pread(fd, &mut entries, offset).unwrap_or(0) / 8;
            let Some(entries) = entries.get(..read).filter(|entries| !entries.is_empty()) else {
                return visit(at, to);
            };
            for entry in entries {
                let next = (at / PAGE + 1) * PAGE;
                if entry >> 62 != 0 && at < to {
                    visit(at, next.min(to));
                }
                at = next;
            }
        }
    }

    /// Calls `visit` with address and value of each aligned word of a range that can be read and may be other than 0.
    pub(super) fn each_word_at(&self, from: usize, to: usize, mut visit: impl FnMut(usize, u64)) {
        let first = self.list.partition_point(|mapping| mapping.to <= from);
        for mapping in self.list.get(first..).unwrap_or_default() {
            if mapping.from >= to {
                return;
            }
            if !mapping.readable || mapping.kind == Kind::Device {
                continue;
            }
            let (from, to) = (from.max(mapping.from), to.min(mapping.to));
            if mapping.is_plain() {
                self.last.set((mapping.from, mapping.to));
                self.each_touched(from, to, |from, to| each_plain(from, to, &mut visit));
            } else {
                self.each_copied(from, to, &mut visit);
            }
        }
    }

    /// The same for pages that may be missing (a file that was cut short): by way of the kernel.
    fn each_copied(&self, from: usize, to: usize, visit: &mut impl FnMut(usize, u64)) {
        let mut words = [0u64; PAGE / 8];
        let mut at = from.next_multiple_of(8);
        while at < to {
            let end = ((at / PAGE + 1) * PAGE).min(to);
            let want = (end - at) / 8;
            if let Some(words) = words.get_mut(..want)
                && kernel::copy_own(self.pid, at, words) == Ok(want * 8)
            {
                for (i, word) in words.iter().enumerate() {
                    visit(at + i * 8, *word);
                }
            }
            at = end;
        }
    }
}

#[inline(always)]
fn each_plain(from: usize, to: usize, visit: &mut impl FnMut(usize, u64)) {
    let mut at = from.next_multiple_of(8);
    while at + 8 <= to {
        // SAFETY: the caller found the range readable, and the copy is alone with its memory.
        visit(at, unsafe { (at as *const u64).read() });
        at += 8;
    }
}

impl Memory for Maps {
    #[inline(always)]
    fn word(&self, at: usize) -> u64 {
        self.load(at).unwrap_or(0)
    }

    #[inline(always)]
    fn each_word(&self, from: usize, to: usize, mut visit: impl FnMut(u64)) {
        let (low, high) = self.last.get();
        if from >= low && to <= high && to - from < SPARSE {
            each_plain(from, to, &mut |_, word| visit(word));
        } else {
            self.each_word_at(from, to, |_, word| visit(word));
        }
    }

    #[inline(always)]
    fn prefetch(&self, at: usize) {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address has no effect that a program could see.
        unsafe { _mm_prefetch(at as *const i8, _MM_HINT_T0) };
    }

    fn is_module(&self, at: usize) -> bool {
        self.at(at)
            .is_some_and(|mapping| mapping.kind == Kind::File && mapping.readable)
    }

    fn is_code(&self, at: usize) -> bool {
        self.at(at)
            .is_some_and(|mapping| mapping.kind == Kind::File && mapping.executable)
    }
}

/// Calls `visit` with each line of /proc/self/maps.
fn each_line(buf: &mut [u8], mut visit: impl FnMut(&[u8])) -> Option<()> {
    let fd = kernel::open(c"/proc/self/maps").ok()?;
    let mut held = 0;
    loop {
        let got = sys::read(fd, buf.get_mut(held..)?).ok()?;
        if got == 0 {
            break;
        }
        held += got;
        let text = buf.get(..held)?;
        let mut begin = 0;
        while let Some(end) = text.get(begin..)?.iter().position(|byte| *byte == b'\n') {
            visit(text.get(begin..begin + end)?);
            begin += end + 1;
        }
        buf.copy_within(begin..held, 0);
        held -= begin;
    }
    sys::close(fd);
    Some(())
}

/// One line: `from-to perms offset dev inode path`.
fn parse(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let mut range = fields.next()?.splitn(2, |byte| *byte == b'-');
    let from = hex(range.next()?)?;
    let to = hex(range.next()?)?;
    let perms = fields.next()?;
    let inode = fields.nth(2)?;
    let path = fields.next().unwrap_or_default().trim_ascii_start();
    let has = |letter| perms.contains(&letter);
    let kind = match path {
        b"[heap]" => Kind::Heap,
        b"[stack]" => Kind::Stack,
        _ if path.starts_with(b"/dev/zero") || path.starts_with(b"/dev/shm/") => Kind::File,
        _ if path.starts_with(b"/dev/") => Kind::Device,
        _ if inode == b"0" => Kind::Anonymous,
        _ => Kind::File,
    };
    Some(Mapping {
        from,
        to,
        readable: has(b'r'),
        writable: has(b'w'),
        executable: has(b'x'),
        shared: has(b's'),
        kind,
    })
}

fn hex(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0usize, |number, digit| {
        Some(number << 4 | (*digit as char).to_digit(16)? as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::{Kind, Maps, parse};

    #[test]
    fn a_line_says_where_what_and_how() {
        let line = b"7f00-7f10 rw-s 00001000 08:01 1234                       /dev/dri/card0";
        let mapping = parse(line).expect("a mapping");
        assert_eq!((mapping.from, mapping.to), (0x7f00, 0x7f10));
        assert_eq!(mapping.kind, Kind::Device);
        assert!(mapping.shared && mapping.writable && !mapping.executable);
        let kind = |line: &[u8]| parse(line).map(|mapping| mapping.kind);
        assert_eq!(kind(b"1-2 rw-p 0 00:00 0 "), Some(Kind::Anonymous));
        assert_eq!(kind(b"1-2 rw-p 0 00:00 0      [heap]"), Some(Kind::Heap));
        assert_eq!(
            kind(b"1-2 rw-p 0 08:01 7  /lib/libc.so.6"),
            Some(Kind::File)
        );
        assert_eq!(
            kind(b"1-2 rw-s 0 00:01 7  /dev/zero (deleted)"),
            Some(Kind::File)
        );
        assert_eq!(kind(b"junk"), None);
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn words_are_read_where_there_is_memory_and_nowhere_else() {
        let maps = Maps::read().expect("/proc/self/maps");
        let here = 0x1234_5678_9abc_def0u64;
        let at = &raw const here as usize;
        assert_eq!(maps.load(at), Some(here));
        assert_eq!(maps.load(0), None);
        assert_eq!(maps.load(usize::MAX), None);
        let mut seen = 0;
        maps.each_word_at(at, at + 8, |_, word| seen += u32::from(word == here));
        assert_eq!(seen, 1);
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn words_of_a_file_are_read_as_they_are_at_any_address() {
        static TEXT: [u64; 1536] = {
            let mut text = [0; 1536];
            let mut i = 0;
            while i < text.len() {
                text[i] = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(i as u64 + 1);
                i += 1;
            }
            text
        };
        let maps = Maps::read().expect("/proc/self/maps");
        let from = &raw const TEXT as usize;
        assert_eq!(maps.at(from).map(|mapping| mapping.kind), Some(Kind::File));
        for at in from..from + size_of_val(&TEXT) - 8 {
            // SAFETY: the eight bytes lie inside the text.
            let expected = unsafe { (at as *const u64).read_unaligned() };
            assert_eq!(maps.load(at), Some(expected));
        }
    }
}
