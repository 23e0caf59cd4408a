//! A picture of the address space: /proc/self/smaps as lines of the log. Never on the event path.
//!
//! The kernel's text, most of which is passed over, is taken as it comes, a page at a time, and becomes a list of mappings
//! in the scratch's annex. A mapping of the kernel's that is partly memspy's (the kernel merges neighbours) is cut at its
//! borders, and the scratch itself is left out.

use crate::scratch::Scratch;
use crate::{clock, glibc, log, memory, sys};
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use memspy_log::{Line, Op, key, tag};

/// Room for the text that is being read, and after that for the list of memspy's ranges.
const WINDOW: usize = memory::MAX_OWN * size_of::<(usize, usize)>();
/// Room for the lines and for the list of mappings of nearly every process: two thousand mappings.
const LINES: usize = 1 << 20;
const LIST: usize = 512 << 10;
/// The same for as many as the kernel allows by default, 65,530. Only what is used costs memory.
const MAX_LINES: usize = 16 << 20;
const MAX_LIST: usize = 16 << 20;
/// What a mapping's line takes without its path, at most, and what may be written of a byte of that.
const LINE: usize = 320;
const ESCAPED: usize = 6;

/// A path is at most 4096 bytes long, and the kernel may write four for each.
const _: () = assert!(WINDOW > 4 * 4096 + 256);

static LAST_ID: AtomicU64 = AtomicU64::new(0);
/// There was one by [`write_once`].
static ONCE: AtomicBool = AtomicBool::new(false);

/// Numbers the snapshots from 1 again (a new image).
pub(crate) fn restart() {
    LAST_ID.store(0, Relaxed);
    ONCE.store(false, Relaxed);
}

/// Adds a snapshot to `scratch`. A map that can't be read is left out: the log then has none.
pub(crate) fn add(scratch: &mut Scratch, when: &str) {
    add_at(scratch, when, b"");
}

/// The same, of the moment of a mark; an empty name is none.
pub(crate) fn add_at(scratch: &mut Scratch, when: &str, mark: &[u8]) {
    let began = clock::before();
    let brk = glibc::current_break();
    let Ok(mut list) = List::read(scratch) else {
        return;
    };
    if (list.is_cut || !scratch.has_room(list.most_text()))
        && scratch.grow(MAX_LINES, WINDOW + MAX_LIST).is_ok()
    {
        match List::read(scratch) {
            Ok(whole) => list = whole,
            Err(_) => return,
        }
    }
    let id = LAST_ID.fetch_add(1, Relaxed) + 1;
    let until = clock::after();
    // After the kernel's list and before the shim's: what is in the first alone was in the making then.
    let making = memory::in_the_making();
    let owned = Owned {
        ranges: list.own_ranges(),
        passing: scratch.range(),
    };
    let mut count = 0;
    for (map, _) in list.maps() {
        owned.pieces(map.from, map.to, |_, _, _| count += 1);
    }
    scratch.line(const { &tag(Op::Snapshot) }, |line| {
        line.num(const { &key("t") }, began);
        line.num(const { &key("dt") }, until - began);
        line.num(const { &key("id") }, id);
        line.name(const { &key("when") }, when);
        if !mark.is_empty() {
            line.text(log::MARK, mark);
        }
        line.num(const { &key("maps") }, count);
        line.addr(const { &key("brk") }, brk);
        line.num(
            const { &key("stack_limit") },
            sys::rlimit(libc::RLIMIT_STACK),
        );
        if making != 0 {
            line.num(const { &key("making") }, making as u64);
        }
    });
    for (map, path) in list.maps() {
        owned.pieces(map.from, map.to, |from, to, own| {
            scratch.line(const { &tag(Op::Map) }, |line| {
                line.num(const { &key("t") }, until);
                line.num(const { &key("snapshot") }, id);
                map.put(path, line, from, to, own);
            });
        });
    }
}

/// Writes a snapshot by itself, once in the life of an image.
#[cold]
pub(crate) fn write_once(when: &str) {
    if ONCE.swap(true, Relaxed) {
        return;
    }
    let mask = sys::block_signals();
    if let Ok(mut scratch) = scratch() {
        add(&mut scratch, when);
        let _ = scratch.write();
    }
    sys::restore_signals(mask);
}

/// A scratch for a snapshot, which grows if that is large.
pub(crate) fn scratch() -> sys::Result<Scratch> {
    Scratch::with_annex(LINES, WINDOW + LIST)
}

/// What of the address space is memspy's, as it was when the list was made.
struct Owned<'a> {
    /// Ranges in order; none touches another.
    ranges: &'a [(usize, usize)],
    /// A range that is gone as soon as the snapshot is done: it leaves it out.
    passing: (usize, usize),
}

impl Owned<'_> {
    /// Calls `each` with start, end and whether it is memspy's of every part of a range.
    fn pieces(&self, from: usize, to: usize, mut each: impl FnMut(usize, usize, bool)) {
        let mut at = from;
        while at < to {
            let (passing, border) = covered(&[self.passing], at);
            let end = to.min(border);
            if passing {
                at = end;
                continue;
            }
            let (own, border) = covered(self.ranges, at);
            let end = end.min(border);
            each(at, end, own);
            at = end;
        }
    }
}

/// Joins ranges, which are in order, with the neighbours that they touch.
fn join(ranges: &mut [(usize, usize)]) -> &[(usize, usize)] {
    let mut joined = 0;
    for next in 1..ranges.len() {
        let Some(range) = ranges.get(next).copied() else {
            break;
        };
        match ranges.get_mut(joined) {
            Some(last) if range.0 <= last.1 => last.1 = last.1.max(range.1),
            _ => {
                joined += 1;
                ranges.swap(joined, next);
            }
        }
    }
    ranges.get(..=joined).unwrap_or_default()
}

/// Whether one of the ranges, which are in order, contains an address, and the first border above it.
fn covered(ranges: &[(usize, usize)], at: usize) -> (bool, usize) {
    let next = ranges.partition_point(|(_, end)| *end <= at);
    match ranges.get(next) {
        Some((start, end)) if *start <= at => (true, *end),
        Some((start, _)) => (false, *start),
        None => (false, usize::MAX),
    }
}

/// The kernel's list of mappings: each a [`Map`] and its path, one behind the other, in the annex of a scratch, which must
/// outlive it.
struct List {
    /// WINDOW bytes.
    window: *mut u8,
    list: *mut u8,
    /// Bytes of the list and of its room.
    used: usize,
    room: usize,
    /// There was no room for all.
    is_cut: bool,
}

impl List {
    /// The list as it is now, in the annex of a scratch. Without smaps (a kernel may lack it) the sizes in memory are
    /// missing.
    fn read(scratch: &Scratch) -> sys::Result<List> {
        let (window, len) = scratch.annex();
        let mut list = List {
            window,
            list: window.wrapping_add(WINDOW),
            used: 0,
            room: len.saturating_sub(WINDOW),
            is_cut: false,
        };
        list.take_in(c"/proc/self/smaps")
            .or_else(|_| list.take_in(c"/proc/self/maps"))?;
        Ok(list)
    }

    /// The longest that its lines can be.
    fn most_text(&self) -> usize {
        let of = |(_, path): (&Map, &[u8])| LINE + ESCAPED * path.len();
        // Mappings that are memspy's in part have more than one.
        self.maps().map(of).sum::<usize>() + 64 * (LINE + ESCAPED * 256)
    }

    /// Takes in the file; what a mapping's last line lacks, the mapping lacks.
    fn take_in(&mut self, path: &CStr) -> sys::Result<()> {
        let fd = sys::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0)?;
        // SAFETY: the window is the annex's first bytes, which only this function borrows before `own_ranges`.
        let window = unsafe { core::slice::from_raw_parts_mut(self.window, WINDOW) };
        let mut open = None;
        let mut kept = 0;
        while let Some(room) = window.get_mut(kept..)
            && let Ok(len @ 1..) = sys::read(fd, room)
        {
            let mut lines = Lines(window.get(..kept + len).unwrap_or_default());
            for line in lines.by_ref() {
                self.take(&mut open, line);
            }
            let rest = lines.0.len();
            window.copy_within(kept + len - rest..kept + len, 0);
            kept = rest;
        }
        sys::close(fd);
        self.close(&mut open);
        Ok(())
    }

    /// Takes in a line: a mapping, or a size of the one that is `open`.
    fn take(&mut self, open: &mut Option<Map>, line: &[u8]) {
        if !is_head(line) {
            if let (Some(map), Some((word, bytes))) = (open, size(line)) {
                map.count(word, bytes);
            }
            return;
        }
        self.close(open);
        let Some((map, path)) = Map::parse(line) else {
            return;
        };
        if map.entry() > self.room - self.used {
            self.is_cut = true;
            return;
        }
        // SAFETY: behind the list there is room for the mapping and its path.
        unsafe {
            let to = self.list.add(self.used + size_of::<Map>());
            to.copy_from_nonoverlapping(path.as_ptr(), path.len());
        }
        *open = Some(map);
    }

    /// Puts the open mapping on the list, where its room and its path are already.
    fn close(&mut self, open: &mut Option<Map>) {
        if let Some(map) = open.take() {
            let len = map.entry();
            // SAFETY: `take` saw to the room; the list is as aligned as a page and each entry's length.
            unsafe { self.list.add(self.used).cast::<Map>().write(map) };
            self.used += len;
        }
    }

    /// The mappings in order, with their paths.
    fn maps(&self) -> impl Iterator<Item = (&Map, &[u8])> {
        let mut at = 0;
        core::iter::from_fn(move || {
            if at >= self.used {
                return None;
            }
            // SAFETY: `close` wrote a mapping there, its path directly behind it.
            let (map, path) = unsafe {
                let map = &*self.list.add(at).cast::<Map>();
                let path = self.list.add(at + size_of::<Map>());
                (map, core::slice::from_raw_parts(path, map.path_len))
            };
            at += map.entry();
            Some((map, path))
        })
    }

    /// The shim's ranges now, in order, neighbours joined.
    fn own_ranges(&self) -> &[(usize, usize)] {
        // SAFETY: the window has room for so many, it is aligned as a page is, any bytes are numbers, and the text in
        // it is read.
        let room = unsafe {
            let at = self.window.cast::<(usize, usize)>();
            core::slice::from_raw_parts_mut(at, memory::MAX_OWN)
        };
        let mut count = 0;
        for (place, range) in room.iter_mut().zip(memory::own_ranges()) {
            *place = range;
            count += 1;
        }
        let (ranges, _) = room.split_at_mut(count);
        ranges.sort_unstable();
        join(ranges)
    }
}

/// The whole lines of a text, each with its newline; what follows the last one stays. Most of smaps is passed over: a byte
/// at a time costs as much as the kernel's making of it.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        // SAFETY: memchr only reads the bytes of the slice.
        let found = unsafe { libc::memchr(self.0.as_ptr().cast(), i32::from(b'\n'), self.0.len()) };
        if found.is_null() {
            return None;
        }
        let len = found as usize - self.0.as_ptr() as usize + 1;
        let (line, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(line)
    }
}

/// Whether a mapping begins with this line, and a lower-case digit; lines about one begin with a capital letter.
fn is_head(line: &[u8]) -> bool {
    !line.first().is_some_and(u8::is_ascii_uppercase)
}

/// A line about a mapping, `Rss:      4 kB`, as its word and bytes; `None` for lines that do not matter.
fn size(line: &[u8]) -> Option<(&[u8], usize)> {
    if !matches!(line, [b'R', b's', ..] | [b'P', b'r', ..] | [b'S', b'h', ..]) {
        return None;
    }
    let mut fields = line.trim_ascii().splitn(2, |byte| *byte == b':');
    let word = fields.next()?;
    let number_of_kib = fields.next()?.trim_ascii().strip_suffix(b" kB")?;
    Some((word, number(number_of_kib, 10)?.checked_mul(1024)?))
}

/// What of a mapping is in memory, bytes.
#[derive(Clone, Copy, Default)]
struct Resident {
    all: usize,
    private: usize,
    dirty: usize,
}

/// One mapping: `from-to perms offset dev inode path`, and what smaps adds.
struct Map {
    from: usize,
    to: usize,
    perms: [u8; 4],
    offset: usize,
    inode: usize,
    path_len: usize,
    resident: Option<Resident>,
}

impl Map {
    /// The mapping of a line with its newline, and its path; `None` for a line that is none.
    fn parse(line: &[u8]) -> Option<(Map, &[u8])> {
        let line = line.strip_suffix(b"\n")?;
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut range = fields.next()?.split(|byte| *byte == b'-');
        let (from, to) = (number(range.next()?, 16)?, number(range.next()?, 16)?);
        let perms = fields.next()?.try_into().ok()?;
        let offset = number(fields.next()?, 16)?;
        let _device = fields.next()?;
        let inode = number(fields.next()?, 10)?;
        let path = fields.next().unwrap_or_default().trim_ascii_start();
        let map = Map {
            from,
            to,
            perms,
            offset,
            inode,
            path_len: path.len(),
            resident: None,
        };
        Some((map, path))
    }

    /// Bytes of its entry in a list, with the path.
    fn entry(&self) -> usize {
        (size_of::<Map>() + self.path_len).next_multiple_of(align_of::<Map>())
    }

    /// Takes in a size that smaps gives.
    fn count(&mut self, word: &[u8], bytes: usize) {
        let resident = self.resident.get_or_insert_default();
        match word {
            b"Rss" => resident.all = bytes,
            b"Private_Clean" => resident.private += bytes,
            b"Private_Dirty" => {
                resident.private += bytes;
                resident.dirty += bytes;
            }
            b"Shared_Dirty" => resident.dirty += bytes,
            _ => {}
        }
    }

    fn put(&self, path: &[u8], line: &mut Line, from: usize, to: usize, own: bool) {
        line.addr(const { &key("from") }, from);
        line.addr(const { &key("to") }, to);
        line.text(const { &key("perms") }, &self.perms);
        let skipped = if self.inode == 0 { 0 } else { from - self.from };
        line.num(const { &key("offset") }, (self.offset + skipped) as u64);
        line.num(const { &key("inode") }, self.inode as u64);
        line.text(const { &key("path") }, path);
        // Of a part nobody knows how much is in memory.
        if let Some(resident) = self.resident
            && (from, to) == (self.from, self.to)
        {
            line.num(const { &key("rss") }, resident.all as u64);
            line.num(const { &key("private") }, resident.private as u64);
            line.num(const { &key("dirty") }, resident.dirty as u64);
        }
        if own {
            line.flag(const { &key("own") }, true);
        }
    }
}

/// A number in digits, of which there must be one.
fn number(digits: &[u8], radix: u32) -> Option<usize> {
    let value = |sum: usize, byte: &u8| {
        let digit = char::from(*byte).to_digit(radix)?;
        sum.checked_mul(radix as usize)?.checked_add(digit as usize)
    };
    digits.first()?;
    digits.iter().try_fold(0, value)
}

#[cfg(test)]
mod tests {
    use super::{Lines, Map, Owned, join, size};

    #[test]
    fn a_line_with_blanks_in_its_path_is_read_whole() {
        let line =
            b"7f00a000-7f00b000 r-xp 00001000 fe:00 42                 /tmp/a  b (deleted)\n";
        let (map, path) = Map::parse(line).expect("is a line");
        assert_eq!(
            (map.from, map.to, map.offset, map.inode),
            (0x7f00a000, 0x7f00b000, 0x1000, 42)
        );
        assert_eq!(map.perms, *b"r-xp");
        assert_eq!(path, b"/tmp/a  b (deleted)");
        assert_eq!(map.path_len, path.len());
    }

    #[test]
    fn a_line_that_is_cut_off_is_left_out() {
        assert!(Map::parse(b"7f00a000-7f00b000 r-xp 00001000 fe").is_none());
        assert!(Map::parse(b"nonsense\n").is_none());
    }

    #[test]
    fn a_size_is_read_in_bytes_and_other_lines_are_not_sizes() {
        assert_eq!(
            size(b"Rss:                  12 kB\n"),
            Some((&b"Rss"[..], 12 << 10))
        );
        assert_eq!(size(b"Pss:                  12 kB\n"), None);
        assert_eq!(size(b"VmFlags: rd wr mr mw me ac\n"), None);
        assert_eq!(size(b"ProtectionKey:         0\n"), None);
    }

    #[test]
    fn a_line_without_its_end_waits_for_it() {
        let mut lines = Lines(b"one\n\nthree");
        assert_eq!(lines.next(), Some(&b"one\n"[..]));
        assert_eq!(lines.next(), Some(&b"\n"[..]));
        assert_eq!(lines.next(), None);
        assert_eq!(lines.0, b"three");
        assert_eq!(Lines(b"").count(), 0);
    }

    #[test]
    fn neighbours_are_one_range() {
        let mut ranges = [(1, 3), (3, 4), (6, 7), (7, 9), (10, 11)];
        assert_eq!(join(&mut ranges), [(1, 4), (6, 9), (10, 11)]);
        assert_eq!(join(&mut []), []);
    }

    #[test]
    fn what_is_mapped_in_passing_is_cut_out_and_own_parts_are_told() {
        let owned = Owned {
            ranges: &[(0x2000, 0x5000), (0x6000, 0x7000), (0x8000, 0xa000)],
            passing: (0x2000, 0x5000),
        };
        let mut pieces = Vec::new();
        owned.pieces(0x1000, 0x9000, |from, to, own| pieces.push((from, to, own)));
        let expected = [
            (0x1000, 0x2000, false),
            (0x5000, 0x6000, false),
            (0x6000, 0x7000, true),
            (0x7000, 0x8000, false),
            (0x8000, 0x9000, true),
        ];
        assert_eq!(pieces, expected);
    }
}
